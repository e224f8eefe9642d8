-- Limits of one tenant, as router/limits/limit_periods.py and router/limits/limit_transitions.py compute them. A test draws steps
-- for both. Function names are the same there.
--
-- KEYS[1]: the sorted set of the tenant's leases. ARGV: operation, base of the tenant's names, now in milliseconds (""
-- for the time of the server), arguments of the operation. Names of other keys are composed here, since a script finds
-- out only from its data which it needs; all have the hash tag of KEYS[1].

if redis.replicate_commands then redis.replicate_commands() end -- Redis 6 needs it to write after it has read the time

local SECOND_MS, DAY_MS, MINUTE_SLOTS = 1000, 86400000, 60
local CONCURRENCY_WAIT_MS, KEPT_MS, HELD_MS, MAX_EXPIRED = 1000, 3600000, 32 * DAY_MS, 1000
local floor, max, min = math.floor, math.max, math.min

local leases, base, now = KEYS[1], ARGV[2], tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)
end

local function month_of(day)
  local shifted = day + 719468
  local era = floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  return (era * 400 + year) * 12 + floor((5 * of_year + 2) / 153) + 2
end

local function first_day(month)
  local year = floor((month - 2) / 12)
  local of_year = month - 2 - 12 * year
  local era = floor(year / 400)
  local of_era = year - 400 * era
  local days = of_era * 365 + floor(of_era / 4) - floor(of_era / 100)
  return era * 146097 + days + floor((153 * of_year + 2) / 5) - 719468
end

local function slots_at(name)
  if name == 'tokens_per_day' then
    return floor(now / DAY_MS), floor(now / DAY_MS)
  elseif name == 'money_per_month' then
    local month = month_of(floor(now / DAY_MS))
    return month, month
  end
  return floor(now / SECOND_MS) - MINUTE_SLOTS, floor(now / SECOND_MS)
end

local function end_ms(name, slot)
  if name == 'tokens_per_day' then return (slot + 1) * DAY_MS end
  if name == 'money_per_month' then return first_day(slot + 1) * DAY_MS end
  return (slot + MINUTE_SLOTS + 1) * SECOND_MS
end

local function amount_of(name, tokens, money)
  if name == 'requests_per_minute' then return 1 end
  if name == 'money_per_month' then return money end
  return tokens
end

local function counter_key(scope, name) return base .. 'counter:' .. scope .. ':' .. name end
local function active_key(scope) return base .. 'active:' .. scope end
local function held_key(id) return base .. 'held:' .. id end

-- A counter is a hash: the amount in each slot, `used`, their sum, `oldest`, before which there is no slot, and `newest`,
-- the newest slot that holds something, or 0. So a call costs the same however many slots there are. Each counter is
-- read once; its sum is written once, at the end.
local counters = {}

local function scan(counter)
  local used, newest, fields = 0, 0, redis.call('HGETALL', counter.key)
  for place = 1, #fields, 2 do
    local slot, amount = tonumber(fields[place]), tonumber(fields[place + 1])
    if slot and slot < counter.first then
      redis.call('HDEL', counter.key, fields[place])
    elseif slot then
      used = used + amount
      if amount > 0 then newest = max(newest, slot) end
    end
  end
  counter.used, counter.newest = used, newest
end

