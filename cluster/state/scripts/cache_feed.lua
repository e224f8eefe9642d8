-- Adds changes of stored answers to the feed. They are numbered without gaps, so that a reader sees what it has missed.
--
-- KEYS[1]: the stream. KEYS[2]: the number of the last change. ARGV[1]: the most changes that are kept; then one JSON
-- document for each change.

local function add(number, change)
  return redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], string.format('%.0f', number) .. '-0', 'c', change)
end

for place = 2, #ARGV do
  local number = redis.call('INCR', KEYS[2])
  local added = add(number, ARGV[place])
  if added.err then -- the number was lost, such as by eviction, and the stream was not: readers see a gap, and begin anew
    redis.call('DEL', KEYS[1])
    added = add(number, ARGV[place])
    if added.err then return added end
  end
end
return #ARGV - 1
