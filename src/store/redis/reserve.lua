-- Reserves calls of a day, or of the one after it once that has been seen. What lies further ahead
-- was counted by a clock that was wrong, and is added to the day.
-- KEYS: days
-- ARGV: day, calls wanted, limit, days kept, seconds until all are forgotten
-- Answers the day that counts, calls granted, and all calls of that day.

local asked, want, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local stored = redis.call('HGETALL', KEYS[1])
local day, taken, ahead, days = asked, 0, 0, {}
for i = 1, #stored, 2 do
  local of, total = tonumber(stored[i]), tonumber(stored[i + 1])
  days[#days + 1] = of
  if of > asked + 1 then
    ahead = ahead + total
  elseif of >= day then
    day, taken = of, total
  end
end
taken = taken + ahead
local granted = math.max(math.min(want, limit - taken), 0)
local total = taken + granted
if granted > 0 then
  redis.call('HSET', KEYS[1], day, string.format('%.0f', total))
  local kept = { day }
  for _, of in ipairs(days) do
    if of > day then
      redis.call('HDEL', KEYS[1], of)
    elseif of < day then
      kept[#kept + 1] = of
    end
  end
  table.sort(kept, function(a, b) return a > b end)
  for i = tonumber(ARGV[4]) + 1, #kept do
    redis.call('HDEL', KEYS[1], kept[i])
  end
  redis.call('EXPIRE', KEYS[1], ARGV[5])
end
return { day, granted, total }
