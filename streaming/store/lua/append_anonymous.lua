-- Append one entry that belongs to no registered run (write_chunk, write_completion).
--
-- KEYS  1 stream
-- ARGV  1 TTL (ms)  2 wake-up channel  3 bytes up to which the wake-up carries the entry itself (0: never)
--       then field, value ...
-- returns the entry's id
local stream, carried = KEYS[1], tonumber(ARGV[3])
local size, before = 0, '0-0'
for i = 4, #ARGV do size = size + #ARGV[i] end
local carries = size <= carried
-- The wake-up is the one that append.lua sends: the newest entry before this, then id and fields.
if carries then
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if newest then before = newest[1] end
end
local fields = {unpack(ARGV, 4)}
local id = redis.call('XADD', stream, '*', unpack(fields))
redis.call('PEXPIRE', stream, ARGV[1])
redis.call('PUBLISH', ARGV[2], carries and cjson.encode({before, id, fields}) or id)
return id
