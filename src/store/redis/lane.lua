-- The token lane of an API key: who has it and until when, and when the rest after an answer ends.
-- A lease that ran out may have a holder who could not reach the server: its token request may just
-- have been answered. Who asks first after that only begins a grace of half a hold, in which the
-- holder may keep the lane still. Until another has taken it, a lease that was not left is good.
-- KEYS: lane
-- ARGV: 'take', hold, longest rest, longest retry, learning pause; or 'keep', fence, hold; or
--       'leave', fence, rest; all in milliseconds. Moments are of the server's clock, in microseconds.
-- 'take' answers 1 and the fence, or 0 and milliseconds; the others whether the fence is current.

local lane, verb = KEYS[1], ARGV[1]
local HOUR = 3600000

local function digits(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- 'until' is 0 once the lane was left; 'graced' is 1 from the begin of a grace on.
local function set(until_at, rest_at, fence, graced)
  redis.call('HSET', lane, 'until', digits(until_at), 'rest', digits(rest_at))
  redis.call('HSET', lane, 'fence', digits(fence), 'graced', graced)
  redis.call('PEXPIRE', lane, digits(HOUR + (math.max(until_at, rest_at, now) - now) / 1000))
end

local stored = redis.call('HMGET', lane, 'until', 'rest', 'fence', 'graced')
local held_until, rest_until, fence = tonumber(stored[1]), tonumber(stored[2]), tonumber(stored[3])

if verb == 'take' then
  if not fence then
    -- Nobody knows who has had it: the server may have come back empty. Numbers that begin at the
    -- time are above all that were given before.
    local pause = tonumber(ARGV[5])
    set(0, now + pause * 1000, now, 0)
    return { 0, pause }
  end
  local hold, rest = tonumber(ARGV[2]) * 1000, tonumber(ARGV[3]) * 1000
  local retry = tonumber(ARGV[4])
  -- What ends later than it can was written by a clock that was ahead: it counts from now. A hold
  -- more is for clocks that creep, and for instances that were told of another rest.
  if held_until - now > 2 * hold or rest_until - now > rest + hold then
    held_until, rest_until = math.min(held_until, now + hold), math.min(rest_until, now + rest)
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
  set(now + hold, rest_until, fence + 1, 0)
  return { 1, fence + 1 }
end

if digits(fence or 0) ~= ARGV[2] then
  return 0
end
if verb == 'keep' then
  if held_until == 0 then
    return 0
  end
  set(now + tonumber(ARGV[3]) * 1000, rest_until, fence, 0)
else
  set(0, math.max(rest_until, now + tonumber(ARGV[3]) * 1000), fence, 0)
end
return 1
