-- The roll of all instances: who is there, and which part of every limit each may use by itself
-- should it lose this server.
--
-- A part is an interval of [0, WHOLE); those of two instances never overlap, so their slots never
-- add up to more than there are. An instance may believe in the last part that it was given and in
-- the one before, until it says which it uses: both are its own until then. One that is not heard
-- of leaves its part unused for the others, for as long as it may go on by itself, and a moment
-- after it came back. Only what an instance repeats of this server's clock shows that it hears it.
--
-- KEYS: the roll, its epoch. Moments and spans are in microseconds.

local roll, epoch_key = KEYS[1], KEYS[2]
local me, name, details = ARGV[1], ARGV[2], ARGV[3]
local echo, from, to = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local takes_part, by_itself, leaving = ARGV[7] == '1', tonumber(ARGV[8]), ARGV[9] == '1'
local silent_after, back_hold, dead_after =
  tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local epoch, remembered = ARGV[13], tonumber(ARGV[14])
local ended = {}
for i = 15 + 2 * remembered, #ARGV do ended[ARGV[i]] = true end
local KEPT, WHOLE, NEW_FOR = 172800, 4294967296, 1000000

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

-- seen, back, after how long without word it is dead, part in use, part offered, name, details
local function read(text)
  local e, words = {}, {}
  for word in string.gmatch(text, '[^\t]+') do words[#words + 1] = word end
  e.seen, e.back, e.dead_after = tonumber(words[1]), tonumber(words[2]), tonumber(words[3])
  e.parts = {{tonumber(words[4]), tonumber(words[5])}, {tonumber(words[6]), tonumber(words[7])}}
  e.name, e.details = words[8], words[9]
  return e
end

local function write(id, e)
  local one, other = e.parts[1], e.parts[2]
  local numbers = string.format('%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f', e.seen, e.back,
    e.dead_after, one[1], one[2], other[1], other[2])
  redis.call('HSET', roll, id, numbers .. '\t' .. e.name .. '\t' .. e.details)
end

-- A moment that is to come is of a clock that was ahead, and says nothing.
local function heard(e)
  if e.seen > now then e.seen = now - silent_after - 1 end
  e.back = math.min(e.back, now)
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
    local id, text = ARGV[15 + 2 * i], ARGV[16 + 2 * i]
    if id ~= me and not all[id] then
      all[id] = read(text)
      all[id].seen = now - silent_after - 1
      write(id, all[id])
    end
  end
end
redis.call('EXPIRE', epoch_key, KEPT)

local function is_silent(e) return now - e.seen > silent_after end

local mine = all[me] or {seen = now, back = 0, parts = {{0, 0}, {0, 0}}}
-- 1: it may go on by itself until it has this answer; 2: it did, and has stopped
if by_itself == 1 then
  mine.back = -1
elseif by_itself == 2 or mine.back < 0 then
  mine.back = now
end
if echo > 0 and echo <= now then mine.seen = math.max(mine.seen, echo) end
mine.name, mine.details, mine.dead_after = name, details, dead_after
mine.parts[1] = {from, to}

for id, e in pairs(all) do
  if id ~= me and is_silent(e) and (e.name == name or ended[id]) then
    -- another process has its address, or has seen its end: its last calls were a moment ago
    e.seen = math.min(e.seen, now - e.dead_after + back_hold)
    write(id, e)
  end
  if now - e.seen > e.dead_after then
    redis.call('HDEL', roll, id)
    all[id] = nil
  end
end
if leaving then
  redis.call('HDEL', roll, me)
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
for _, id in ipairs(ids) do
  local e = all[id]
  local away = 0
  if is_silent(e) or e.back < 0 then
    away = -1
  elseif now - e.back < back_hold then
    away = e.back + back_hold - now
  end
  local one, other = e.parts[1], e.parts[2]
  listed[#listed + 1] =
    {id, e.name, e.details, e.seen, away, e.dead_after, one[1], one[2], other[1], other[2]}
end
return {{now, known, a, b}, listed}
