-- Adds ledger entries of one tenant, each once.
--
-- KEYS[1]: the beginning of names of sums, KEYS[2...]: names of the documents of entries. ARGV[1]: milliseconds that a
-- document is kept. ARGV[2]: resolutions as JSON, each a name, its length and how long its sums are kept, in
-- milliseconds. ARGV[3...]: the entries as JSON: document, time in milliseconds, list of fields and amounts. Returns the
-- number of entries that were new.

local resolutions, new = cjson.decode(ARGV[2]), 0
for place = 2, #KEYS do
  local entry = cjson.decode(ARGV[place + 1])
  if redis.call('SET', KEYS[place], entry[1], 'NX', 'PX', ARGV[1]) then
    new = new + 1
    for _, resolution in ipairs(resolutions) do
      local start = math.floor(entry[2] / resolution[2]) * resolution[2]
      local index = KEYS[1] .. resolution[1]
      local sums = index .. ':' .. string.format('%.0f', start)
      for _, amount in ipairs(entry[3]) do redis.call('HINCRBY', sums, amount[1], amount[2]) end
      redis.call('PEXPIRE', sums, resolution[3])
      redis.call('ZADD', index, start, string.format('%.0f', start))
      redis.call('ZREMRANGEBYSCORE', index, '-inf', '(' .. string.format('%.0f', start - resolution[3]))
    end
  end
end
return new
