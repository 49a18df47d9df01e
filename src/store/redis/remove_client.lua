-- Removes a client.
-- KEYS: client, clients, client keys, revision, changes
-- ARGV: name, mark, channel
-- Answers whether it was there. It is told of also when not: an instance may be about to restore it.

tell(KEYS[4], KEYS[5], ARGV[3], ARGV[2])
local digest = redis.call('HGET', KEYS[1], 'digest')
if not digest then
  return 0
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], digest)
return 1
