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
-- Up to here nothing is lost of what was known. A gap that somebody has not read past is a loss to
-- it also when it stands before the gap: the last that it wrote itself may be what is lost, and it
-- has not read that yet.
local kept, is_lost = math.min(since, tonumber(now)), since > tonumber(now)
for from, to in string.gmatch(stored[4] or '', '(%d+)-(%d+)') do
  if since < tonumber(to) then
    kept, is_lost = math.min(kept, tonumber(from)), true
  end
end
local begun = tonumber(stored[3] or '0')
is_lost = is_lost or since < begun
kept = math.max(kept, begun)
if kept < tonumber(stored[2]) then
  return { now, 'forgotten', {} }
end
local things = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. digits(kept), '+inf')
return { now, is_lost and 'lost' or 'changed', things }
