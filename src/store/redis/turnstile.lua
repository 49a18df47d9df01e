-- One turn at the turnstile of an API key: who of all instances may send the next call, and when.
--
-- The rules are those of src/engine (pacer, queue, day) on this server's clock: a log of held
-- slots, a spacing floor, a gate that refusals close, the count of the day, its reserve and pace,
-- classes that share 8 : 3 : 1, tenants that share by start-time fair queueing (Goyal, Vin and
-- Cheng, 1996). A tenant that waits at several instances is one; they take turns within its share.
-- A slot is given just in time, to the asker alone: one that misses its turn has it after the
-- next, and one that misses that too is passed over.
--
-- Moments and spans are in microseconds. All keys carry the API key's hash tag. Tenants are written
-- as the instances give them; instances are texts without NUL.

local state, slots, days = KEYS[1], KEYS[2], KEYS[3]
local waits, weights, busy, absent = KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local lines = {KEYS[8], KEYS[9], KEYS[10]}
local finishes = {KEYS[11], KEYS[12], KEYS[13]}
local heard, base = KEYS[14], KEYS[15]

local SHARES = {8, 3, 1}
local DAY = 86400000000
local BURST, LOOK_AGAIN = 300000000, 60000000
local PROBE_EVERY, PROBE_NEAR_TURN, NEAR_TURN = 3600000000, 10000000, 120000000
local DAY_TURN_PAUSE = 2000000
local NARROW_AFTER, NARROW_STEP, WIDEN_STEP, WIDEN_MAX = 500, 5000, 10000, 1000000
local LATENESS_MAX, STEP_MAX, GRACE_MAX = 50000, 50000, 1000000
local DROPS_MAX = 200
local RENEW_EVERY = 3600000000

local place = 0
local function text()
  place = place + 1
  return ARGV[place]
end
local function number() return tonumber(text()) end

local channel, name, me = text(), text(), text()
local wanted_until, calls, window = number(), number(), number()
local unanswered, spacing_guard, forget_after, grace = number(), number(), number(), number()
local limit, day_reset, reserve, kept_back = number(), number(), number(), number()
local seen_ticket, seen_day, seen_used, seen_begun = number(), number(), number(), number()

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
-- a question that was long under way has nobody who waits for its answer
local want = now <= wanted_until

-- what is known of the key
local fields = {
  'server', 'ticket', 'spaced', 'closed', 'widened', 'clean', 'refused', 'day', 'used', 'spent_at',
  'probe_at', 'probe', 'level', 'level_at', 'credit1', 'credit2', 'credit3', 'virtual1', 'virtual2',
  'virtual3', 'turn', 'turn_at', 'renewed', 'begun', 'before', 'at',
}
-- The others are numbers. Names of instances and servers may read as one, and are none.
local is_name = {server = true, turn = true}
local s = {}
for i, value in ipairs(redis.call('HMGET', state, unpack(fields))) do
  local field = fields[i]
  if value then s[field] = is_name[field] and value or tonumber(value) end
end
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local call_all = false

s.ticket = math.max(s.ticket or 0, seen_ticket)
local step = (s.at or now) - now
if step > STEP_MAX then
  -- this clock was set back, or is another's that is behind: what is to come stays as far away
  for _, field in ipairs({'closed', 'spaced', 'spent_at', 'probe_at', 'level_at', 'renewed'}) do
    s[field] = s[field] and s[field] - step
  end
  redis.call('DEL', slots)
end
s.at = now
if s.server ~= server or step > STEP_MAX then
  -- empty, or another process than the one that wrote this: what left last is not known here
  s.server, s.closed = server, math.max(s.closed or 0, now + window + forget_after)
  s.spaced, s.turn, s.begun, s.before = math.max(s.spaced or 0, now), nil, now, nil
  -- tickets of the history that ended here may be out there: none is given twice
  s.ticket = math.max(s.ticket, now)
  call_all = true
