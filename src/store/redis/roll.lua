-- The roll of all instances: who is there, and which part of every limit each may use by itself
-- should it lose this server.
--
-- A part is an interval of [0, WHOLE); those of two instances never overlap, so their slots never
-- add up to more than there are. An instance may believe in the last part that it was given and in
-- the one before, until it says which it uses: both are its own until then. One that is not heard
-- of leaves its part unused for the others, for as long as it may go on by itself, and a moment
-- after it came back. Only what an instance repeats of this server's clock shows that it hears it.
-- One that may have sent calls by itself of which it did not tell is listed as such, also for a
-- while after its end, so that those calls are kept in the count of the day.
--
-- KEYS: the roll, its epoch. Moments and spans are in microseconds.

local roll, epoch_key = KEYS[1], KEYS[2]
local me, name, details = ARGV[1], ARGV[2], ARGV[3]
local echo, from, to = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local takes_part, by_itself, leaving = ARGV[7] == '1', tonumber(ARGV[8]), ARGV[9] == '1'
local silent_after, back_hold, dead_after =
  tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local alone_after = tonumber(ARGV[13])
local epoch, remembered = ARGV[14], tonumber(ARGV[15])
local ended = {}
for i = 16 + 2 * remembered, #ARGV do ended[ARGV[i]] = true end
local KEPT, WHOLE, NEW_FOR = 172800, 4294967296, 1000000
-- what it used by itself is told within seconds after it came back, or it is kept
local TELLS_WITHIN, GONE_KEPT = 30000000, 600000000

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

-- seen, back, after how long without word it is dead, part in use, part offered, since when it is
-- gone, for how long it may have been by itself if that is known, name, details
local function read(text)
  local e, words = {}, {}
  for word in string.gmatch(text, '[^\t]+') do words[#words + 1] = word end
  e.seen, e.back, e.dead_after = tonumber(words[1]), tonumber(words[2]), tonumber(words[3])
  e.parts = {{tonumber(words[4]), tonumber(words[5])}, {tonumber(words[6]), tonumber(words[7])}}
  e.gone, e.untold = tonumber(words[8]), tonumber(words[9])
  e.name, e.details = words[10], words[11]
  return e
end

local function write(id, e)
  local one, other = e.parts[1], e.parts[2]
  local numbers = string.format(string.rep('%.0f\t', 8) .. '%.0f', e.seen, e.back, e.dead_after,
    one[1], one[2], other[1], other[2], e.gone, e.untold)
  redis.call('HSET', roll, id, numbers .. '\t' .. e.name .. '\t' .. e.details)
end

-- A moment that is to come is of a clock that was ahead, and says nothing.
local function heard(e)
  if e.seen > now then e.seen = now - silent_after - 1 end
  e.back, e.gone = math.min(e.back, now), math.min(e.gone, now)
  return e
end

local all, ids = {}, {}
local stored = redis.call('HGETALL', roll)
for i = 1, #stored, 2 do all[stored[i]] = heard(read(stored[i + 1])) end

local known = redis.call('GET', epoch_key)
local forgot = not known
if forgot then
  known = epoch ~= '' and epoch or string.format('%.0f', now)
  redis.call('SET', epoch_key, known)
end
if epoch ~= '' and (forgot or epoch ~= known) then
  -- emptied since the asker read it: those that it remembers may be out there with their parts.
  -- It says so once, since it has this answer's epoch then; who is dead ages anew from now.
  for i = 0, remembered - 1 do
    local id, text = ARGV[16 + 2 * i], ARGV[17 + 2 * i]
    if id ~= me and not all[id] then
      all[id] = read(text)
      all[id].seen = now - silent_after - 1
      write(id, all[id])
    end
  end
end
redis.call('EXPIRE', epoch_key, KEPT)

local function is_silent(e) return now - e.seen > silent_after end

-- For how long it may have been by itself without having told of it.
local function untold(e)
  local has_part = e.parts[1][1] < e.parts[1][2] or e.parts[2][1] < e.parts[2][2]
  if not has_part then return 0 end
  if e.untold >= 0 then return e.untold end
  local tells = e.back < 0 or now - e.back < TELLS_WITHIN
  return (tells or now - e.seen > alone_after) and e.dead_after or 0
end

-- Its end; what it did not tell of is to be kept.
local function leave_roll(id, e)
  e.untold = untold(e)
  if e.untold > 0 then
    e.gone = now
    write(id, e)
  else
    redis.call('HDEL', roll, id)
  end
end

local mine = all[me] or {seen = now, back = 0, parts = {{0, 0}, {0, 0}}}
mine.gone, mine.untold = 0, -1
-- 1: it may go on by itself until it has this answer; 2: it did, and has stopped
if by_itself == 1 then
  mine.back = -1
elseif by_itself == 2 or mine.back < 0 then
  mine.back = now
end
if echo > 0 and echo <= now then mine.seen = math.max(mine.seen, echo) end
mine.name, mine.details, mine.dead_after = name, details, dead_after
mine.parts[1] = {from, to}

local gone = {}
for id, e in pairs(all) do
  if e.gone > 0 then
    if now - e.gone > GONE_KEPT then redis.call('HDEL', roll, id) else gone[id] = e end
    all[id] = nil
  elseif id ~= me and is_silent(e) and (e.name == name or ended[id]) then
    -- another process has its address, or has seen its end: its last calls were a moment ago
    if e.untold < 0 and e.back >= 0 and now - e.back >= TELLS_WITHIN then
      e.untold = math.max(0, now - e.seen - alone_after)
    end
    e.seen = math.min(e.seen, now - e.dead_after + back_hold)
    write(id, e)
  end
  if e.gone == 0 and id ~= me and now - e.seen > e.dead_after then
    leave_roll(id, e)
    gone[id] = e.gone > 0 and e or nil
    all[id] = nil
  end
end
if leaving then
  -- it has told of what it used, unless it does not say that it hears this
  if mine.back < 0 then leave_roll(me, mine) else redis.call('HDEL', roll, me) end
  return {{now, known, 0, 0}, {}}
end
all[me] = mine

for id, _ in pairs(all) do ids[#ids + 1] = id end
table.sort(ids)
local place = 0
for i, id in ipairs(ids) do if id == me then place = i - 1 end end
local a, b = math.floor(place * WHOLE / #ids), math.floor((place + 1) * WHOLE / #ids)
-- in a new history others may come that know of more
local age = now - (tonumber(known) or 0)
if not takes_part or (age >= 0 and age < NEW_FOR) then b = a end
for _, id in ipairs(ids) do
  if id ~= me then
    for _, part in ipairs(all[id].parts) do
      local x, y = part[1], part[2]
      if x < y and x < b and y > a then
        -- the larger rest
        if x - a > b - y then b = math.max(a, x) else a = math.min(b, y) end
      end
    end
  end
end
if a >= b then a, b = 0, 0 end
mine.parts[2] = {a, b}
write(me, mine)
redis.call('EXPIRE', roll, KEPT)

local listed = {}
local function list(id, e, away)
  local one, other = e.parts[1], e.parts[2]
  listed[#listed + 1] = {id, e.name, e.details, e.seen, away, e.dead_after, one[1], one[2],
    other[1], other[2], untold(e)}
end
for _, id in ipairs(ids) do
  local e = all[id]
  local away = 0
  if is_silent(e) or e.back < 0 then
    away = -1
  elseif now - e.back < back_hold then
    away = e.back + back_hold - now
  end
  list(id, e, away)
end
for id, e in pairs(gone) do list(id, e, -2) end
return {{now, known, a, b}, listed}
