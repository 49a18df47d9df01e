-- Holds or releases a tenant.
-- KEYS: grant, revision, changes
-- ARGV: mark, channel, 1 to hold or 0
-- Answers whether there is one.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
if redis.call('HGET', KEYS[1], 'paused') ~= ARGV[3] then
  tell(KEYS[2], KEYS[3], ARGV[2], ARGV[1])
  redis.call('HSET', KEYS[1], 'paused', ARGV[3])
end
return 1
