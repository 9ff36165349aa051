-- Take a registered run over for a new attempt. An older attempt is fenced off from here on; if it left
-- entries, a reset entry tells readers to discard them.
--
-- KEYS  1 stream  2 run state (hash)
-- ARGV  1 run id  2 owner: names this execution, so that a repeated call (its reply was lost) changes nothing
--       3 TTL (ms)  4 lease (ms)  5 wake-up channel  6 the reset entry's data (JSON)
--       7 '1': also a run that has ended, if its terminal is gone from the stream (deleted)
--       for an attempt whose acknowledged entries Redis has forgotten, to be written again ('' where none is):
--       8 its number  9 its owner  10 the time (Unix ms) after which no reader has an entry id
-- returns  {'ok', attempt, next sequence, cancel requested (0|1), time, registered at (Unix ms), trace}
--          {'ended', status}   the run has its terminal: it must not be executed again
--          {'fenced', attempt} the attempt to write again has been taken over by another
--          {'lost'}            there is no such run
local stream, state = KEYS[1], KEYS[2]
local run, owner, ttl, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local forgotten, newest_ms = tonumber(ARGV[8]), tonumber(ARGV[10])

local held = redis.call('HMGET', state, 'status', 'attempt', 'next', 'owner', 'cancel', 'started', 'terminal',
  'created', 'trace')
local status = held[1]
if not status then return {'lost'} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%.0f', now)
local attempt, next_sequence = tonumber(held[2]), tonumber(held[3])
local cancel = held[5] and 1 or 0
local is_over = status ~= 'pending' and status ~= 'running'
if is_over then
  local terminal = held[7] or '0-0'
  local is_lost = ARGV[7] == '1' and #redis.call('XRANGE', stream, terminal, terminal) == 0
  if not is_lost then return {'ended', status} end
elseif held[4] == owner then
  return {'ok', attempt, next_sequence, cancel, now_text, held[8] or now_text, held[9] or ''}
end
if forgotten then
  if attempt > forgotten or (attempt == forgotten and held[4] and held[4] ~= ARGV[9]) then
    return {'fenced', attempt}
  end
  attempt = forgotten
end

-- The state first: were it refused (ACL) after the reset, a repeated call would add another.
attempt = attempt + 1
local needs_reset = forgotten or next_sequence > 0
redis.call('HSET', state, 'status', 'running', 'attempt', attempt, 'next', needs_reset and 1 or 0, 'owner', owner,
  'started', held[6] or now_text, 'lease', string.format('%.0f', now + tonumber(ARGV[4])))
redis.call('PEXPIRE', state, ttl)
if needs_reset then
  local fields = {'text', '', 'sequence', 0, 'timestamp', now_text, 'type', 'reset', 'data', ARGV[6], 'run', run,
    'attempt', attempt}
  local id
  if forgotten and now <= newest_ms then
    -- Another server's clock is behind. Ids never go back, so all that follow are above this one.
    id = redis.pcall('XADD', stream, string.format('%.0f-0', newest_ms + 1), unpack(fields))
  end
  -- An id that is too low is refused: then the stream's own next one is high enough.
  if type(id) ~= 'string' then id = redis.pcall('XADD', stream, '*', unpack(fields)) end
  if type(id) ~= 'string' then
    redis.call('HSET', state, 'status', status, 'attempt', held[2], 'next', next_sequence, 'owner', held[4] or '')
    if not held[4] then redis.call('HDEL', state, 'owner') end
    return id
  end
  redis.call('PEXPIRE', stream, ttl)
  redis.call('PUBLISH', channel, id)
end
if is_over then redis.call('HDEL', state, 'terminal', 'ended') end
return {'ok', attempt, needs_reset and 1 or 0, cancel, now_text, held[8] or now_text, held[9] or ''}
