-- Adds a client, or finds that it has been added already.
-- KEYS: client, clients, client keys, revision, changes
-- ARGV: name, digest, mark, channel, then fields and their values
-- Answers 'ok', 'name' when that is taken, or 'key' when that is.

local name, digest = ARGV[1], ARGV[2]
local there = redis.call('HGET', KEYS[1], 'digest')
if there then
  return there == digest and 'ok' or 'name'
end
if redis.call('HEXISTS', KEYS[3], digest) == 1 then
  return 'key'
end
tell(KEYS[4], KEYS[5], ARGV[4], ARGV[3])
redis.call('HSET', KEYS[1], 'digest', digest)
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('ZADD', KEYS[2], 0, name)
redis.call('HSET', KEYS[3], digest, name)
return 'ok'
