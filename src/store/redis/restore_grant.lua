-- Writes a grant as it was before it was lost.
-- KEYS: grant, tenants, revision, changes
-- ARGV: tenant, mark, channel, version, then fields and their values
-- Answers whether it was written: not over one of this version or a later, which somebody may have
-- changed since it was written again.

local grant = KEYS[1]
local there = tonumber(redis.call('HGET', grant, 'version') or '0')
if there >= tonumber(ARGV[4]) then
  return 0
end
tell(KEYS[3], KEYS[4], ARGV[3], ARGV[2])
redis.call('DEL', grant)
redis.call('HSET', grant, 'version', ARGV[4])
for i = 5, #ARGV, 2 do
  redis.call('HSET', grant, ARGV[i], ARGV[i + 1])
end
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1
