-- Delete a thread's trail, and mark its runs: what comes late of them is refused.
--
-- KEYS  1 events (stream)  2 runs (hash)  3 order of the runs (sorted set)  4 deleted runs (hash)
-- ARGV  1 TTL of the marks (ms), longer than a run may take  then each run that may still be in progress
-- returns  'ok'
local deleted = KEYS[4]
local gone = redis.call('ZREVRANGE', KEYS[3], 0, -1)
for i = 2, #ARGV do gone[#gone + 1] = ARGV[i] end
for _, run in ipairs(gone) do redis.call('HSET', deleted, run, 1) end
if #gone > 0 then redis.call('PEXPIRE', deleted, ARGV[1]) end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return 'ok'
