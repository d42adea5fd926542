-- The limits of a gateway's key, for all processes that serve it: requests and tokens of the last minute, and calls at a
-- time. The server's clock is the only one; `ledger/rates.py` has the same rules for one process.
--
-- KEYS: the calls of the last minute by their time, the tokens of each, the sums, and the running calls by the end of
-- their lease; all with the hash tag of the key.
-- ARGV[1]: JSON. `calls`: what happened meanwhile, as [id, age in seconds, tokens, 1 if it runs]; `want`: the call that
-- asks to begin, as [id, tokens]; `limits`: [requests, tokens, calls at a time], -1 for none.

local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local ask = cjson.decode(ARGV[1])
local window, amounts, sums, running = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local WINDOW_S = 60   -- the limits are for a minute
local LEASE_S = 15    -- a process that renews nothing for so long is dead: three renewals
local KEPT_S = 300    -- of keys without calls: windows and leases are over long before
local BUSY_S = 1      -- as in `ledger/rates.py`
local CHUNK = 100     -- entries that are read at a time

local function exact(number)  -- tostring() has 14 digits only, and a moment in microseconds has 16
    return string.format('%.6f', number)
end

local function whole(number)
    return string.format('%d', number)
end

local function sum(name)
    return tonumber(redis.call('HGET', sums, name) or 0)
end

local function tokens_of(id)
    return tonumber(redis.call('HGET', amounts, id) or 0)
end

local function add(id, at, tokens)
    redis.call('ZADD', window, exact(at), id)
    redis.call('HSET', amounts, id, whole(tokens))
    redis.call('HINCRBY', sums, 'requests', 1)
    redis.call('HINCRBY', sums, 'tokens', whole(tokens))
end

local function forget()
    local limit = exact(now - WINDOW_S)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', window, '-inf', limit)) do
        redis.call('HINCRBY', sums, 'requests', -1)
        redis.call('HINCRBY', sums, 'tokens', whole(-tokens_of(id)))
        redis.call('HDEL', amounts, id)
    end
    redis.call('ZREMRANGEBYSCORE', window, '-inf', limit)
    redis.call('ZREMRANGEBYSCORE', running, '-inf', exact(now))
end

local function report(id, age, tokens, runs)
    if redis.call('ZSCORE', window, id) then
        redis.call('HINCRBY', sums, 'tokens', whole(tokens - tokens_of(id)))
        redis.call('HSET', amounts, id, whole(tokens))
    elseif age < WINDOW_S then
        add(id, now - age, tokens)
    end
    if runs == 1 then
        redis.call('ZADD', running, exact(now + LEASE_S), id)
    else
        redis.call('ZREM', running, id)
    end
end

-- Return the seconds until an amount fits; 0 if it does now. One above the limit fits an empty window.
local function wait_for(limit, used, amount, weigh)
    local excess = used + math.min(amount, limit) - limit
    local from = 0
    while limit >= 0 and excess > 0 do
        local entries = redis.call('ZRANGE', window, from, from + CHUNK - 1, 'WITHSCORES')
        if #entries == 0 then
            return 0
        end
        for at = 1, #entries, 2 do
            excess = excess - weigh(entries[at])
            if excess <= 0 then
                return math.max(entries[at + 1] + WINDOW_S - now, 0.001)
            end
        end
        from = from + CHUNK
    end
    return 0
end

local function refusal(tokens)
    if ask.limits[3] >= 0 and redis.call('ZCARD', running) >= ask.limits[3] then
        return 'calls', BUSY_S
    end
    local wait = wait_for(ask.limits[1], sum('requests'), 1, function() return 1 end)
    if wait > 0 then
        return 'requests', wait
    end
    wait = wait_for(ask.limits[2], sum('tokens'), tokens, tokens_of)
    return wait > 0 and 'tokens' or '', wait
end

forget()
for _, call in ipairs(ask.calls) do
    report(call[1], call[2], call[3], call[4])
end

local kind, wait = '', 0
if ask.want and not redis.call('ZSCORE', window, ask.want[1]) then  -- it is there if the reply to it was lost
    kind, wait = refusal(ask.want[2])
    if kind == '' then
        add(ask.want[1], now, ask.want[2])
        redis.call('ZADD', running, exact(now + LEASE_S), ask.want[1])
    end
end
for _, key in ipairs(KEYS) do
    redis.call('EXPIRE', key, KEPT_S)
end

local newest = redis.call('ZRANGE', window, -1, -1, 'WITHSCORES')
local reset = newest[2] and newest[2] + WINDOW_S - now or 0
return cjson.encode({ kind = kind, wait = wait, used = { sum('requests'), sum('tokens') }, reset = reset })
