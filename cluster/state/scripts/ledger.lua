-- Adds ledger entries of one tenant, each once.
--
-- KEYS[1]: the beginning of names of sums, KEYS[2...]: names of the documents of entries. ARGV[1]: milliseconds that a
-- document is kept. ARGV[2]: resolutions as JSON, each a name, its length and how long its sums are kept, in
-- milliseconds. ARGV[3]: now in milliseconds, "" for the time of the server. ARGV[4...]: the entries as JSON: document,
-- time in milliseconds, labels as JSON, list of names and amounts, the value of the capped label ("" is not counted),
-- and the labels with "other" in its place, the id of the entry of which it is a part ("": it is whole). Returns the
-- number of entries that were new. If it fails, none was added.
--
-- A tenant has MAX_VALUES values of the capped label a day; entries with further ones are summed under "other".
--
-- The time of an entry is from its router's clock. One further ahead than MAX_AHEAD_MS is wrong: it counts as now.

if redis.replicate_commands then redis.replicate_commands() end -- Redis 6 needs it to write after it has read the time

local MAX_AHEAD_MS = 3600000
local DAY_MS = 86400000
local MAX_VALUES = 200
local now = tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Returns whether a sum may have this value of the capped label at the time 'at'. Remembers it if so.
local function has_room(value, at)
  local values = KEYS[1] .. 'values:' .. string.format('%.0f', math.floor(at / DAY_MS) * DAY_MS)
  if value == '' or redis.call('SISMEMBER', values, value) == 1 then return true end
  if redis.call('SCARD', values) >= MAX_VALUES then return false end
  redis.call('SADD', values, value)
  redis.call('PEXPIRE', values, 2 * DAY_MS)
  return true
end

local resolutions, new = cjson.decode(ARGV[2]), 0
local base = string.sub(KEYS[1], 1, -#'sums:' - 1)
local function entry_key(id) return base .. 'entry:' .. id end
local function parts_key(id) return base .. 'parts:' .. id end

-- What this call is to change: by the name of sums, their place in the index and an amount by its field. Entries of one
-- call mostly share their sums, so that each is written once.
local changes = {}

-- Adds amounts, times sign, to the changes of all resolutions.
local function add(at, labels, amounts, sign)
  for _, resolution in ipairs(resolutions) do
    local start = math.floor(at / resolution[2]) * resolution[2]
    local index = KEYS[1] .. resolution[1]
    local sums = index .. ':' .. string.format('%.0f', start)
    local change = changes[sums]
    if not change then
      change = {index = index, start = start, kept = resolution[3], fields = {}}
      changes[sums] = change
    end
    for _, amount in ipairs(amounts) do
      local field = '[' .. labels .. ',"' .. amount[1] .. '"]'
      change.fields[field] = (change.fields[field] or 0) + sign * amount[2]
    end
  end
end

local documents, parts, replaced = {}, {}, {} -- by their ids; parts and replaced by that of the whole entry

local function is_known(id) return documents[id] or redis.call('EXISTS', entry_key(id)) == 1 end

-- Takes the parts of a whole entry out of the sums, those of this call too.
local function remove_parts(id)
  for _, part in ipairs(redis.call('HVALS', parts_key(id))) do
    local row = cjson.decode(part)
    add(row[1], row[2], row[3], -1)
  end
  for _, row in pairs(parts[id] or {}) do add(row[1], row[2], row[3], -1) end
  parts[id], replaced[id] = nil, true
end

-- Of the parts of an entry, the first that comes counts the request; which one that is, no router knows.
local function counted_once(whole, amounts)
  if not parts[whole] and redis.call('EXISTS', parts_key(whole)) == 0 then return amounts end
  local counted = {}
  for place, amount in ipairs(amounts) do counted[place] = {amount[1], amount[1] == 'requests' and 0 or amount[2]} end
  return counted
end

local function take(id, entry)
  local whole, amounts = entry[7], entry[4]
  if is_known(id) or (whole ~= '' and is_known(whole)) then return end
  local at = entry[2] > now + MAX_AHEAD_MS and now or entry[2]
  local labels = has_room(entry[5], at) and entry[3] or entry[6]
  if whole == '' then
    remove_parts(id)
  else
    amounts = counted_once(whole, amounts)
    parts[whole] = parts[whole] or {}
    parts[whole][id] = {at, labels, amounts}
  end
  documents[id], new = entry[1], new + 1
  add(at, labels, amounts, 1)
end

for place = 2, #KEYS do
  take(string.sub(KEYS[place], #base + #'entry:' + 1), cjson.decode(ARGV[place + 2]))
end

-- Intervals without sums do no harm, so they come first.
for sums, change in pairs(changes) do
  local start = string.format('%.0f', change.start)
  redis.call('ZADD', change.index, start, start)
  local oldest = string.format('%.0f', math.min(change.start, now) - change.kept)
  redis.call('ZREMRANGEBYSCORE', change.index, '-inf', '(' .. oldest)
end

-- Redis does not undo what a script has written before it fails, and an entry counts as added from the moment at which
-- its document is there. So documents are last, and what was added to the sums before a failure is taken out again.
local written = {}
local function increment(sums, field, amount)
  redis.call('HINCRBY', sums, field, string.format('%.0f', amount + 0)) -- + 0: Redis refuses the -0 of a difference
end
local ok, fault = pcall(function()
  for sums, change in pairs(changes) do
    for field, amount in pairs(change.fields) do
      increment(sums, field, amount)
      written[#written + 1] = {sums, field, amount}
    end
    redis.call('PEXPIRE', sums, change.kept)
  end
  for whole, rows in pairs(parts) do
    for id, row in pairs(rows) do redis.call('HSET', parts_key(whole), id, cjson.encode(row)) end
    redis.call('PEXPIRE', parts_key(whole), ARGV[1])
  end
end)
if not ok then
  for _, change in ipairs(written) do increment(change[1], change[2], -change[3]) end
  return type(fault) == 'table' and fault or redis.error_reply(tostring(fault))
end
for id in pairs(replaced) do redis.call('DEL', parts_key(id)) end
for id, document in pairs(documents) do redis.call('SET', entry_key(id), document, 'PX', ARGV[1]) end
return new
