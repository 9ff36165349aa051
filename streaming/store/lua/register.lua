-- Make a run known before its agent is told of it. Registering again changes nothing.
--
-- KEYS  1 stream  2 runs of the conversation (sorted set, in order of registration)  3 run state (hash)
-- ARGV  1 run id  2 agent  3 TTL (ms)  4 lease (ms)  5 runs to remember  6 wake-up channel
--       7 attempt: 0 for a new run; that of one in progress which Redis has forgotten (flushed, failed over).
--         Its next append then finds a gap, so its producer writes the run again.
--       8 W3C traceparent of what follows the request that started the run; '' where nothing is traced
-- returns {status, start}: where the run stands, and the entry id after which its entries come
local stream, runs, state = KEYS[1], KEYS[2], KEYS[3]
local run, ttl, attempt = ARGV[1], ARGV[3], tonumber(ARGV[7])

local held = redis.call('HMGET', state, 'status', 'start')
if held[1] then return {held[1], held[2]} end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
local start = newest[1] and newest[1][1] or '0-0'
-- Two runs of one millisecond, or a clock that stepped back, must not swap places.
local before = redis.call('ZREVRANGE', runs, 0, 0, 'WITHSCORES')
local score = now
if before[2] and tonumber(before[2]) >= now then score = tonumber(before[2]) + 1 end

local status = attempt > 0 and 'running' or 'pending'
redis.call('HSET', state, 'agent', ARGV[2], 'status', status, 'attempt', attempt, 'next', 0,
  'start', start, 'created', string.format('%.0f', now),
  'lease', string.format('%.0f', now + tonumber(ARGV[4])))
if ARGV[8] ~= '' then redis.call('HSET', state, 'trace', ARGV[8]) end
redis.call('ZADD', runs, string.format('%.0f', score), run)
redis.call('ZREMRANGEBYRANK', runs, 0, -1 - tonumber(ARGV[5]))
redis.call('PEXPIRE', state, ttl)
redis.call('PEXPIRE', runs, ttl)
redis.call('PEXPIRE', stream, ttl)
redis.call('PUBLISH', ARGV[6], start)
return {status, start}
