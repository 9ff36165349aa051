-- Renew a run's lease, and where it is due the TTL of all its keys, also while it is silent.
--
-- KEYS  1 stream  2 runs of the conversation  3 run state (hash)
-- ARGV  1 attempt (0: not begun)  2 TTL (ms)  3 lease (ms)
-- returns {status, attempt, cancel requested (0|1), owner ('': not begun)}, or {'lost'}

-- As append.lua's. (-2: there may be no stream yet.)
local function is_due(key, ttl)
  local left = redis.pcall('PTTL', key)
  return type(left) ~= 'number' or (left ~= -2 and left < ttl * 0.9) or left > ttl
end

local held = redis.call('HMGET', KEYS[3], 'status', 'attempt', 'cancel', 'owner')
if not held[1] then return {'lost'} end
local active = held[1] == 'pending' or held[1] == 'running'
-- A lower attempt is a state from before ours (a failover lost it): its next entries tell.
if active and tonumber(held[2]) <= tonumber(ARGV[1]) then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[3], 'lease',
    string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])))
  local ttl = tonumber(ARGV[2])
  for _, key in ipairs(KEYS) do
    if is_due(key, ttl) then redis.call('PEXPIRE', key, ttl) end
  end
end
return {held[1], tonumber(held[2]), held[3] and 1 or 0, held[4] or ''}
