-- Stands before every script that changes something of which other instances must learn. It is the
-- first write of its script: a server without memory refuses it, and then nothing has been changed.

local KEPT = 10000
-- More than a server forgets at a time, and how many of such losses are remembered.
local LEAP, GAPS = 100000, 32

local function micros()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function digits(number)
  return string.format('%.0f', number)
end

-- Makes sure of a history. One that is new, also because the server came back empty, begins at the
-- time: it is never taken for the one before. What was before `floor` is not known. A server that
-- was started again, or another one in its place, may have forgotten the newest changes: it goes on
-- after a gap, so that no revision in the gap is ever taken for one of its own.
local function begin(revision)
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
  local stored = redis.call('HMGET', revision, 'now', 'run', 'gaps', 'floor')
  if not stored[1] then
    local start = digits(micros())
    redis.call('HSET', revision, 'now', start, 'floor', start, 'begun', start, 'run', run)
  elseif stored[2] ~= run then
    local from = stored[1]
    local to = digits(math.max(tonumber(from) + LEAP, micros()))
    local gaps = (stored[3] or '') .. from .. '-' .. to .. ' '
    if select(2, string.gsub(gaps, ' ', '')) > GAPS then
      local oldest
      oldest, gaps = string.match(gaps, '^%d+-(%d+) (.*)$')
      local floor = math.max(tonumber(oldest), tonumber(stored[4]))
      redis.call('HSET', revision, 'floor', digits(floor))
    end
    redis.call('HSET', revision, 'now', to, 'run', run, 'gaps', gaps)
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
