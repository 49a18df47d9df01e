-- When the history last told of a thing.
-- KEYS: revision, changes
-- ARGV: mark
-- Answers the revision, or nil; and up to which revision what was told may be forgotten, or 0.

local at = redis.call('ZSCORE', KEYS[2], ARGV[1])
local stored = redis.call('HMGET', KEYS[1], 'floor', 'begun')
local floor = tonumber(stored[1] or '0')
-- before it began there was nothing to forget
local forgotten = floor > tonumber(stored[2] or '0') and floor or 0
return { at and string.format('%.0f', tonumber(at)), string.format('%.0f', forgotten) }
