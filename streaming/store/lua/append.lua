-- Append a batch of entries to one attempt of a run: fence, dedupe, XADD, state, TTL, wake-up.
-- The whole of exactly-once is here: nobody else adds entries to a registered run but settle and begin,
-- which advance the same counter.
--
-- KEYS  1 stream  2 run state (hash)  3 runs of the conversation
-- ARGV  1 run id  2 attempt  3 owner of the attempt  4 sequence of the batch's first entry  5 TTL (ms)
--       6 wake-up channel  7 terminal status, or ''  8 number of entries
--       9 bytes up to which the wake-up carries the entries themselves (0: never)  10 lease (ms)
--       then for each entry: n, followed by n strings: field, value, field, value ...
--       (the first pair is text; a terminal entry is the batch's last)
-- returns  {'ok', cancel requested (0|1), lease renewed (0|1), id, id ...}
--                              ids of all entries, those stored before included
--          {'lost'}            there is no such run, or no such attempt, or its stream was deleted
--          {'fenced', attempt} somebody else has taken over
--          {'ended', status}   the run has its terminal
--          {'gap', sequence}   the batch leaves a hole; sequence is the one expected

-- From so many entries on it is asked whether anybody listens, before they are told: less than a twentieth of what
-- telling takes, and many runs have no reader.
local UNHEARD_FROM = 4

local stream, state = KEYS[1], KEYS[2]
local run, attempt, owner, first = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local ttl, channel, terminal, count = tonumber(ARGV[5]), ARGV[6], ARGV[7], tonumber(ARGV[8])
local carried, lease = tonumber(ARGV[9]), tonumber(ARGV[10])

-- Whether a tenth of a key's TTL has passed. Where that may not be asked (ACL), it has.
local function is_due(key, ttl)
  local left = redis.pcall('PTTL', key)
  return type(left) ~= 'number' or left < ttl * 0.9 or left > ttl
end

local held = redis.call('HMGET', state, 'attempt', 'next', 'status', 'cancel', 'owner', 'lease')
if not held[1] then return {'lost'} end
local current, next_sequence, status = tonumber(held[1]), tonumber(held[2]), held[3]
-- Attempts only grow, so a lower one is a state from before this attempt (failed over), and one without an
-- owner was made known again after a flush. After a flush two executions may have the same number.
if current < attempt or (current == attempt and not held[5]) then return {'lost'} end
if current > attempt or held[5] ~= owner then return {'fenced', current} end

local stored = math.max(0, math.min(next_sequence - first, count))
if status ~= 'running' then
  -- Fine only for the batch that ended the run itself. Settle's terminal has taken the place of an entry.
  local is_repeated = terminal == status and first + count == next_sequence
  if not is_repeated then return {'ended', status} end
end
if first > next_sequence then return {'gap', next_sequence} end

-- Ids of entries that a repeated batch (its reply was lost) finds stored: a walk from the newest back.
local function stored_ids(reply)
  local newest = '+'
  while true do
    local page = redis.call('XREVRANGE', stream, newest, '-', 'COUNT', 200)
    for _, entry in ipairs(page) do
      local of = {}
      for i = 1, #entry[2], 2 do of[entry[2][i]] = entry[2][i + 1] end
      if of['run'] == run and tonumber(of['attempt'] or '1') == attempt then
        local sequence = tonumber(of['sequence'])
        if sequence < first + stored and sequence >= first then reply[sequence - first + 4] = entry[1] end
        if sequence <= first then return end
      end
    end
    if #page < 200 then return end
    newest = '(' .. page[#page][1]
  end
end

local reply = {'ok', held[4] and 1 or 0, 0}
if stored > 0 then
  for i = 1, stored do reply[i + 3] = '' end
  stored_ids(reply)
end

-- The counter first: were it refused (ACL) after the entries, a repeated batch would add them again.
if stored < count then redis.call('HSET', state, 'next', first + count) end
local at, last_id, refused = 11, nil, nil
-- The wake-up: the stream's newest entry before these, then id, fields, id, fields ... A reader whose newest entry
-- is another has missed something, and reads the stream.
local message, size = {'0-0'}, 0
-- What the script adds to each entry.
local added = #'sequence' + #'run' + #run + (attempt > 1 and #'attempt' + #ARGV[2] or 0)
if count >= UNHEARD_FROM and carried > 0 then
  local listening = redis.pcall('PUBSUB', 'NUMSUB', channel)
  if listening[2] == 0 then carried = 0 end
end
if stored < count and carried > 0 then
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if newest then message[1] = newest[1] end
end
for i = 0, count - 1 do
  local n = tonumber(ARGV[at])
  if i >= stored then
    local sequence = string.format('%.0f', first + i)
    local fields = {ARGV[at + 1], ARGV[at + 2], 'sequence', sequence}
    size = size + #ARGV[at + 1] + #ARGV[at + 2] + #sequence + added
    for j = 3, n do
      local field = ARGV[at + j]
      fields[j + 2] = field
      size = size + #field
    end
    fields[n + 3], fields[n + 4] = 'run', run
    if attempt > 1 then fields[n + 5], fields[n + 6] = 'attempt', ARGV[2] end
    local id
    if next_sequence == 0 then
      id = redis.pcall('XADD', stream, '*', unpack(fields))
    else
      -- Where entries were stored there is a stream; one that was deleted must not begin with a hole.
      id = redis.pcall('XADD', stream, 'NOMKSTREAM', '*', unpack(fields))
    end
    if type(id) ~= 'string' then
      redis.call('HSET', state, 'next', first + i)
      refused = id or {'lost'}
      break
    end
    last_id = id
    reply[i + 4] = id
    if carried > 0 and size <= carried then
      message[#message + 1] = id
      message[#message + 1] = fields
    end
  end
  at = at + n + 1
end

if last_id or stored == count then
  -- An id begins with the time. To ask for it for each chunk would cost a twentieth of all this.
  local now = last_id and tonumber(string.match(last_id, '^%d+'))
  local is_over = last_id and terminal ~= '' and not refused
  if is_over then
    redis.call('HSET', state, 'status', terminal, 'terminal', last_id, 'ended', string.format('%.0f', now))
    redis.call('HDEL', state, 'lease')
  end
  -- Lease and TTLs are renewed a few times in the time that they last: to do it for each chunk would cost as
  -- much as to store it.
  local renewed = tonumber(held[6]) and tonumber(held[6]) - lease
  if not now or next_sequence == 0 or is_over or not renewed
    or now < renewed or now - renewed >= math.min(lease / 5, ttl / 10) then
    if not is_over and status == 'running' then
      -- Not by the id: one that a foreign program has set may lie ahead of the clock.
      local time = redis.call('TIME')
      redis.call('HSET', state, 'lease', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + lease))
      reply[3] = 1
    end
    for _, key in ipairs(KEYS) do
      if is_over or is_due(key, ttl) then redis.call('PEXPIRE', key, ttl) end
    end
  end
  local carries = last_id and carried > 0 and size <= carried
  redis.call('PUBLISH', channel, carries and cjson.encode(message) or last_id or reply[count + 3])
end
return refused or reply
