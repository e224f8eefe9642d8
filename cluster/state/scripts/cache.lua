-- The stored answers of one tenant, and the leases of the routers that generate them.
--
-- KEYS[1]: the sorted set of keys by their last use. ARGV: operation, base of the tenant's names, now in milliseconds
-- ("" for the time of the server), arguments of the operation. Names of other keys are composed here; all have the hash
-- tag of KEYS[1].
--
-- `known` maps a key to "bytes expiry id partition" of its entry; the partition is "" if the feed was not told of it.
-- Uses are numbered, so that their order is exact.

if redis.replicate_commands then redis.replicate_commands() end -- Redis 6 needs it to write after it has read the time

local MAX_DROPPED = 200 -- entries that one call expires, or evicts
local UNSHARED = '-' -- the owner of a lease that nobody has

local uses, base, now = KEYS[1], ARGV[2], tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local known, due, total, ticks = base .. 'cache-known', base .. 'cache-due', base .. 'cache-bytes', base .. 'cache-ticks'
local function entry_key(key) return base .. 'cache:' .. key end
local function lease_key(key) return base .. 'cache-lease:' .. key end
local function whole(number) return string.format('%.0f', number) end

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
  if facts and tonumber(string.match(facts, '^%d+ (%d+)')) <= now then
    drop(key)
    return nil
  end
  touch(key)
  return data
end

local function lease_of(key)
  local held = redis.call('GET', lease_key(key))
  if not held then return nil, 0 end
  local owner, expires = string.match(held, '^(%S+) (%d+)$')
  if tonumber(expires) <= now then return nil, 0 end
  return owner, tonumber(expires) - now
end

local function hold(key, owner, length)
  redis.call('SET', lease_key(key), owner .. ' ' .. whole(now + length), 'PX', whole(length))
end

-- key, owner, lease in milliseconds → the entry, or the state of the lease: leading, unshared or following
local function find_or_lead(key, owner, length)
  local data = find(key)
  if data then return {'entry', data} end
  local leader, left = lease_of(key)
  if not leader or leader == owner then
    hold(key, owner, length)
    return {'leading', whole(length)}
  end
  return {leader == UNSHARED and 'unshared' or 'following', whole(left)}
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

-- key, id, partition or "", entry, lifetime in milliseconds, bounds, owner or "" → nothing
local function put(key, id, partition, data, lifetime, max_entries, max_bytes, owner)
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
  return find_or_lead(ARGV[4], ARGV[5], tonumber(ARGV[6]))
elseif operation == 'renew' then
  if lease_of(ARGV[4]) ~= ARGV[5] then return 0 end
  hold(ARGV[4], ARGV[5], tonumber(ARGV[6]))
  return 1
elseif operation == 'release' then
  release(ARGV[4], ARGV[5], tonumber(ARGV[6]))
  return 1
elseif operation == 'put' then
  put(ARGV[4], ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11])
  return removed
elseif operation == 'drop' then -- key, and its id or "" → whether it was there, and what the feed is to be told
  local facts = redis.call('HGET', known, ARGV[4])
  if ARGV[5] ~= '' and (not facts or string.match(facts, '^%d+ %d+ (%S+)') ~= ARGV[5]) then return {0, removed} end
  return {drop(ARGV[4]) and 1 or 0, removed}
end
return redis.error_reply('unknown operation')
