-- Writes a grant as it is.
-- KEYS: grant, tenants, meta, revision, changes
-- ARGV: tenant, mark, channel, version that it replaces or '', its version, then fields and their
--       values
-- Answers its version here, or 0 when something else is there.

local grant, tenant = KEYS[1], ARGV[1]
local old = redis.call('HGET', grant, 'version')
if (old or '') ~= ARGV[4] then
  return 0
end
local version
if old then
  version = tonumber(old) + 1
else
  -- versions of a grant that was here before are older than this moment, whatever became of them
  local floor = tonumber(redis.call('HGET', KEYS[3], 'version_floor') or '0')
  version = math.max(floor + 1, micros())
end
version = math.max(version, tonumber(ARGV[5]))
tell(KEYS[4], KEYS[5], ARGV[3], ARGV[2])
redis.call('DEL', grant)
redis.call('HSET', grant, 'version', digits(version))
for i = 6, #ARGV, 2 do
  redis.call('HSET', grant, ARGV[i], ARGV[i + 1])
end
redis.call('ZADD', KEYS[2], 0, tenant)
return version
