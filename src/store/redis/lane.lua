-- The token lane of an API key: who has it and until when, and when the rest after an answer ends.
-- A lease that ran out may have a holder who could not reach the server: its token request may just
-- have been answered. Who asks first after that only begins a grace of half a hold, in which the
-- holder may keep the lane still. Until another has taken it, a lease that was not left is good.
-- A server that came back empty, or was started again and may have lost its last writes, does not
-- know who has the lane: nobody gets it for half a hold, in which a holder whose request is out has
-- it again by keeping it, and for as long as a rest can be. Leases are numbered by the time at least, so that one
-- that was forgotten has a higher number than those that are remembered, and a lower one than all
-- that are given later.
-- KEYS: lane
-- ARGV: 'take', hold, longest rest, longest retry; or 'keep', fence, hold, 1 to have a forgotten
--       lease again; or 'leave', fence, rest; all in milliseconds. Moments are of the server's
--       clock, in microseconds.
-- 'take' answers 1 and the fence, or 0 and milliseconds; the others whether the fence is current.

local lane, verb = KEYS[1], ARGV[1]
-- Longer than API keys that are used go without a refresh: one of which nothing is known waits.
local KEPT = 30 * 24 * 3600000

local function digits(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- 'until' is 0 once the lane was left; 'graced' is 1 from the begin of a grace on.
local function set(until_at, rest_at, fence, graced)
  redis.call('HSET', lane, 'until', digits(until_at), 'rest', digits(rest_at))
  redis.call('HSET', lane, 'fence', digits(fence), 'graced', graced)
  redis.call('PEXPIRE', lane, digits(KEPT + (math.max(until_at, rest_at, now) - now) / 1000))
end

local stored = redis.call('HMGET', lane, 'until', 'rest', 'fence', 'graced', 'run')
local held_until, rest_until = tonumber(stored[1] or '0'), tonumber(stored[2] or '0')
local fence = tonumber(stored[3] or '0')

if verb == 'take' then
  local hold, rest = tonumber(ARGV[2]) * 1000, tonumber(ARGV[3]) * 1000
  local retry, longest = tonumber(ARGV[4]), math.max(hold, rest)
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
  if stored[5] ~= run then
    rest_until = math.max(rest_until, now + math.max(hold / 2, rest))
    set(held_until, rest_until, fence, 0)
    redis.call('HSET', lane, 'run', run)
  end
  -- What ends later than it can was written by a clock that was ahead: it counts from now. A hold
  -- more is for clocks that creep, and for instances that were told of another rest.
  if held_until - now > 2 * hold or rest_until - now > longest + hold then
    held_until, rest_until = math.min(held_until, now + hold), math.min(rest_until, now + longest)
    set(held_until, rest_until, fence, 0)
  end
  if held_until > now then
    return { 0, math.min(retry, math.ceil((held_until - now) / 1000)) }
  end
  if held_until > 0 and stored[4] ~= '1' then
    set(now + hold / 2, rest_until, fence, 1)
    return { 0, math.min(retry, math.ceil(hold / 2000)) }
  end
  if rest_until > now then
    return { 0, math.ceil((rest_until - now) / 1000) }
  end
  fence = math.max(fence + 1, now)
  set(now + hold, rest_until, fence, 0)
  return { 1, fence }
end

local lease = tonumber(ARGV[2])
if verb == 'keep' then
  local hold = tonumber(ARGV[3]) * 1000
  if lease > fence and ARGV[4] == '1' then
    -- of several that were forgotten the last one counts, which may not have said so yet
    rest_until = math.max(rest_until, now + hold)
  elseif lease ~= fence or held_until == 0 then
    return 0
  end
  set(now + hold, rest_until, lease, 0)
  return 1
end
if lease ~= fence then
  return 0
end
set(0, math.max(rest_until, now + tonumber(ARGV[3]) * 1000), fence, 0)
return 1
