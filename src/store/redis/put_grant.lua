-- Makes or replaces a grant.
-- KEYS: grant, tenants, meta, revision, changes
-- ARGV: tenant, mark, channel, weight or '', then fields and their values
-- Answers whether it was there, and all of its fields.

local grant = KEYS[1]
local tenant, mark, channel, weight = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local old = redis.call('HGET', grant, 'version')
local version
if old then
  version = tonumber(old) + 1
else
  -- versions of a grant that was here before are older than this moment, whatever became of them
  local floor = tonumber(redis.call('HGET', KEYS[3], 'version_floor') or '0')
  version = math.max(floor + 1, micros())
end
if weight == '' then
  weight = redis.call('HGET', grant, 'weight') or '1'
end
local paused = redis.call('HGET', grant, 'paused') or '0'
tell(KEYS[4], KEYS[5], channel, mark)
redis.call('HDEL', grant, 'access', 'access_expires', 'dead', 'begun', 'refreshed')
redis.call('HSET', grant, 'version', digits(version), 'weight', weight, 'paused', paused)
for i = 5, #ARGV, 2 do
  redis.call('HSET', grant, ARGV[i], ARGV[i + 1])
end
redis.call('ZADD', KEYS[2], 0, tenant)
return { old and 1 or 0, redis.call('HGETALL', grant) }
