-- Gives calls of a day back, at most all of them.
-- KEYS: days
-- ARGV: day, count

local total = redis.call('HGET', KEYS[1], ARGV[1])
if total then
  local left = math.max(tonumber(total) - tonumber(ARGV[2]), 0)
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', left))
end
return 1
