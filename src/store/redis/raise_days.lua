-- Raises the counts of days; none goes down.
-- KEYS: days
-- ARGV: days kept, seconds until all are forgotten, then days and their counts

for i = 3, #ARGV, 2 do
  local there = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or '0')
  if tonumber(ARGV[i + 1]) > there then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
local kept = redis.call('HKEYS', KEYS[1])
table.sort(kept, function(a, b) return tonumber(a) > tonumber(b) end)
for i = tonumber(ARGV[1]) + 1, #kept do
  redis.call('HDEL', KEYS[1], kept[i])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