end
s.widened, s.clean, s.refused = s.widened or 0, s.clean or 0, s.refused or 0
s.spaced, s.closed = s.spaced or now, s.closed or now
for class = 1, 3 do
  s['credit' .. class] = s['credit' .. class] or 0
  s['virtual' .. class] = s['virtual' .. class] or 0
end

redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)

-- The day does not go back, but for a clock that was far ahead: what that counted is added to it.
local today = math.floor((now / 1000000 - day_reset) / 86400)
local tomorrow = today + 1
local function is_ahead(day) return day > tomorrow end
local function day_of(day) return is_ahead(day) and s.day or day end
local function count(day, more) return count_in(days, day, more) end

local newest = is_ahead(seen_day) and today or math.max(today, seen_day)
if not s.day or is_ahead(s.day) then
  s.day, s.before = newest, nil
  tidy_days(days, s.day, tomorrow)
elseif newest > s.day then
  s.day, s.before = newest, 0
  local pause = DAY_TURN_PAUSE
  if s.probe_at then
    -- the same for all instances, and spread over the keys
    pause = math.max(pause, 1000000 + s.spent_at % 29000000)
  end
  s.closed, s.probe_at, s.spent_at = math.max(s.closed, now + pause), nil, nil
  -- what is in flight may be counted in either day
  count(s.day, redis.call('ZCARD', slots))
  tidy_days(days, s.day, tomorrow)
end
seen_day = day_of(seen_day)
s.used = tonumber(redis.call('HGET', days, s.day)) or 0
-- Of them, as far as is known, so many were counted before `begun`. Each remembers a part of that
-- time, and what was counted since comes on top.
s.before = s.before or s.used
if seen_day == s.day then
  local more = seen_used - s.used
  if seen_begun < s.begun then
    more = seen_used - s.before
    s.before = math.max(s.before, seen_used)
  end
  if more > 0 then s.used = count(s.day, more) end
end
local day_ends = (s.day + 1) * DAY + day_reset * 1000000

-- who waits where

local function who(class, tenant) return base .. 'who:' .. class .. ':' .. tenant end
local function waiting(class, tenant, at) return class .. '\0' .. tenant .. '\0' .. at end

-- To the end of a tenant's line. Lines of those that always wait somewhere are renewed by it.
local function line_up(list)
  redis.call('RPUSH', list, me)
  redis.call('EXPIRE', list, STATE_KEPT)
end

local function one_less(instance)
  if redis.call('HINCRBY', busy, instance, -1) <= 0 then
    redis.call('HDEL', busy, instance)
    redis.call('HDEL', absent, instance)
  end
end

-- A tenant waits nowhere any more; it comes back behind what it has had.
local function leave(class, tenant, finish)
  redis.call('ZREM', lines[class], tenant)
  redis.call('HDEL', weights, class .. '\0' .. tenant)
  if redis.call('EXISTS', lines[class]) == 0 then
    redis.call('DEL', finishes[class])
    s['virtual' .. class] = 0
  else
    set(finishes[class], tenant, finish)
  end
end

local function set_waiting(class, tenant, weight, count)
  local field, list = waiting(class, tenant, me), who(class, tenant)
  local waited = redis.call('HEXISTS', waits, field) == 1
  if count > 0 then
    set(waits, field, count)
    set(weights, class .. '\0' .. tenant, weight)
    if not waited and redis.call('HINCRBY', busy, me, 1) == 1 then
      redis.call('EXPIRE', busy, STATE_KEPT)
    end
    if waited and redis.call('LPOS', list, me) then
      redis.call('EXPIRE', list, STATE_KEPT)
    else
      line_up(list)
    end
    if not redis.call('ZSCORE', lines[class], tenant) then
      local finish = tonumber(redis.call('HGET', finishes[class], tenant)) or 0
      add(lines[class], math.max(s['virtual' .. class], finish), tenant)
    end
  elseif waited then
    redis.call('HDEL', waits, field)
    redis.call('LREM', list, 1, me)
    one_less(me)
    if redis.call('EXISTS', list) == 0 then
      leave(class, tenant, tonumber(redis.call('ZSCORE', lines[class], tenant)) or 0)
    end
  end
