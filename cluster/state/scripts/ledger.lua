-- Adds ledger entries of one tenant, each once.
--
-- KEYS[1]: the beginning of names of sums, KEYS[2...]: names of the documents of entries. ARGV[1]: milliseconds that a
-- document is kept. ARGV[2]: resolutions as JSON, each a name, its length and how long its sums are kept, in
-- milliseconds. ARGV[3]: now in milliseconds, "" for the time of the server. ARGV[4...]: the entries as JSON: document,
-- time in milliseconds, labels as JSON, list of names and amounts, the value of the capped label ("" is not counted),
-- and the labels with "other" in its place, the id of the entry of which it is a part ("": it is whole). Returns the number of entries that were new.
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

-- Adds amounts, times sign, to the sums of all resolutions.
local function add(at, labels, amounts, sign)
  for _, resolution in ipairs(resolutions) do
    local start = math.floor(at / resolution[2]) * resolution[2]
    local index = KEYS[1] .. resolution[1]
    local sums = index .. ':' .. string.format('%.0f', start)
    for _, amount in ipairs(amounts) do
      local change = sign * amount[2] + 0 -- a zero that is taken out would be written as -0, which Redis refuses
      redis.call('HINCRBY', sums, '[' .. labels .. ',"' .. amount[1] .. '"]', string.format('%.0f', change))
    end
    redis.call('PEXPIRE', sums, resolution[3])
    redis.call('ZADD', index, start, string.format('%.0f', start))
    redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. string.format('%.0f', math.min(start, now) - resolution[3]))
  end
end

-- Takes the parts of a whole entry out of the sums.
local function remove_parts(parts)
  for _, part in ipairs(redis.call('HVALS', parts)) do
    local row = cjson.decode(part)
    add(row[1], row[2], row[3], -1)
  end
  redis.call('DEL', parts)
end

local base = string.sub(KEYS[1], 1, -#'sums:' - 1)
for place = 2, #KEYS do
  local entry = cjson.decode(ARGV[place + 2])
  local id, whole = string.sub(KEYS[place], #base + #'entry:' + 1), entry[7]
  local replaced = whole ~= '' and redis.call('EXISTS', base .. 'entry:' .. whole) == 1
  if not replaced and redis.call('SET', KEYS[place], entry[1], 'NX', 'PX', ARGV[1]) then
    new = new + 1
    local at = entry[2] > now + MAX_AHEAD_MS and now or entry[2]
    local labels = has_room(entry[5], at) and entry[3] or entry[6]
    if whole == '' then
      remove_parts(base .. 'parts:' .. id)
    else
      redis.call('HSET', base .. 'parts:' .. whole, id, cjson.encode({at, labels, entry[4]}))
      redis.call('PEXPIRE', base .. 'parts:' .. whole, ARGV[1])
    end
    add(at, labels, entry[4], 1)
  end
end
return new
