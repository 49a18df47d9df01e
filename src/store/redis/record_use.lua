-- Records when tenants or clients were last used; the later moment stays, those that are gone are
-- passed over.
-- KEYS: their hashes
-- ARGV: a moment for each

for i, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then
    local used = redis.call('HGET', key, 'used')
    if not used or tonumber(used) < tonumber(ARGV[i]) then
      redis.call('HSET', key, 'used', ARGV[i])
    end
  end
end
return 1