end

local told_last, grace_then, heard_at = heard_of(heard, me)
-- How late it may come: as its own way to here has it, if that is longer than the asker's.
local function grace_of(instance)
  local _, own = heard_of(heard, instance)
  return math.max(own, grace)
end

-- those that missed a turn, and those that missed two since they were last heard
local late, missing = {}, {}
local misses = redis.call('HGETALL', absent)
for i = 1, #misses, 2 do
  if misses[i + 1] == '1' then late[misses[i]] = true else missing[misses[i]] = true end
end
-- The tenant and the instance whose turn it is in a class; those that are missing lose their places
-- on the way. One may have thousands: what is left is for the next question, lest all others wait.
local drops, is_unfinished = 0, false
local function first_of(class)
  while true do
    local first = redis.call('ZRANGE', lines[class], 0, 0, 'WITHSCORES')
    if #first == 0 then return nil end
    local tenant, list = first[1], who(class, first[1])
    local instance = redis.call('LINDEX', list, 0)
    if instance and not missing[instance] then
      return {class = class, tenant = tenant, instance = instance, start = tonumber(first[2])}
    end
    if drops >= DROPS_MAX then
      is_unfinished = true
      return nil
    end
    drops = drops + 1
    if instance then
      redis.call('LPOP', list)
      redis.call('HDEL', waits, waiting(class, tenant, instance))
      one_less(instance)
    end
    if redis.call('EXISTS', list) == 0 then leave(class, tenant, tonumber(first[2])) end
  end
end

-- What calls that were granted before have become. A question that was not answered may have been
-- heard, once or many times: what it says is told again with the number of the first that told it,
-- and has its effect once.
local function report()
  local first, kind = number(), text()
  local ticket, at, span = number(), number(), number()
  if kind == 'returned' or kind == 'spent' or kind == 'used' then at = day_of(at) end
  if kind == 'held' then
    redis.call('ZADD', slots, 'XX', at + span + s.widened, ticket)
  elseif kind == 'returned' then
    if redis.call('ZREM', slots, ticket) == 1 then
      local left = count(at, -1)
      if at == s.day then s.used = math.max(left, 0) end
      -- nobody has been asked
      if s.probe_at and ticket == s.probe then s.probe_at = now end
    end
  elseif first <= told_last then
    return
  elseif kind == 'clean' then
    s.clean = s.clean + 1
    if s.clean >= NARROW_AFTER then
      s.clean, s.widened = 0, math.max(0, s.widened - NARROW_STEP)
    end
    if s.spent_at and at > s.spent_at then s.spent_at, s.probe_at = nil, nil end
  elseif kind == 'throttled' then
    s.widened = math.min(WIDEN_MAX, math.floor(s.widened * 1.5) + WIDEN_STEP)
    s.clean, s.refused = 0, s.refused + 1
    s.closed = math.max(s.closed, now + window + span + s.widened)
  elseif kind == 'closed' then
    s.closed = math.max(s.closed, now + span)
  elseif kind == 'spent' and at == s.day then
    local turned = day_ends - DAY
    s.spent_at = now
    s.probe_at = now + (now - turned < NEAR_TURN and PROBE_NEAR_TURN or PROBE_EVERY)
    call_all = true
  elseif kind == 'used' then
    local total = count(at, ticket)
    if at == s.day then s.used = total end
  end
end
local question, reports = number(), number()
for _ = 1, reports do report() end
if reports > 0 then told_last = math.max(told_last, question) end
local own = math.min(grace, GRACE_MAX)
if reports > 0 or math.abs(own - grace_then) > own / 4 or now - heard_at > HEARD_KEPT / 2 then
  write_heard(heard, me, told_last, own, now)
