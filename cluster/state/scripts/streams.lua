-- The events of the detached streams of one tenant.
--
-- KEYS[1]: the sorted set of the streams with events, by the time at which these are deleted. ARGV: operation, base of
-- the tenant's names, now in milliseconds ("" for the time of the server), id of the stream, its owner, arguments of the
-- operation. Names of other keys are composed here; all have the hash tag of KEYS[1].
--
-- The facts of a stream: owner, bytes, ended, lease (when it ends), gone, read (the last time). They outlive its events.

if redis.replicate_commands then redis.replicate_commands() end -- Redis 6 needs it to write after it has read the time

local MAX_DROPPED = 200 -- streams that one call expires, or evicts
local MAX_GONE = 4096 -- streams of a tenant that are known to be gone
local MARGIN_MS = 1000 -- for which Redis keeps events longer than the sorted set says, which then has decided first

local due, base, now, id, owner = KEYS[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local total, gone = base .. 'streams-bytes', base .. 'streams-gone'
local function facts_key(stream) return base .. 'stream:' .. stream end
local function events_key(stream) return base .. 'stream-events:' .. stream end
local function whole(number) return string.format('%.0f', number) end

-- Remembers that a stream existed, and forgets the one that has been gone for longest.
local function remember(stream, gone_ms)
  redis.call('HSET', facts_key(stream), 'gone', 1, 'bytes', 0)
  redis.call('PEXPIRE', facts_key(stream), gone_ms)
  redis.call('RPUSH', gone, stream)
  redis.call('PEXPIRE', gone, gone_ms)
  if redis.call('LLEN', gone) > MAX_GONE then redis.call('DEL', facts_key(redis.call('LPOP', gone))) end
end

local function delete_events(stream, gone_ms)
  local bytes = redis.call('HGET', facts_key(stream), 'bytes')
  redis.call('ZREM', due, stream)
  redis.call('DEL', events_key(stream))
  if not bytes then return end
  redis.call('DECRBY', total, bytes)
  remember(stream, gone_ms)
end

local function expire(gone_ms)
  for _, stream in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', whole(now), 'LIMIT', 0, MAX_DROPPED)) do
    delete_events(stream, gone_ms)
  end
  -- The facts of a tenant that was idle for long are gone, and with them the bytes to subtract.
  if redis.call('ZCARD', due) == 0 then redis.call('DEL', total) end
end

local function make_room(max_streams, max_bytes, gone_ms)
  for _ = 1, MAX_DROPPED do
    local bytes = tonumber(redis.call('GET', total) or '0')
    if redis.call('ZCARD', due) <= max_streams and bytes <= max_bytes then return end
    local first = redis.call('ZRANGE', due, 0, 0)[1]
    if not first then return end
    delete_events(first, gone_ms)
  end
end

-- number of the first event, ended (1 or 0), lease, window, bounds, time for which a stream is known to be gone, events
-- → milliseconds since the last read, -1 without one; nothing if the stream is gone
local function append(first, ended, lease, window, max_streams, max_bytes, gone_ms)
  expire(gone_ms)
  local facts, events = facts_key(id), events_key(id)
  if redis.call('HEXISTS', facts, 'gone') == 1 then return false end
  redis.call('HSETNX', facts, 'owner', owner)
  local known = redis.call('LLEN', events)
  -- Redis has lost events, by a restart or a failover: what follows would take their numbers.
  if known < first - 1 then
    redis.call('HSETNX', facts, 'bytes', 0)
    delete_events(id, gone_ms)
    return false
  end
  local added = 0
  for place = math.max(0, known - first + 1) + 13, #ARGV do
    redis.call('RPUSH', events, ARGV[place])
    added = added + #ARGV[place]
  end
  redis.call('HINCRBY', facts, 'bytes', added)
  redis.call('INCRBY', total, added)
  if ended == 1 then redis.call('HSET', facts, 'ended', 1) end
  redis.call('HSET', facts, 'lease', whole(now + lease))
  local kept = window
  if redis.call('HEXISTS', facts, 'ended') == 0 then kept = kept + lease end
  redis.call('ZADD', due, whole(now + kept), id)
  -- The facts stay longer than the sorted set says, so that their bytes are subtracted by a later call and not lost. The
  -- text does not, since a tenant may make no later call.
  redis.call('PEXPIRE', facts, whole(kept + gone_ms))
  redis.call('PEXPIRE', events, whole(kept + MARGIN_MS))
  make_room(max_streams, max_bytes, gone_ms)
  for _, key in ipairs({due, total}) do redis.call('PEXPIRE', key, whole(2 * (kept + gone_ms))) end
  if redis.call('HEXISTS', facts, 'gone') == 1 then return false end
  local read = redis.call('HGET', facts, 'read')
  return read and whole(now - tonumber(read)) or '-1'
end

-- number of the event before the first, number of events, time for which a stream is known to be gone → the state, and
-- the events; nothing if the owner has no such stream
local function read(after, count, gone_ms)
  expire(gone_ms)
  local facts = facts_key(id)
  if redis.call('HGET', facts, 'owner') ~= owner then return false end
  if redis.call('HEXISTS', facts, 'gone') == 1 then return {'gone', {}} end
  redis.call('HSET', facts, 'read', whole(now))
  local found = redis.call('LRANGE', events_key(id), after, after + count - 1)
  -- Redis has let the events go itself: an earlier call expired MAX_DROPPED other streams, or Redis has lost them.
  if #found == 0 and redis.call('EXISTS', events_key(id)) == 0 then
    if tonumber(redis.call('HGET', facts, 'bytes') or '0') > 0 then
      delete_events(id, gone_ms)
      return {'gone', {}}
    end
  end
  if redis.call('HEXISTS', facts, 'ended') == 1 then return {'ended', found} end
  return {now < tonumber(redis.call('HGET', facts, 'lease')) and 'open' or 'lost', found}
end

local function number(place) return tonumber(ARGV[place]) end

if ARGV[1] == 'append' then
  return append(number(6), number(7), number(8), number(9), number(10), number(11), number(12))
elseif ARGV[1] == 'read' then
  return read(number(6), number(7), number(8))
end
return redis.error_reply('unknown operation')
