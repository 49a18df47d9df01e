-- Stands before the script of the turnstile: what is kept, and for how long. Spans are in seconds,
-- but those of the clock in microseconds.

local STATE_KEPT, COUNTS_KEPT, DAYS_KEPT = 172800, 432000, 4
local HEARD_KEPT = 3600000000

-- Sets a field of a hash that may be new.
local function set(hash, field, value)
  if redis.call('HSET', hash, field, value) == 1 and redis.call('HLEN', hash) == 1 then
    redis.call('EXPIRE', hash, STATE_KEPT)
  end
end

local function add(zset, score, member)
  if redis.call('ZADD', zset, score, member) == 1 and redis.call('ZCARD', zset) == 1 then
    redis.call('EXPIRE', zset, STATE_KEPT)
  end
end

-- Of an instance: the number of the last question that told anything, how late it may come when it
-- is called, and when that was written down.
local function heard_of(heard, instance)
  local written = redis.call('HGET', heard, instance) or ''
  local last, grace, at = string.match(written, '^(%d+) (%d+) (%d+)$')
  return tonumber(last or 0), tonumber(grace or 0), tonumber(at or 0)
end

local function write_heard(heard, instance, last, grace, at)
  set(heard, instance, string.format('%.0f %.0f %.0f', last, grace, at))
end

-- Those that have been silent for long are dead, or have nothing under way that was told before.
local function forget_silent(heard, now)
  for _, instance in ipairs(redis.call('HKEYS', heard)) do
    local _, _, at = heard_of(heard, instance)
    if now - at > HEARD_KEPT then redis.call('HDEL', heard, instance) end
  end
end

-- Counts `more` calls in a day; how many that makes.
local function count_in(days, day, more)
  local total = redis.call('HINCRBY', days, day, more)
  if total == more then redis.call('EXPIRE', days, COUNTS_KEPT) end
  return total
end

-- `today` has begun. What lies later than `latest` was counted by a clock that was ahead, and is
-- added to it.
local function tidy_days(days, today, latest)
  local kept, all, ahead = {}, redis.call('HGETALL', days), 0
  for i = 1, #all, 2 do
    local day = tonumber(all[i])
    if day > latest then
      ahead = ahead + tonumber(all[i + 1])
      redis.call('HDEL', days, all[i])
    else
      kept[#kept + 1] = day
    end
  end
  if ahead > 0 then count_in(days, today, ahead) end
  table.sort(kept, function(a, b) return a > b end)
  for i = DAYS_KEPT + 1, #kept do redis.call('HDEL', days, kept[i]) end
end