end

local anew, known, forgotten = number() == 1, number(), false
if missing[me] or late[me] then
  -- passed over: it says anew where it waits
  forgotten = missing[me] and not anew
  missing[me], late[me] = nil, nil
  redis.call('HDEL', absent, me)
end
for _ = 1, number() do
  local class, tenant = number(), text()
  set_waiting(class, tenant, number(), number())
end
-- what it was passed over for may have been dropped in full, and nothing be left that says so
if (tonumber(redis.call('HGET', busy, me)) or 0) < known then forgotten = true end

-- the day's share of each class; see src/engine/day.rs
local remaining = math.max(0, limit - s.used - kept_back)
local left = math.max(1, math.min(DAY, day_ends - now))
local stock = math.min(math.floor(limit / 1000), calls)
local kept_whole = math.min(limit, limit * reserve / 100 + stock)
local open = math.max(0, remaining - kept_whole * left / DAY)
local level_max = math.max(open * BURST / math.max(left, BURST), calls)
s.level = math.min(level_max, (s.level or level_max) + open * (now - (s.level_at or now)) / left)
s.level_at = now

local function paced(class) return class == 3 or (class == 2 and open == 0) end
local function opens_at(class)
  if not paced(class) or s.level >= 1 then return 0 end
  local wait
  if open == 0 then
    local whole = math.max(kept_whole, 1)
    wait = math.max(1, left - remaining * DAY / whole + (1 - s.level) * DAY / whole)
  else
    wait = (1 - s.level) * left / open
  end
  return now + math.min(wait, left, LOOK_AGAIN) + 1000
end

local function is_spent()
  return s.used >= limit or (s.probe_at ~= nil and now < s.probe_at)
end

-- Whose turn it is at a moment, and when the first class opens if none is open then.
local function in_turn(at)
  local firsts, opens = {}, nil
  for class = 1, 3 do
    local first = first_of(class)
    if first then
      local from = opens_at(class)
      opens = math.min(opens or from, from)
      if from <= at then firsts[class] = first end
    end
  end
  if is_unfinished then return nil, nil end
  for _ = 1, 2 do
    for class = 1, 3 do
      if firsts[class] and s['credit' .. class] > 0 then return firsts[class], opens end
    end
    if next(firsts) == nil then return nil, opens end
    for class = 1, 3 do s['credit' .. class] = SHARES[class] end
  end
end

local function ready_at()
  local held = redis.call('ZCARD', slots)
  local free = 0
  if calls < 1 then return nil end
  if held >= calls then
    free = tonumber(redis.call('ZRANGE', slots, held - calls, held - calls, 'WITHSCORES')[2])
  end
  return math.max(free, s.spaced, s.closed)
end

local function grant(turn)
  local class, tenant, list = turn.class, turn.tenant, who(turn.class, turn.tenant)
  s.ticket, s.used = s.ticket + 1, count(s.day, 1)
  add(slots, now + window + unanswered + s.widened, s.ticket)
  local spacing = math.floor((window + spacing_guard + s.widened) / calls)
  local from = now
  if now - s.spaced < spacing then
    from = math.max(s.spaced, now - math.min(LATENESS_MAX, spacing / 2))
  end
  s.spaced = from + spacing
  s['credit' .. class] = s['credit' .. class] - 1
  if paced(class) then s.level = math.max(0, s.level - 1) end
  if s.probe_at then s.probe_at, s.probe = now + PROBE_EVERY, s.ticket end
  -- the tenant has had its turn, and within it the instance
  local weight = tonumber(redis.call('HGET', weights, class .. '\0' .. tenant)) or 1
  local finish = turn.start + 1 / math.max(1, weight)
  s['virtual' .. class] = turn.start
  redis.call('LPOP', list)
  if redis.call('HINCRBY', waits, waiting(class, tenant, me), -1) > 0 then
    line_up(list)
  else
    redis.call('HDEL', waits, waiting(class, tenant, me))
    one_less(me)
  end
  if redis.call('EXISTS', list) == 1 then
    redis.call('ZADD', lines[class], finish, tenant)
  else
    leave(class, tenant, finish)
  end
