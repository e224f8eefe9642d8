-- The collections of one tenant.
--
-- KEYS[1]: the hash from the names of collections to their uids. ARGV: operation, base of the tenant's names, arguments
-- of the operation. Names of other keys are composed here; all have the hash tag of KEYS[1].
--
-- Counts of a collection and the bytes of a tenant are kept beside the documents, so that no call reads all of them.

local names, base = KEYS[1], ARGV[2]
local bytes_key = base .. 'collection-bytes'
local function info_key(uid) return base .. 'collection:' .. uid end
local function bodies_key(uid) return base .. 'collection-bodies:' .. uid end
local function vectors_key(uid) return base .. 'collection-vectors:' .. uid end
local function sizes_key(uid) return base .. 'collection-sizes:' .. uid end
local function order_key(uid) return base .. 'collection-order:' .. uid end

local FIELDS = {'name', 'document', 'version', 'documents', 'chunks', 'bytes', 'embedded'}

local function record(uid)
  local found = redis.call('HMGET', info_key(uid), unpack(FIELDS))
  if not found[1] then return nil end
  table.insert(found, 2, uid)
  return found
end

local function count(uid, name) return tonumber(redis.call('HGET', info_key(uid), name)) end
local function add(uid, name, amount) return redis.call('HINCRBY', info_key(uid), name, amount) end

-- Returns chunks, bytes and 1 or 0 for vectors; nothing for a document that is not there.
local function size_of(uid, id)
  local found = redis.call('HGET', sizes_key(uid), id)
  if not found then return nil end
  local chunks, bytes = string.match(found, '^(%d+):(%d+)$')
  return tonumber(chunks), tonumber(bytes), redis.call('HEXISTS', vectors_key(uid), id)
end

local function remove(uid, id)
  local chunks, bytes, embedded = size_of(uid, id)
  if not chunks then return false end
  redis.call('HDEL', bodies_key(uid), id)
  redis.call('HDEL', vectors_key(uid), id)
  redis.call('HDEL', sizes_key(uid), id)
  redis.call('ZREM', order_key(uid), id)
  add(uid, 'documents', -1)
  add(uid, 'chunks', 0 - chunks) -- not -chunks: Lua writes -0
  add(uid, 'bytes', 0 - bytes)
  add(uid, 'embedded', 0 - embedded)
  redis.call('DECRBY', bytes_key, bytes)
  return true
end

local operations = {}

function operations.create(name, uid, document, limit)
  local found = redis.call('HGET', names, name)
  if found then return {found == uid and 'done' or 'exists'} end
  if redis.call('HLEN', names) >= tonumber(limit) then return {'full', 'collections', limit} end
  redis.call('HSET', names, name, uid)
  redis.call('HSET', info_key(uid), 'name', name, 'document', document, 'version', 0, 'documents', 0, 'chunks', 0,
    'bytes', 0, 'embedded', 0)
  return {'done'}
end

function operations.get(name)
  local uid = redis.call('HGET', names, name)
  return uid and record(uid)
end

function operations.list()
  local found = {}
  for _, uid in ipairs(redis.call('HVALS', names)) do
    found[#found + 1] = record(uid)
  end
  return found
end

function operations.drop(name)
  local uid = redis.call('HGET', names, name)
  if not uid then return 0 end
  redis.call('DECRBY', bytes_key, count(uid, 'bytes'))
  redis.call('HDEL', names, name)
  redis.call('UNLINK', info_key(uid), bodies_key(uid), vectors_key(uid), sizes_key(uid), order_key(uid))
  return 1
end

-- The documents follow as id, body, chunks, bytes; no id comes twice.
function operations.put(uid, max_documents, max_chunks, max_bytes, ...)
  if redis.call('EXISTS', info_key(uid)) == 0 then return {'gone'} end
  local rows = {...}
  local documents, chunks, bytes = 0, 0, 0
  for place = 1, #rows, 4 do
    local old_chunks, old_bytes = size_of(uid, rows[place])
    documents = documents + (old_chunks and 0 or 1)
    chunks = chunks + tonumber(rows[place + 2]) - (old_chunks or 0)
    bytes = bytes + tonumber(rows[place + 3]) - (old_bytes or 0)
  end
  local total = tonumber(redis.call('GET', bytes_key) or '0')
  if count(uid, 'documents') + documents > tonumber(max_documents) then return {'full', 'documents', max_documents} end
  if count(uid, 'chunks') + chunks > tonumber(max_chunks) then return {'full', 'chunks', max_chunks} end
  if total + bytes > tonumber(max_bytes) then return {'full', 'bytes', max_bytes} end
  for place = 1, #rows, 4 do
    local id = rows[place]
    remove(uid, id)
    redis.call('HSET', bodies_key(uid), id, rows[place + 1])
    redis.call('HSET', sizes_key(uid), id, rows[place + 2] .. ':' .. rows[place + 3])
    redis.call('ZADD', order_key(uid), add(uid, 'version', 1), id)
    add(uid, 'documents', 1)
    add(uid, 'chunks', rows[place + 2])
    add(uid, 'bytes', rows[place + 3])
    redis.call('INCRBY', bytes_key, rows[place + 3])
  end
  return {'done', record(uid)}
end

function operations.versions(uid)
  return redis.call('ZRANGE', order_key(uid), 0, -1, 'WITHSCORES')
end

function operations.read(uid, ...)
  local found = {}
  for _, id in ipairs({...}) do
    local version = redis.call('ZSCORE', order_key(uid), id)
    if version then
      local vectors = redis.call('HGET', vectors_key(uid), id)
      found[#found + 1] = {id, version, redis.call('HGET', bodies_key(uid), id), vectors}
    end
  end
  return found
end

function operations.remove(uid, id)
  if not remove(uid, id) then return 0 end
  add(uid, 'version', 1)
  return 1
end

function operations.vectors(uid, id, version, vectors)
  local found = redis.call('ZSCORE', order_key(uid), id)
  if not found or tonumber(found) ~= tonumber(version) then return 0 end
  add(uid, 'embedded', redis.call('HSET', vectors_key(uid), id, vectors))
  redis.call('ZADD', order_key(uid), add(uid, 'version', 1), id)
  return 1
end

return operations[ARGV[1]](unpack(ARGV, 3))
