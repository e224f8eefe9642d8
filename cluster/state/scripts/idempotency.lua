-- The idempotency keys of the requests of one tenant, and the answers to them.
--
-- KEYS[1]: the sorted set of the keys, by the time at which they are forgotten. ARGV: operation, base of the tenant's
-- names, now in milliseconds ("" for the time of the server), key, owner, lease and window in milliseconds, the most keys
-- and the most bytes of a tenant, arguments of the operation. Names of other keys are composed here; all have the hash
-- tag of KEYS[1].
--
-- The facts of a key: request (a digest), owner, account, lease (when it ends); of one that is answered: answer, bytes.
-- Redis deletes them after the window, since the tenant may make no later call. The sizes of the answers stay longer, so
-- that a later call subtracts them. Routers of earlier versions know only the bytes in the facts.

if redis.replicate_commands then redis.replicate_commands() end -- Redis 6 needs it to write after it has read the time

local MAX_DROPPED = 200 -- keys that one call forgets
local MARGIN_MS = 1000 -- for which Redis keeps facts longer than the sorted set says, which then has decided first

local due, base, now, key, owner = KEYS[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local lease, window, max_keys, max_bytes = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local total, sizes = base .. 'idempotency-bytes', base .. 'idempotency-sizes'
local function facts_key(name) return base .. 'idempotency:' .. name end
local function whole(number) return string.format('%.0f', number) end

local facts = facts_key(key)
local function fact(name) return redis.call('HGET', facts, name) end

local function size_of(name) return redis.call('HGET', sizes, name) or redis.call('HGET', facts_key(name), 'bytes') end

local function forget(name)
  local bytes = size_of(name)
  redis.call('ZREM', due, name)
  redis.call('DEL', facts_key(name))
  redis.call('HDEL', sizes, name)
  if bytes then redis.call('DECRBY', total, bytes) end
end

for _, name in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', whole(now), 'LIMIT', 0, MAX_DROPPED)) do forget(name) end
-- What Redis has let go by itself is in the bytes until the tenant has no key.
if redis.call('ZCARD', due) == 0 then redis.call('DEL', total, sizes) end

-- Keeps the key for the window, and makes room for it.
local function keep()
  redis.call('ZADD', due, whole(now + window), key)
  redis.call('PEXPIRE', facts, whole(window + MARGIN_MS))
  for _, name in ipairs({due, total, sizes}) do redis.call('PEXPIRE', name, whole(2 * window)) end
  for _ = 1, MAX_DROPPED do
    local bytes = tonumber(redis.call('GET', total) or '0')
    if redis.call('ZCARD', due) <= max_keys and bytes <= max_bytes then return end
    local first = redis.call('ZRANGE', due, 0, 0)[1]
    if not first then return end
    forget(first)
  end
end

local function held() return fact('owner') == owner and not fact('answer') end

-- request, account → the state, and the account or the answer
local function claim(request, account)
  local known = fact('request')
  if known and known ~= request then return {'different', ''} end
  if known and fact('answer') then return {'answered', fact('answer')} end
  if known and now < tonumber(fact('lease')) then return {'running', ''} end
  account = fact('account') or account
  redis.call('HSET', facts, 'request', request, 'owner', owner, 'account', account, 'lease', whole(now + lease))
  keep()
  return {'claimed', account}
end

local function answer(text)
  redis.call('INCRBY', total, #text - tonumber(size_of(key) or '0'))
  redis.call('HSET', facts, 'answer', text, 'bytes', #text)
  redis.call('HSET', sizes, key, #text)
  keep()
end

local operation = ARGV[1]
if operation == 'claim' then
  return claim(ARGV[10], ARGV[11])
elseif operation == 'renew' then
  if not held() then return 0 end
  redis.call('HSET', facts, 'lease', whole(now + lease))
  keep()
  return 1
elseif operation == 'answer' then
  if not held() then return 0 end
  answer(ARGV[10])
  return 1
elseif operation == 'release' then
  if held() then forget(key) end
  return 1
end
return redis.error_reply('unknown operation')
