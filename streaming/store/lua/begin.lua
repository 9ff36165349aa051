-- Take a registered run over for a new attempt. An older attempt is fenced off from here on; if it left
-- entries, a reset entry tells readers to discard them.
--
-- KEYS  1 stream  2 run state (hash)
-- ARGV  1 run id  2 owner: names this execution, so that a repeated call (its reply was lost) changes nothing
--       3 TTL (ms)  4 lease (ms)  5 wake-up channel  6 the reset entry's data (JSON)
--       7 '1': also a run that has ended, if its terminal is gone from the stream (deleted)
-- returns  {'ok', attempt, next sequence, cancel requested (0|1)}
--          {'ended', status}  the run has its terminal: it must not be executed again
--          {'lost'}           there is no such run
local stream, state = KEYS[1], KEYS[2]
local run, owner, ttl, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[5]

local held = redis.call('HMGET', state, 'status', 'attempt', 'next', 'owner', 'cancel', 'started', 'terminal')
local status = held[1]
if not status then return {'lost'} end
local attempt, next_sequence = tonumber(held[2]), tonumber(held[3])
local cancel = held[5] and 1 or 0
if status ~= 'pending' and status ~= 'running' then
  local terminal = held[7] or '0-0'
  local is_lost = ARGV[7] == '1' and #redis.call('XRANGE', stream, terminal, terminal) == 0
  if not is_lost then return {'ended', status} end
  redis.call('HDEL', state, 'terminal', 'ended')
elseif held[4] == owner then
  return {'ok', attempt, next_sequence, cancel}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
attempt = attempt + 1
if next_sequence > 0 then
  local id = redis.call('XADD', stream, '*', 'text', '', 'sequence', 0, 'timestamp', string.format('%.0f', now),
    'type', 'reset', 'data', ARGV[6], 'run', run, 'attempt', attempt)
  redis.call('PEXPIRE', stream, ttl)
  redis.call('PUBLISH', channel, id)
  next_sequence = 1
end
redis.call('HSET', state, 'status', 'running', 'attempt', attempt, 'next', next_sequence, 'owner', owner,
  'started', held[6] or string.format('%.0f', now), 'lease', string.format('%.0f', now + tonumber(ARGV[4])))
redis.call('PEXPIRE', state, ttl)
return {'ok', attempt, next_sequence, cancel}
