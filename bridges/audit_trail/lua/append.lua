-- Append a batch of one execution's events to a thread's trail: refuse, dedupe, mark a hole, add, bound, TTL.
--
-- KEYS  1 events (stream)  2 runs (hash: owner:RUN next:RUN closed:RUN request:RUN)
--       3 order of the runs (sorted set)  4 deleted runs (hash)
-- ARGV  1 run  2 execution: of two the greater one began later  3 number of the batch's first event
--       4 TTL (ms)  5 TTL of a deleted run's mark (ms)  6 most events  7 the run's message, or ''
--       8 closes the run (0|1)  then for each event: timestamp, type, data (JSON)
-- returns  'ok'
--          'deleted'  the run was deleted
--          'closed'   the run has its last event
--          'fenced'   a later execution has the run
local events, runs, order, deleted = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local run, execution, first = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ttl, most, request = ARGV[4], tonumber(ARGV[6]), ARGV[7]
local count = (#ARGV - 8) / 3

if redis.call('HMGET', deleted, run)[1] then
  redis.call('PEXPIRE', deleted, ARGV[5])
  return 'deleted'
end
local held = redis.call('HMGET', runs, 'owner:' .. run, 'next:' .. run, 'closed:' .. run, 'request:' .. run)
if held[1] and held[1] > execution then return 'fenced' end
local next_number = held[1] == execution and tonumber(held[2]) or 0
if next_number >= first + count then return 'ok' end
if held[3] then return 'closed' end

local function add(timestamp, kind, data)
  redis.call('XADD', events, 'MAXLEN', most, '*', 'timestamp', timestamp, 'run', run, 'type', kind, 'data', data)
end

if not held[1] then
  local time = redis.call('TIME')
  -- Runs that begin in the same millisecond stay in their order.
  local newest = tonumber(redis.call('ZREVRANGE', order, 0, 0, 'WITHSCORES')[2] or '0')
  local at = math.max(time[1] * 1000 + math.floor(time[2] / 1000), newest + 1)
  redis.call('ZADD', order, string.format('%.0f', at), run)
end
-- The counter first: were it refused (ACL) after the events, a repeated batch would add them again.
redis.call('HSET', runs, 'owner:' .. run, execution, 'next:' .. run, string.format('%.0f', first + count))
if request ~= '' and not held[4] then redis.call('HSET', runs, 'request:' .. run, request) end
if ARGV[8] == '1' then redis.call('HSET', runs, 'closed:' .. run, 1) end

if first > next_number then
  add(ARGV[9], 'dropped', string.format('{"dropped": %.0f}', first - next_number))
end
for i = math.max(0, next_number - first), count - 1 do
  add(ARGV[9 + 3 * i], ARGV[10 + 3 * i], ARGV[11 + 3 * i])
end

-- Each run here has an event at least: older ones than so many have none left.
for _, old in ipairs(redis.call('ZREVRANGE', order, most, -1)) do
  redis.call('HDEL', runs, 'owner:' .. old, 'next:' .. old, 'closed:' .. old, 'request:' .. old)
end
redis.call('ZREMRANGEBYRANK', order, 0, -most - 1)
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ttl) end
return 'ok'