-- Removes the slots that count no more.
local function prune(counter)
  if counter.first - counter.oldest > MINUTE_SLOTS + 1 then
    scan(counter)
  else
    local slots = {}
    for slot = counter.oldest, counter.first - 1 do slots[#slots + 1] = slot end
    for _, amount in ipairs(redis.call('HMGET', counter.key, unpack(slots))) do
      counter.used = counter.used - (tonumber(amount or 0))
    end
    redis.call('HDEL', counter.key, unpack(slots))
    if counter.newest < counter.first then counter.newest = 0 end
  end
  counter.oldest, counter.changed = counter.first, true
end

local function load_counter(scope, name)
  local key = counter_key(scope, name)
  local counter = counters[key]
  if counter then return counter end
  local first, current = slots_at(name)
  counter = {key = key, name = name, first = first, current = current, used = 0, oldest = first, newest = 0}
  local stored = redis.call('HMGET', key, 'used', 'oldest', 'newest')
  if stored[1] then
    counter.used, counter.oldest, counter.newest = tonumber(stored[1]), tonumber(stored[2]), tonumber(stored[3])
    if counter.oldest < first then prune(counter) end
  end
  counters[key] = counter
  return counter
end

local function add(scope, name, slot, amount)
  local counter = load_counter(scope, name)
  local held = redis.call('HINCRBY', counter.key, slot, amount)
  counter.used, counter.oldest, counter.changed = counter.used + amount, min(counter.oldest, slot), true
  if held > 0 then
    counter.newest = max(counter.newest, slot)
  elseif counter.newest == slot then
    scan(counter)
  end
end

local function save_counters()
  for key, counter in pairs(counters) do
    if counter.changed then
      redis.call('HSET', key, 'used', counter.used, 'oldest', counter.oldest, 'newest', counter.newest)
      redis.call('PEXPIRE', key, end_ms(counter.name, max(counter.newest, counter.current)) - now + KEPT_MS)
    end
  end
end

-- How long until `amount` has room; 0 now, as nothing always has, -1 never.
local function wait_ms(name, counter, limit, amount)
  if amount > limit then return -1 end
  local used = counter.used
  if amount == 0 or used + amount <= limit then return 0 end
  local amounts, order, fields = {}, {}, redis.call('HGETALL', counter.key)
  for place = 1, #fields, 2 do
    local slot = tonumber(fields[place])
    if slot then
      order[#order + 1] = slot
      amounts[slot] = tonumber(fields[place + 1])
    end
  end
  table.sort(order)
  for _, slot in ipairs(order) do
    used = used - amounts[slot]
    if used + amount <= limit then return end_ms(name, slot) - now end
  end
end

-- A reservation that was admitted: scopes, places (scope, limit, slot), what is counted of it, what was reported as
-- used, the end of its lease, and whether that has not come.
local function load_held(id)
  local packed = redis.call('GET', held_key(id))
  return packed and cmsgpack.unpack(packed) or nil
end

-- Until `expire` has counted what was used, a reservation is kept as long as the longest counter: no request of the
-- tenant may come for days.
local function save_held(id, held)
  local ttl = held.leased and HELD_MS or max(1, held.expires + KEPT_MS - now)
  redis.call('SET', held_key(id), cmsgpack.pack(held), 'PX', ttl)
end

-- A reservation that was admitted and is not forgotten yet.
local function known(id)
  local held = load_held(id)
  return held and held.expires + KEPT_MS > now and held or nil
end

local function lease(id, held)
  redis.call('ZADD', leases, held.expires, id)
  for _, scope in ipairs(held.scopes) do redis.call('ZADD', active_key(scope), held.expires, id) end
end

local function release(id, held)
  redis.call('ZREM', leases, id)
  for _, scope in ipairs(held and held.scopes or {}) do redis.call('ZREM', active_key(scope), id) end
end

local function recount(held, tokens, money)
  for _, place in ipairs(held.places) do
    local scope, name, slot = place[1], place[2], place[3]
    local difference = amount_of(name, tokens, money) - amount_of(name, held.tokens, held.money)
    local first, current = slots_at(name)
    if difference ~= 0 and slot >= first then
      add(scope, name, slot, difference)
    elseif difference > 0 then
      add(scope, name, current, difference)
    end
  end
  held.tokens, held.money = tokens, money
end

local function expire()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, MAX_EXPIRED)) do
    local held = load_held(id)
    release(id, held)
    if held and held.leased then
      recount(held, held.used_tokens, held.used_money)
      held.leased = false
      save_held(id, held)
    end
  end
end

