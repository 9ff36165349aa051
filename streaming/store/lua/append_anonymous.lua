-- Append one entry that belongs to no registered run (write_chunk, write_completion).
--
-- KEYS  1 stream
-- ARGV  1 TTL (ms)  2 wake-up channel  3 bytes up to which the wake-up carries the entry itself (0: never)
--       then field, value ...
-- returns the entry's id
local stream, ttl, carried = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[3])
local size, before, is_over = 0, '0-0', false
for i = 4, #ARGV, 2 do
  size = size + #ARGV[i] + #ARGV[i + 1]
  is_over = is_over or ARGV[i] == 'done' or ARGV[i] == 'error'
end
local carries = size <= carried
-- The wake-up is the one that append.lua sends: the newest entry before this, then id and fields.
if carries then
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if newest then before = newest[1] end
end
local fields = {unpack(ARGV, 4)}
local id = redis.call('XADD', stream, '*', unpack(fields))
-- As append.lua does; where the TTL may not be asked for (ACL), with each chunk.
local left = is_over and 0 or redis.pcall('PTTL', stream)
if type(left) ~= 'number' or left < ttl * 0.9 or left > ttl then redis.call('PEXPIRE', stream, ttl) end
redis.call('PUBLISH', ARGV[2], carries and cjson.encode({before, id, fields}) or id)
return id
