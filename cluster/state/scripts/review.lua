-- The review queue of one tenant. Items change as router/review/review_transitions.py says; a test draws steps for both.
--
-- KEYS[1]: the sorted set of open items, by the time at which each was submitted. ARGV: operation, base of the tenant's
-- names, now in milliseconds ("" for the time of the server), arguments of the operation. Names of other keys are
-- composed here; all have the hash tag of KEYS[1].

if redis.replicate_commands then redis.replicate_commands() end -- Redis 6 needs it to write after it has read the time

local MAX_DUE = 1000 -- items that one call expires
local PAGE = 100 -- items that are looked at in one piece
local HOUR_MS = 3600000 -- a text outlives its item's time at most so long, where no call comes to delete it

local open, base, now = KEYS[1], ARGV[2], tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local due = base .. 'review-due'
local function done(state) return base .. 'review-done:' .. state end -- items in a final state, by their decision
local function item_key(id) return base .. 'review:' .. id end
local function text_key(id) return base .. 'review-text:' .. id end
local function print_key(fingerprint) return base .. 'review-open:' .. fingerprint end
local function exception_key(fingerprint) return base .. 'exception:' .. fingerprint end
local function whole(number) return string.format('%.0f', number) end

local function load_item(id)
  local fields = redis.call('HGETALL', item_key(id))
  if #fields == 0 then return nil end
  local item = {}
  for place = 1, #fields, 2 do item[fields[place]] = fields[place + 1] end
  for _, name in ipairs({'created', 'expires', 'lease', 'decided', 'times', 'kept', 'keep_text'}) do
    item[name] = tonumber(item[name])
  end
  return item
end

local function written(item)
  return {item.id, item.fingerprint, item.document, whole(item.created), whole(item.expires), item.state, item.reviewer,
    whole(item.lease), whole(item.decided), whole(item.times)}
end

local function save(item)
  redis.call('HSET', item_key(item.id), 'state', item.state, 'reviewer', item.reviewer, 'lease', whole(item.lease),
    'decided', whole(item.decided))
end

-- An open item stays in the queue until `due`; a final one leaves it.
local function schedule(item)
  redis.call('ZADD', due, whole(item.state == 'claimed' and item.lease or item.expires), item.id)
end

-- Removes the two oldest of a set if they are gone: more leave than come. How long items are kept differs.
local function prune(set)
  for _, id in ipairs(redis.call('ZRANGE', set, 0, 1)) do
    if redis.call('EXISTS', item_key(id)) == 0 then redis.call('ZREM', set, id) end
  end
end

local function close(item)
  redis.call('ZREM', open, item.id)
  redis.call('ZREM', due, item.id)
  redis.call('DEL', print_key(item.fingerprint))
  redis.call('ZADD', done(item.state), whole(item.decided), item.id)
  prune(done(item.state))
  local left = item.decided + item.kept - now
  if left <= 0 then
    redis.call('DEL', item_key(item.id), text_key(item.id))
    redis.call('ZREM', done(item.state), item.id)
    return
  end
  redis.call('PEXPIRE', item_key(item.id), whole(left))
  if item.keep_text == 1 and item.state ~= 'expired' then
    redis.call('PEXPIRE', text_key(item.id), whole(left))
  else
    redis.call('DEL', text_key(item.id))
  end
end

-- As `at` in router/review/review_transitions.py.
local function advance(item)
  local before = item.state
  if item.state == 'claimed' and now >= item.lease then
    item.state, item.reviewer, item.lease = 'waiting', '', 0
  end
  if item.state == 'waiting' and now >= item.expires then
    item.state, item.decided = 'expired', item.expires
  end
  if item.state == before then return end
  save(item)
  if item.state == 'expired' then close(item) else schedule(item) end
end

local function expire()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', whole(now), 'LIMIT', 0, MAX_DUE)) do
    local item = load_item(id)
    if item then
      advance(item)
    else
      redis.call('ZREM', due, id)
      redis.call('ZREM', open, id)
    end
  end
end

local function is_open(item) return item.state == 'waiting' or item.state == 'claimed' end

-- The item as it is now; nothing if it is kept no longer.
local function current(id)
  local item = load_item(id)
  if not item then return nil end
  advance(item)
  if is_open(item) or now < item.decided + item.kept then return item end
  redis.call('DEL', item_key(id), text_key(id))
  redis.call('ZREM', done(item.state), id)
end

-- id, fingerprint, document, milliseconds until expiry and to be kept, whether the text is kept, the most open items,
-- whether there is a text, text → id, or nothing if the queue is full
local function submit(id, fingerprint, document, expires_in, kept, keep_text, max_open, has_text, text)
  local there = redis.call('GET', print_key(fingerprint))
  local item = there and current(there)
  if item and is_open(item) then
    if there ~= id then redis.call('HINCRBY', item_key(there), 'times', 1) end -- otherwise the call was repeated
    return there
  end
  if redis.call('ZCARD', open) >= max_open then return false end
  item = {id = id, fingerprint = fingerprint, created = now, expires = now + expires_in, state = 'waiting'}
  redis.call('HSET', item_key(id), 'id', id, 'fingerprint', fingerprint, 'document', document, 'created', whole(now),
    'expires', whole(item.expires), 'state', 'waiting', 'reviewer', '', 'lease', 0, 'decided', 0, 'times', 1,
    'kept', whole(kept), 'keep_text', keep_text)
  redis.call('SET', print_key(fingerprint), id)
  if has_text == 1 then redis.call('SET', text_key(id), text, 'PX', whole(expires_in + HOUR_MS)) end
  redis.call('ZADD', open, whole(now), id)
  schedule(item)
  return id
