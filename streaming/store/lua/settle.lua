-- End a run whose producer is gone, or that was cancelled before it began. Fenced by the attempt that the
-- caller saw, and done once.
--
-- KEYS  1 stream  2 run state (hash)
-- ARGV  1 run id  2 attempt seen  3 TTL (ms)  4 wake-up channel  5 terminal status
--       6 how long after its lease a run is given up (ms); -1: at once, whatever its lease
--       7 '1': settle; '0': only say whether it would  8 lease (ms)
--       then the terminal entry's field, value ...
-- returns  {'settled', id} | {'lapsed'} | {'alive', id of the newest entry} | {'changed', attempt} | {'ended', status}
--          | {'lost'}
local stream, state = KEYS[1], KEYS[2]
local run, ttl = ARGV[1], ARGV[3]

local held = redis.call('HMGET', state, 'status', 'attempt', 'next', 'lease')
if not held[1] then return {'lost'} end
local status, attempt = held[1], tonumber(held[2])
if status ~= 'pending' and status ~= 'running' then return {'ended', status} end
if attempt ~= tonumber(ARGV[2]) then return {'changed', attempt} end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local patience = tonumber(ARGV[6])
local lease = tonumber(held[4] or '0')
-- One that reaches too far ahead was given before the clock stepped back: its owner, if alive, renews it soon.
local is_held = lease + patience >= now and lease <= now + tonumber(ARGV[8])
if patience >= 0 and is_held then
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  return {'alive', newest and newest[1] or '0-0'}
end
if ARGV[7] ~= '1' then return {'lapsed'} end

local fields = {'text', '', 'sequence', held[3], 'timestamp', string.format('%.0f', now)}
for i = 9, #ARGV do fields[#fields + 1] = ARGV[i] end
fields[#fields + 1] = 'run'
fields[#fields + 1] = run
if attempt > 1 then
  fields[#fields + 1] = 'attempt'
  fields[#fields + 1] = attempt
end
-- The state first: were it refused (ACL) after the terminal, a repeated call would add another.
redis.call('HSET', state, 'status', ARGV[5], 'next', tonumber(held[3]) + 1)
local id = redis.pcall('XADD', stream, '*', unpack(fields))
if type(id) ~= 'string' then
  redis.call('HSET', state, 'status', status, 'next', held[3])
  return id
end
redis.call('HSET', state, 'terminal', id, 'ended', string.format('%.0f', now))
redis.call('HDEL', state, 'lease')
redis.call('PEXPIRE', stream, ttl)
redis.call('PEXPIRE', state, ttl)
redis.call('PUBLISH', ARGV[4], id)
return {'settled', id}
