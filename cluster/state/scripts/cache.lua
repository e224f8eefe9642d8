-- The stored answers of one tenant, and the leases of the routers that generate them.
--
-- KEYS[1]: the sorted set of keys by their last use. ARGV: operation, base of the tenant's names, now in milliseconds
-- ("" for the time of the server), arguments of the operation. Names of other keys are composed here; all have the hash
-- tag of KEYS[1].
--
-- `known` maps a key to "bytes expiry id partition" of its entry; the partition is "" if the feed was not told of it.
-- What it does not have is no entry: all of a tenant's are gone when it is. Uses are numbered, so that their order is
-- exact. The epoch counts deletions on request: a lease of another epoch is none, and an answer whose generation began
-- in another epoch is not stored.

if redis.replicate_commands then redis.replicate_commands() end -- Redis 6 needs it to write after it has read the time

local MAX_DROPPED = 200 -- entries that one call expires, or evicts
local UNSHARED = '-' -- the owner of a lease that nobody has

local uses, base, now = KEYS[1], ARGV[2], tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local known, due, total, ticks = base .. 'cache-known', base .. 'cache-due', base .. 'cache-bytes', base .. 'cache-ticks'
local epoch_key, olds = base .. 'cache-epoch', base .. 'cache-olds'
local function entry_key(key) return base .. 'cache:' .. key end
local function lease_key(key) return base .. 'cache-lease:' .. key end
local function awaited_key(key) return base .. 'cache-awaited:' .. key end
local function whole(number) return string.format('%.0f', number) end

local function epoch() return redis.call('GET', epoch_key) or '0' end

local removed = {} -- "id partition" of the entries that are gone and of which the feed was told

