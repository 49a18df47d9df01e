-- Takes an authorization, which nobody gets again.
-- KEYS: authorizations, their order, lateness and tenants
-- ARGV: state
-- Answers its record, or nothing.

local state = ARGV[1]
local record = redis.call('HGET', KEYS[1], state)
if not record then
  return false
end
local number = redis.call('ZSCORE', KEYS[2], state)
local tenant = string.match(record, '^(%Z+)%z')
redis.call('ZREM', KEYS[4], tenant .. '\0' .. string.format('%020.0f', number) .. state)
redis.call('HDEL', KEYS[1], state)
redis.call('ZREM', KEYS[2], state)
redis.call('ZREM', KEYS[3], state)
return record
