-- Adds records to the audit log of one tenant, if they follow its head: Redis has no SHA-256, so the router computes the
-- hashes, and this script refuses those that another router has overtaken.
--
-- KEYS[1]: the hash of the heads; each is the opening hash, the number of records and the last hash of a day, by its
-- number since the epoch; `last` is the newest day. ARGV: base of the tenant's names, now in milliseconds ("" for the
-- time of the server), milliseconds that records and that their ids are kept, the head that the records follow (day,
-- number, hash), then id and line of each. Returns 1 or 0 for added or not, the head after it, and the opening hash;
-- if it is 0, then the ids that were added before, too. Nothing is added while there is one.

if redis.replicate_commands then redis.replicate_commands() end -- Redis 6 needs it to write after it has read the time

local DAY_MS, GENESIS = 86400000, string.rep('0', 64)

local heads, base, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function head_of(day)
  local head = redis.call('HGET', heads, day)
  if not head then return nil end
  local opening, records, last = head:match('^(%x+) (%d+) (%x+)$')
  return opening, tonumber(records), last
end

local function id_key(id) return base .. 'audit-id:' .. id end

local day, last = math.floor(now / DAY_MS), tonumber(redis.call('HGET', heads, 'last') or 0)
if last > day then day = last end -- a clock that is set back begins no day again
local opening, records, head = head_of(day)
if not opening then
  local _, _, before = head_of(last)
  opening, records, head = before or GENESIS, 0, before or GENESIS
end

local answer = {0, string.format('%.0f %.0f %s', day, records, head), opening}
for place = 6, #ARGV, 2 do
  if redis.call('EXISTS', id_key(ARGV[place])) == 1 then answer[#answer + 1] = ARGV[place] end
end
if #answer > 3 or answer[2] ~= ARGV[5] then return answer end

local list = base .. 'audit:' .. string.format('%.0f', day)
for place = 6, #ARGV, 2 do
  redis.call('RPUSH', list, ARGV[place + 1])
  redis.call('SET', id_key(ARGV[place]), 1, 'PX', ARGV[4])
  records, head = records + 1, ARGV[place + 1]:sub(1, 64)
end
redis.call('PEXPIRE', list, ARGV[3])
redis.call('HSET', heads, day, string.format('%s %.0f %s', opening, records, head), 'last', day)
return {1, string.format('%.0f %.0f %s', day, records, head), opening}
