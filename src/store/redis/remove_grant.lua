-- Removes a grant, and the authorizations of its tenant also when there is none.
-- KEYS: grant, tenants, meta, revision, changes, authorizations, their order, lateness and tenants
-- ARGV: tenant, mark, channel
-- Answers whether it was there. It is told of also when not: an instance may be about to restore it.

tell(KEYS[4], KEYS[5], ARGV[3], ARGV[2])
local tenant = ARGV[1]
local version = redis.call('HGET', KEYS[1], 'version')
if version then
  local floor = tonumber(redis.call('HGET', KEYS[3], 'version_floor') or '0')
  redis.call('HSET', KEYS[3], 'version_floor', digits(math.max(floor, tonumber(version))))
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], tenant)
end
local from, to = '[' .. tenant .. '\0', '(' .. tenant .. '\1'
for _, member in ipairs(redis.call('ZRANGEBYLEX', KEYS[9], from, to)) do
  local state = string.sub(member, -43)
  redis.call('HDEL', KEYS[6], state)
  redis.call('ZREM', KEYS[7], state)
  redis.call('ZREM', KEYS[8], state)
  redis.call('ZREM', KEYS[9], member)
end
return version and 1 or 0
