-- Writes a client as it is.
-- KEYS: client, clients, client keys, revision, changes
-- ARGV: name, digest, mark, channel, digest of the key that it replaces or '', then fields and
--       their values
-- Answers 'ok', 'other' when something else is there, or 'key' when its key is another's.

local name, digest = ARGV[1], ARGV[2]
local there = redis.call('HGET', KEYS[1], 'digest')
if (there or '') ~= ARGV[5] then
  return 'other'
end
local owner = redis.call('HGET', KEYS[3], digest)
if owner and owner ~= name then
  return 'key'
end
tell(KEYS[4], KEYS[5], ARGV[4], ARGV[3])
if there then
  redis.call('DEL', KEYS[1])
  redis.call('HDEL', KEYS[3], there)
end
redis.call('HSET', KEYS[1], 'digest', digest)
for i = 6, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('ZADD', KEYS[2], 0, name)
redis.call('HSET', KEYS[3], digest, name)
return 'ok'
