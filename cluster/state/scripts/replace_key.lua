-- Replaces what authentication reads of a key, if it is what the caller has read.
-- KEYS[1]: the record of the key. ARGV[1]: its document as it was read. ARGV[2]: the new one.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
