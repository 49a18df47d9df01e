-- Stands before every script that changes something of which other instances must learn. It is the
-- first write of its script: a server without memory refuses it, and then nothing has been changed.

local KEPT = 10000

local function micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function digits(number)
  return string.format('%.0f', number)
end

-- Makes sure of a history. One that is new, also because the server came back empty, begins at the
-- time: it is never taken for the one before. What was before `floor` is not known.
local function begin(revision)
  if redis.call('HEXISTS', revision, 'now') == 0 then
    local start = digits(micros())
    redis.call('HSET', revision, 'now', start, 'floor', start)
  end
end

-- Gives the change of `mark` the next revision.
local function tell(revision, changes, channel, mark)
  begin(revision)
  local now = digits(tonumber(redis.call('HGET', revision, 'now')) + 1)
  redis.call('HSET', revision, 'now', now)
  redis.call('ZADD', changes, now, mark)
  local over = redis.call('ZCARD', changes) - KEPT
  if over > 0 then
    local last = redis.call('ZRANGE', changes, over - 1, over - 1, 'WITHSCORES')
    redis.call('HSET', revision, 'floor', digits(tonumber(last[2])))
    redis.call('ZREMRANGEBYRANK', changes, 0, over - 1)
  end
  redis.call('PUBLISH', channel, now)
end