end

local function allow(fingerprint, length, document)
  local exceptions = base .. 'exceptions'
  redis.call('SET', exception_key(fingerprint), document, 'PX', whole(length))
  redis.call('ZADD', exceptions, whole(now + length), fingerprint)
  redis.call('ZREMRANGEBYSCORE', exceptions, '-inf', whole(now))
end

-- As `taken` in router/review/review_transitions.py. Returns whether the step was accepted.
local function take(item, action, reviewer, lease, exception, document)
  local own = item.reviewer == reviewer
  local free = item.state == 'waiting' or (item.state == 'claimed' and own)
  if action == 'approve' or action == 'reject' then
    local final = action == 'approve' and 'approved' or 'rejected'
    if not free then return own and item.state == final end
    item.state, item.reviewer, item.lease, item.decided = final, reviewer, 0, now
    save(item)
    close(item)
    if final == 'approved' and exception > 0 then allow(item.fingerprint, exception, document) end
    return true
  end
  if not free then return false end
  if action == 'claim' then
    item.state, item.reviewer, item.lease = 'claimed', reviewer, now + lease
    redis.call('PEXPIRE', text_key(item.id), whole(math.max(item.expires - now, lease) + HOUR_MS))
  else
    item.state, item.reviewer, item.lease = 'waiting', '', 0
  end
  save(item)
  schedule(item)
  return true
end

-- id, action, reviewer, lease and exception in milliseconds, document → nothing, or whether it was accepted and the item
local function step(id, ...)
  local item = current(id)
  if not item then return false end
  local accepted = take(item, ...)
  advance(item)
  return {accepted and 1 or 0, written(item)}
end

local OPEN = {waiting = true, claimed = true}

-- The first `limit` items in one of `states`, of the ids that page(first, last) returns of `set`, which holds those in
-- `members`: a page at a time, so that a report costs what it returns. An item that is gone, or expires only now, leaves
-- its set, and the next page begins so much before.
local function list(set, page, members, states, limit)
  local found, first = {}, 0
  while #found < limit do
    local ids, gone = page(first, first + PAGE - 1), 0
    for _, id in ipairs(ids) do
      local item = current(id)
      if not item then redis.call('ZREM', set, id) end
      if not item or not members[item.state] then gone = gone + 1 end
      if item and states[item.state] then found[#found + 1] = written(item) end
      if #found >= limit then return found end
    end
    if #ids < PAGE then return found end
    first = first + PAGE - gone
  end
  return found
end

local function open_items(states, limit)
  return list(open, function(first, last) return redis.call('ZRANGE', open, first, last) end, OPEN, states, limit)
end

-- state or "", the most items → items
local function items(state, limit)
  if state == '' then return open_items(OPEN, limit) end
  if state == 'waiting' or state == 'claimed' then return open_items({[state] = true}, limit) end
  local function newest(first, last) return redis.call('ZREVRANGE', done(state), first, last) end
  return list(done(state), newest, {[state] = true}, {[state] = true}, limit)
end

-- since, the most items → items that people have decided, at most so many of each kind
local function decided(since, limit)
  local found = {}
  for _, state in ipairs({'approved', 'rejected'}) do
    local function oldest(first, last)
      return redis.call('ZRANGEBYSCORE', done(state), since, '+inf', 'LIMIT', first, last - first + 1)
    end
    local of_state = {[state] = true}
    for _, item in ipairs(list(done(state), oldest, of_state, of_state, limit)) do found[#found + 1] = item end
  end
  return found
end

expire()
local operation = ARGV[1]
if operation == 'submit' then
  return submit(ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]),
    tonumber(ARGV[11]), ARGV[12])
elseif operation == 'step' then
  return step(ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9])
elseif operation == 'get' then
  local item = current(ARGV[4])
  return item and written(item) or false
elseif operation == 'text' then
  local item = current(ARGV[4])
  return item and redis.call('GET', text_key(item.id)) or false
elseif operation == 'items' then
  return items(ARGV[4], tonumber(ARGV[5]))
elseif operation == 'decided' then
  return decided(ARGV[4], tonumber(ARGV[5]))
elseif operation == 'allowed' then
  local ends = redis.call('ZSCORE', base .. 'exceptions', ARGV[4])
  return ends and tonumber(ends) > now and 1 or 0
elseif operation == 'exceptions' then
  redis.call('ZREMRANGEBYSCORE', base .. 'exceptions', '-inf', whole(now))
  local found, entries = {}, redis.call('ZRANGE', base .. 'exceptions', 0, -1, 'WITHSCORES')
  for place = 1, #entries, 2 do
    local document = redis.call('GET', exception_key(entries[place]))
    found[#found + 1] = {entries[place], whole(tonumber(entries[place + 1])), document or '{}'}
  end
  return found
elseif operation == 'revoke' then
  local live = tonumber(redis.call('ZSCORE', base .. 'exceptions', ARGV[4]) or 0) > now
  redis.call('ZREM', base .. 'exceptions', ARGV[4])
  redis.call('DEL', exception_key(ARGV[4]))
  return live and 1 or 0
end
return redis.error_reply('unknown operation')
