-- Gives a client other keys.
-- KEYS: client, client keys, revision, changes
-- ARGV: name, digest, mark, channel, then fields and their values
-- Answers 'ok', 'none' when there is no such client, or 'key' when the key is another's.

local name, digest = ARGV[1], ARGV[2]
local owner = redis.call('HGET', KEYS[2], digest)
if owner and owner ~= name then
  return 'key'
end
local old = redis.call('HGET', KEYS[1], 'digest')
if not old then
  return 'none'
end
tell(KEYS[3], KEYS[4], ARGV[4], ARGV[3])
redis.call('HDEL', KEYS[1], 'expires', 'previous', 'previous_until')
redis.call('HSET', KEYS[1], 'digest', digest)
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('HDEL', KEYS[2], old)
redis.call('HSET', KEYS[2], digest, name)
return 'ok'