end

-- It was called and did not come.
local function miss(turn)
  local instance, list = turn.instance, who(turn.class, turn.tenant)
  if late[instance] or redis.call('LLEN', list) == 1 then
    missing[instance] = true
    set(absent, instance, 2)
  else
    late[instance] = true
    set(absent, instance, 1)
    redis.call('LPOP', list)
    redis.call('LINSERT', list, 'AFTER', redis.call('LINDEX', list, 0), instance)
  end
end

local granted = nil
while want and not granted and not is_spent() do
  local ready = ready_at()
  local turn = ready and ready <= now and in_turn(now) or nil
  if not turn then break end
  if turn.instance == me then
    grant(turn)
    granted = turn
  elseif s.turn == turn.instance and now >= s.turn_at + grace_of(turn.instance) then
    miss(turn)
  else
    break
  end
end

-- whose turn is next, and when
local next_turn, due = nil, nil
if not is_spent() then
  local ready = ready_at()
  if ready then
    local at = math.max(ready, now)
    local opens
    next_turn, opens = in_turn(at)
    if not next_turn and opens then
      at = math.max(at, opens)
      next_turn = in_turn(at)
    end
    due = next_turn and at or nil
  end
elseif s.probe_at and s.used < limit then
  due = s.probe_at
end
local told = next_turn and next_turn.instance or nil
if call_all then
  redis.call('PUBLISH', channel, name .. ' 0 *')
elseif told then
  local moved = due - (s.turn_at or 0)
  if granted or s.turn ~= told or moved < -1000 or (moved > 1000 and due > now) then
    s.turn_at = due
    if told ~= me or redis.call('HLEN', busy) > 1 then
      local word = string.format('%s %.0f %s', name, math.max(0, due - now), told)
      redis.call('PUBLISH', channel, word)
    end
  end
end
s.turn = not call_all and told or nil
if s.turn and told ~= me then
  -- the asker adds its own grace to what it is told
  due = math.max(due, s.turn_at + grace_of(told) - grace)
end

-- each key has its time to live from when it is made, and all get it anew now and then
local renews = now - (s.renewed or 0) > RENEW_EVERY
if renews then
  s.renewed = now
  forget_silent(heard, now)
end
local write, gone = {}, {}
for _, field in ipairs(fields) do
  if s[field] ~= nil then
    write[#write + 1] = field
    write[#write + 1] = type(s[field]) == 'number' and string.format('%.17g', s[field]) or s[field]
  else
    gone[#gone + 1] = field
  end
end
redis.call('HSET', state, unpack(write))
if #gone > 0 then redis.call('HDEL', state, unpack(gone)) end
if renews then
  for _, key in ipairs({slots, waits, weights, busy, absent, heard, state}) do
    redis.call('EXPIRE', key, STATE_KEPT)
  end
  for class = 1, 3 do
    redis.call('EXPIRE', lines[class], STATE_KEPT)
    redis.call('EXPIRE', finishes[class], STATE_KEPT)
  end
  redis.call('EXPIRE', days, COUNTS_KEPT)
end

return {
  {now, s.begun, s.ticket, granted and granted.class or 0, granted and granted.tenant or ''},
  {
    s.day,
    s.used,
    is_spent() and 1 or 0,
    s.probe_at and math.max(0, s.probe_at - now) or -1,
    math.max(0, s.closed - now),
    s.widened,
    s.refused,
  },
  {
    -- who is told that it is its turn at once asks again
    (told == me or is_unfinished) and 1 or (told and 2 or 0),
    is_unfinished and 0 or (due and math.max(0, due - now) or -1),
    forgotten and 1 or 0,
    redis.call('HLEN', busy),
  },
}