local function drop(key)
  local there = redis.call('DEL', entry_key(key))
  local facts = redis.call('HGET', known, key)
  redis.call('ZREM', uses, key)
  redis.call('ZREM', due, key)
  if not facts then return there == 1 end
  redis.call('HDEL', known, key)
  local bytes, id, partition = string.match(facts, '^(%d+) %d+ (%S+) (%S*)$')
  redis.call('DECRBY', total, bytes)
  if partition ~= '' then removed[#removed + 1] = id .. ' ' .. partition end
  return true
end

local function touch(key)
  redis.call('ZADD', uses, 'XX', redis.call('INCR', ticks), key)
end

-- The entry as it was written; nothing if there is none, or its time has ended.
local function find(key)
  local data = redis.call('GET', entry_key(key))
  if not data then return nil end
  local facts = redis.call('HGET', known, key)
  if not facts or tonumber(string.match(facts, '^%d+ (%d+)')) <= now then
    drop(key)
    return nil
  end
  touch(key)
  return data
end

local function lease_of(key)
  local held = redis.call('GET', lease_key(key))
  if not held then return nil, 0 end
  local owner, expires, began = string.match(held, '^(%S+) (%d+) (%d+)$')
  if not owner or began ~= epoch() or tonumber(expires) <= now then return nil, 0 end
  return owner, tonumber(expires) - now
end

local function hold(key, owner, length)
  redis.call('SET', lease_key(key), owner .. ' ' .. whole(now + length) .. ' ' .. epoch(), 'PX', whole(length))
end

-- key, owner, lease in milliseconds, and for how long an owner that does not lead counts as waiting → the entry, or the
-- state of the lease: leading, unshared or following
local function find_or_lead(key, owner, length, waits)
  local data = find(key)
  if data then return {'entry', data} end
  local leader, left = lease_of(key)
  if not leader or leader == owner then
    hold(key, owner, length)
    redis.call('DEL', awaited_key(key)) -- by this owner itself, perhaps; others ask again
    return {'leading', whole(length), epoch()}
  end
  redis.call('SET', awaited_key(key), whole(now + waits), 'PX', whole(waits))
  return {leader == UNSHARED and 'unshared' or 'following', whole(left), epoch()}
end

-- Whether `owner` has the lease, and another one waits for its answer.
local function awaited(key, owner)
  return lease_of(key) == owner and tonumber(redis.call('GET', awaited_key(key)) or '0') > now
end

local function release(key, owner, unshared)
  if lease_of(key) ~= owner then return end
  if unshared > 0 then hold(key, UNSHARED, unshared) else redis.call('DEL', lease_key(key)) end
end

local function evict(max_entries, max_bytes)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', whole(now), 'LIMIT', 0, MAX_DROPPED)) do drop(key) end
  for _ = 1, MAX_DROPPED do
    local bytes = tonumber(redis.call('GET', total) or '0')
    if redis.call('ZCARD', uses) <= max_entries and bytes <= max_bytes then return end
    local first = redis.call('ZRANGE', uses, 0, 0)[1]
    if not first then return end
    drop(first)
  end
end

-- Frees some of what was deleted with all of the tenant's entries: their names were kept, least recently used first.
local function sweep()
  local old = redis.call('LINDEX', olds, 0)
  if not old then return end
  local found = redis.call('ZPOPMIN', old, MAX_DROPPED)
  for place = 1, #found, 2 do -- followed by its score
    if redis.call('HEXISTS', known, found[place]) == 0 then redis.call('UNLINK', entry_key(found[place])) end
  end
  if #found < 2 * MAX_DROPPED then redis.call('LPOP', olds) end
end

-- Deletes all entries, in a time that does not depend on their number → their number
local function clear()
  local number, count = redis.call('INCR', epoch_key), redis.call('ZCARD', uses)
  if count > 0 then
    local last = redis.call('ZREVRANGE', due, 0, 0, 'WITHSCORES')[2] -- when Redis itself has freed all of them
    local old = base .. 'cache-old:' .. whole(number)
    redis.call('RENAME', uses, old)
    redis.call('PEXPIRE', old, whole(math.max(1, tonumber(last or now) - now)))
    redis.call('RPUSH', olds, old)
  end
  redis.call('UNLINK', known, due, total)
  return count
end

-- key, id, partition or "", entry, lifetime in milliseconds, bounds, owner or "" → nothing
local function put(key, id, partition, data, lifetime, max_entries, max_bytes, owner)
  sweep()
  drop(key)
  redis.call('SET', entry_key(key), data, 'PX', whole(lifetime))
  redis.call('HSET', known, key, string.format('%d %s %s %s', #data, whole(now + lifetime), id, partition))
  redis.call('ZADD', uses, redis.call('INCR', ticks), key)
  redis.call('ZADD', due, whole(now + lifetime), key)
  redis.call('INCRBY', total, #data)
  evict(max_entries, max_bytes)
  if owner ~= '' then release(key, owner, 0) end
end

local operation = ARGV[1]
if operation == 'get' then
  return find(ARGV[4]) or false
elseif operation == 'lead' then
  return find_or_lead(ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]))
elseif operation == 'awaited' then
  return awaited(ARGV[4], ARGV[5]) and 1 or 0
elseif operation == 'renew' then
  if lease_of(ARGV[4]) ~= ARGV[5] then return 0 end
  hold(ARGV[4], ARGV[5], tonumber(ARGV[6]))
  return 1
elseif operation == 'release' then
  release(ARGV[4], ARGV[5], tonumber(ARGV[6]))
  return 1
elseif operation == 'put' then -- as above, and the epoch in which the generation began, or ""
  if ARGV[12] ~= '' and ARGV[12] ~= epoch() then return false end
  put(ARGV[4], ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11])
  return removed
elseif operation == 'drop' then -- 1 to begin an epoch; keys, each with its id or "" → keys dropped, and for the feed
  if ARGV[4] == '1' then redis.call('INCR', epoch_key) end
  local dropped = {}
  for place = 5, #ARGV, 2 do
    local key, id = ARGV[place], ARGV[place + 1]
    local facts = redis.call('HGET', known, key)
    if id == '' or (facts and string.match(facts, '^%d+ %d+ (%S+)') == id) then
      if drop(key) then dropped[#dropped + 1] = key end
    end
  end
  return {dropped, removed}
elseif operation == 'clear' then
  return clear()
elseif operation == 'epoch' then
  return epoch()
end
return redis.error_reply('unknown operation')
