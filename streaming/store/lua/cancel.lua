-- Ask a run to stop.
--
-- KEYS  1 run state (hash)
-- ARGV  1 channel that workers listen on  2 conversation id  3 run id
-- returns {status, attempt}, or {'lost'}
local held = redis.call('HMGET', KEYS[1], 'status', 'attempt')
if not held[1] then return {'lost'} end
if held[1] == 'pending' or held[1] == 'running' then
  redis.call('HSET', KEYS[1], 'cancel', 1)
  redis.call('PUBLISH', ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
end
return {held[1], tonumber(held[2])}
