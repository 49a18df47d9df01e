-- What came after a revision.
-- KEYS: revision, changes
-- ARGV: the revision, or ''
-- Answers the newest revision; 'changed', 'forgotten' or 'lost'; and the things that were changed
-- since, or since the loss.

begin(KEYS[1])
local stored = redis.call('HMGET', KEYS[1], 'now', 'floor', 'begun', 'gaps')
local now, since = stored[1], tonumber(ARGV[1])
if not since then
  return { now, 'forgotten', {} }
end
-- up to here nothing is lost of what was known
local kept = math.min(since, tonumber(now))
for from, to in string.gmatch(stored[4] or '', '(%d+)-(%d+)') do
  if since > tonumber(from) and since < tonumber(to) then
    kept = math.min(kept, tonumber(from))
  end
end
local begun = tonumber(stored[3] or '0')
local is_lost = kept < since or since < begun
kept = math.max(kept, begun)
if kept < tonumber(stored[2]) then
  return { now, 'forgotten', {} }
end
local things = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. digits(kept), '+inf')
return { now, is_lost and 'lost' or 'changed', things }
