-- Holds or releases an API key.
-- KEYS: paused, revision, changes
-- ARGV: API key, mark, channel, 1 to hold or 0

local is_paused = redis.call('SISMEMBER', KEYS[1], ARGV[1])
if is_paused ~= tonumber(ARGV[4]) then
  tell(KEYS[2], KEYS[3], ARGV[3], ARGV[2])
  redis.call(is_paused == 0 and 'SADD' or 'SREM', KEYS[1], ARGV[1])
end
return 1
