-- Changes a grant whose tokens are still of a version.
-- KEYS: grant, revision, changes
-- ARGV: version, mark or '' when nobody need know, channel, number of fields to drop, these fields,
--       then fields and their values
-- Answers 1, or 0 when the version is another.

local grant = KEYS[1]
if redis.call('HGET', grant, 'version') ~= ARGV[1] then
  return 0
end
if ARGV[2] ~= '' then
  tell(KEYS[2], KEYS[3], ARGV[3], ARGV[2])
end
local dropped = tonumber(ARGV[4])
for i = 5 + dropped, #ARGV, 2 do
  redis.call('HSET', grant, ARGV[i], ARGV[i + 1])
end
for i = 5, 4 + dropped do
  redis.call('HDEL', grant, ARGV[i])
end
return 1