-- The state of all limits as a list of used, milliseconds until reset, milliseconds to wait; and whether all have room.
-- `counted`: tokens and money that are counted of the request already, and as much has room; nil: it is new.
local function uses(scopes, tokens, money, counted)
  local found, room = {}, true
  for _, scope in ipairs(scopes) do
    for _, limited in ipairs(scope[2]) do
      local name, limit, used, reset, wait = limited[1], limited[2], 0, 0, 0
      if name == 'concurrent_requests' then
        used = redis.call('ZCOUNT', active_key(scope[1]), '(' .. now, '+inf')
        if used >= limit and not counted then wait = CONCURRENCY_WAIT_MS end
      else
        local counter = load_counter(scope[1], name)
        used = counter.used
        if counter.newest > 0 then reset = end_ms(name, counter.newest) - now end
        local amount = amount_of(name, tokens, money)
        if counted and amount <= amount_of(name, counted[1], counted[2]) then amount = 0 end
        wait = wait_ms(name, counter, limit, amount)
      end
      room = room and wait == 0
      found[#found + 1], found[#found + 2], found[#found + 3] = used, reset, wait
    end
  end
  return found, room
end

-- Integers as one string: the client reads it in one piece, which takes it a tenth of the time of a list.
local function written(admitted, found, wait)
  local parts = {admitted}
  for place, number in ipairs(found) do
    parts[place + 1] = (place % 3 == 0 and not wait) and '0' or string.format('%.0f', number)
  end
  return table.concat(parts, ' ')
end

-- Counts the charge, and returns what is remembered of it, without a lease.
local function taken(tokens, money, scopes)
  local held = {scopes = {}, places = {}, tokens = tokens, money = money, used_tokens = tokens, used_money = money}
  held.expires, held.leased = now, false
  for _, scope in ipairs(scopes) do
    held.scopes[#held.scopes + 1] = scope[1]
    for _, limited in ipairs(scope[2]) do
      local name = limited[1]
      if name ~= 'concurrent_requests' then
        local _, slot = slots_at(name)
        add(scope[1], name, slot, amount_of(name, tokens, money))
        if name ~= 'requests_per_minute' then held.places[#held.places + 1] = {scope[1], name, slot} end
      end
    end
  end
  return held
end

-- Adds what is counted of a reservation, times `sign`, to the counters that still have its slot.
local function add_counted(held, sign)
  for _, place in ipairs(held.places) do
    local scope, name, slot = place[1], place[2], place[3]
    local amount = amount_of(name, held.tokens, held.money)
    if amount ~= 0 and slot >= slots_at(name) then add(scope, name, slot, sign * amount) end
  end
end

-- Replaces the charge of an open reservation, if there is room for it.
local function reserve_again(id, held, lease_ms, tokens, money, scopes)
  tokens, money = max(tokens, held.used_tokens), max(money, held.used_money)
  add_counted(held, -1)
  local found, room = uses(scopes, tokens, money, {held.tokens, held.money})
  add_counted(held, 1)
  if not room then return written('0', found, true) end
  recount(held, tokens, money)
  held.expires, held.leased = now + lease_ms, true
  save_held(id, held)
  lease(id, held)
  return written('1', (uses(scopes, 0, 0)))
end

-- id, lease in milliseconds, tokens, money, scopes as JSON → 1 if admitted, else 0, and the state of all limits
local function reserve(id, lease_ms, tokens, money, scopes)
  expire()
  local former = known(id)
  if former and former.leased then return reserve_again(id, former, lease_ms, tokens, money, scopes) end
  if former then return written('1', (uses(scopes, 0, 0))) end
  local found, room = uses(scopes, tokens, money)
  if not room then return written('0', found, true) end
  local held = taken(tokens, money, scopes)
  held.used_tokens, held.used_money, held.expires, held.leased = 0, 0, now + lease_ms, true
  save_held(id, held)
  lease(id, held)
  return written('1', (uses(scopes, 0, 0)))
end

-- lease in milliseconds, list of id, tokens and money as JSON → nothing
local function renew(lease_ms, renewals)
  expire()
  for _, renewal in ipairs(renewals) do
    local id, tokens, money = renewal[1], renewal[2], renewal[3]
    local held = known(id)
    if held then
      recount(held, max(held.tokens, tokens), max(held.money, money))
      held.used_tokens, held.used_money = tokens, money
      held.expires, held.leased = now + lease_ms, true
      save_held(id, held)
      lease(id, held)
    end
  end
  return 0
end

-- id, tokens, money → whether it was known
local function settle(id, tokens, money)
  expire()
  local held = known(id)
  if not held then return 0 end
  recount(held, tokens, money)
  redis.call('DEL', held_key(id))
  release(id, held)
  return 1
end

-- id, tokens, money, scopes as JSON → nothing
local function count(id, tokens, money, scopes)
  expire()
  local held = known(id)
  if held then
    recount(held, tokens, money)
    release(id, held)
    held.used_tokens, held.used_money, held.expires, held.leased = tokens, money, min(held.expires, now), false
  else
    held = taken(tokens, money, scopes)
  end
  save_held(id, held)
  return 0
end

-- scopes as JSON → 1 and the state of all limits
local function limit_uses(scopes)
  expire()
  return written('1', (uses(scopes, 0, 0)))
end

local function open_reservations()
  expire()
  return redis.call('ZCOUNT', leases, '(' .. now, '+inf')
end

local operation, answer = ARGV[1], nil
if operation == 'reserve' then
  answer = reserve(ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), cjson.decode(ARGV[8]))
elseif operation == 'renew' then
  answer = renew(tonumber(ARGV[4]), cjson.decode(ARGV[5]))
elseif operation == 'settle' then
  answer = settle(ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]))
elseif operation == 'count' then
  answer = count(ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), cjson.decode(ARGV[7]))
elseif operation == 'uses' then
  answer = limit_uses(cjson.decode(ARGV[4]))
elseif operation == 'open' then
  answer = open_reservations()
else
  return redis.error_reply('unknown operation')
end
save_counters()
return answer
