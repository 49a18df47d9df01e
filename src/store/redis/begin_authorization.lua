-- Remembers an authorization, and forgets those that are late or too many.
-- KEYS: authorizations, their order, lateness and tenants
-- ARGV: state (43 characters), tenant, record, moment at which it is late, now,
--       how many are kept, how many of a tenant, seconds until all are forgotten

local records, order, late, tenants = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local state, tenant = ARGV[1], ARGV[2]

-- A record begins with its tenant's name and a NUL.
local function forget(gone)
  local record = redis.call('HGET', records, gone)
  local number = redis.call('ZSCORE', order, gone)
  if record and number then
    local owner = string.match(record, '^(%Z+)%z')
    redis.call('ZREM', tenants, owner .. '\0' .. string.format('%020.0f', number) .. gone)
  end
  redis.call('HDEL', records, gone)
  redis.call('ZREM', order, gone)
  redis.call('ZREM', late, gone)
end

local newest = redis.call('ZRANGE', order, -1, -1, 'WITHSCORES')
local number = (tonumber(newest[2]) or 0) + 1
forget(state)
redis.call('HSET', records, state, ARGV[3])
redis.call('ZADD', order, number, state)
redis.call('ZADD', late, ARGV[4], state)
redis.call('ZADD', tenants, 0, tenant .. '\0' .. string.format('%020.0f', number) .. state)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', late, '-inf', ARGV[5], 'LIMIT', 0, 100)) do
  if gone ~= state then
    forget(gone)
  end
end
local all = redis.call('ZCARD', order) - tonumber(ARGV[6])
if all > 0 then
  for _, gone in ipairs(redis.call('ZRANGE', order, 0, all - 1)) do
    forget(gone)
  end
end
local of_tenant = redis.call('ZRANGEBYLEX', tenants, '[' .. tenant .. '\0', '(' .. tenant .. '\1')
for i = 1, #of_tenant - tonumber(ARGV[7]) do
  forget(string.sub(of_tenant[i], -43))
end
for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[8])
end
return 1
