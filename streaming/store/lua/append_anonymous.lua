-- Append one entry that belongs to no registered run (write_chunk, write_completion).
--
-- KEYS  1 stream
-- ARGV  1 TTL (ms)  2 wake-up channel  then field, value ...
-- returns the entry's id
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PUBLISH', ARGV[2], id)
return id
