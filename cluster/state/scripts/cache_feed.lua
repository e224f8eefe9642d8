-- Adds changes of stored answers to the feed. They are numbered without gaps, so that a reader sees what it has missed.
--
-- KEYS[1]: the stream. KEYS[2]: the number of the last change. ARGV[1]: the most changes that are kept; then one JSON
-- document for each change.

for place = 2, #ARGV do
  local number = redis.call('INCR', KEYS[2])
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], string.format('%.0f', number) .. '-0', 'c', ARGV[place])
end
return #ARGV - 1
