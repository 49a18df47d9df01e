-- What came after a revision.
-- KEYS: revision, changes
-- ARGV: the revision, or ''
-- Answers the newest revision, whether all that came after is known, and what that is; and which
-- run of the server this is.

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
local stored = redis.call('HMGET', KEYS[1], 'now', 'floor')
local now, floor, since = stored[1] or '0', tonumber(stored[2] or '0'), tonumber(ARGV[1])
if not since or since < floor or since > tonumber(now) then
  return { now, 0, {}, run }
end
return { now, 1, redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf'), run }
