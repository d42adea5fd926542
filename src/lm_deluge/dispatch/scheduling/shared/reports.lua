-- What a process reports

local function refuse(l, sent, retry, is_baseline)
  if sent >= l.cut and not (l.fixed and sent < l.fixed.known) then
    local share = rate_share(l)
    l.burst_share = math.max(LEAST_BURST, burst_share(l) * BURST_DECREASE)
    l.rate, l.cut = math.max(LEAST_RATE, share * RATE_DECREASE), now
    l.in_a_row = l.in_a_row + 1
  end
  local in_a_row = l.in_a_row - (retry > 0 and 1 or 0)
  local until_ = retry
  if retry == 0 or in_a_row > 0 then
    until_ = math.max(retry, now + math.min(l.period, l.period / 60 * 2 ^ math.min(math.max(in_a_row - 1, 0), 6)))
  end
  l.closed = math.max(l.closed, until_)
  l.tat = math.max(l.tat, l.closed)
end

local observe = {}

function observe.refused(s, g, each)  -- sent, seconds to wait or -1, dimension or ''
  local sent, retry = each[4], each[5] >= 0 and now + each[5] or 0
  local named = {}
  if #g.limits == 0 then
    local first, count = now, 0
    for second, starts in pairs(g.starts) do
      local at = tonumber(second)
      if at > now - 60 then first, count = math.min(first, at), count + starts end
    end
    if count >= GUESS_NEEDS then
      g.limits[1] = new_limit('requests', 60, count * 60 / math.max(now - first, 1))
      g.limits[1].guess = true
    end
  end
  for _, l in ipairs(g.limits) do if l.dimension == each[6] then named[#named + 1] = l end end
  for _, l in ipairs(#named > 0 and named or g.limits) do refuse(l, sent, retry) end
  if #g.limits == 0 then g.closed = math.max(g.closed, now + PAUSE_S, retry) end
  g.free = {}
end

function observe.overloaded(s, g, each)  -- sent, requests in flight of the process
  if each[4] < g.decreased then return end
  g.decreased = now
  local used = math.max(1, busy(s, each[2]), each[5])
  g.allowed = math.max(1, OVERLOAD_DECREASE * math.min(g.allowed or used, used))
end

function observe.accepted(s, g, each)  -- sent of the last one, how many
  if g.allowed then
    for _ = 1, math.min(each[5], 100) do g.allowed = g.allowed + 1 / g.allowed end
    if g.allowed > (g.most or 1e6) then g.allowed = g.most end
  end
  for _, l in ipairs(g.limits) do
    if l.cut > 0 and each[4] > l.cut then
      l.in_a_row = 0
      if l.guess then l.rate = math.min(l.rate * GUESS_GROWTH_BY_SUCCESS ^ each[5], MOST_GROWTH) end
    end
  end
end

function observe.named(s, g, each)  -- dimension, period, amount
  local l = find(g, each[4], each[5])
  if not l then
    l = new_limit(each[4], each[5], each[6])
    g.limits[#g.limits + 1] = l
  end
  l.amount = math.min(each[6], l.ceiling or each[6])
  l.guess, l.named, l.void = nil, each[6] < (l.ceiling or math.huge), nil
end

function observe.withdrawn(s, g, each)  -- dimension, period
  for place, l in ipairs(g.limits) do
    if l.dimension == each[4] and l.period == each[5] then
      l.tat, l.named = 0, nil
      if l.ceiling then l.amount = l.ceiling else table.remove(g.limits, place) end
      return
    end
  end
end

function observe.aligned(s, g, each)  -- dimension, period, seconds to move, `moved` at the charge, most remaining
  local l = find(g, each[4], each[5])
  if not l or l.fixed then return end
  l.most_remaining = math.max(l.most_remaining or 0, each[8])
  local by = math.max(each[6] - (l.moved - each[7]), -l.forward)
  l.forward = math.min(l.forward + by, l.period)
  l.moved, l.tat = l.moved + by, l.tat + by
end

function observe.windows(s, g, each)  -- dimension, period, length or 0, opens in, open for, amount
  local l = find(g, each[4], each[5])
  if not l then return end
  l.known_window = each[6] > 0 and each[6] or nil
  if each[8] == 0 then
    l.fixed = nil
    return
  end
  local at, open, old = now + each[7], each[8], l.fixed
  if old and old.length == each[6] then  -- the part that both processes have found to be open
    local offset = (at - old.at + old.length / 2) % old.length - old.length / 2
    local from, till = math.max(0, offset), math.min(old.open, offset + open)
    if till - from >= 0.1 * old.length then
      old.open, old.amount = till - from, math.max(old.amount, each[9])
      old.at = old.at + from
    end
    return
  end
  l.fixed = { at = at, open = open, length = each[6], amount = each[9], known = now + each[6], counts = {} }
  l.cut = 0
end

