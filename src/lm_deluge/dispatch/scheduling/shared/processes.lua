-- Processes

local function alive(s)
  local count = 0
  for _ in pairs(s.processes) do count = count + 1 end
  return count
end

local function give_back(g, slot)
  local is_paced = false
  for _, l in ipairs(g.limits) do is_paced = is_paced or l.dimension == 'requests' end
  if slot <= now or not is_paced then return end
  local place = #g.free
  while place > 0 and g.free[place] > slot do place = place - 1 end
  table.insert(g.free, place + 1, slot)
end

local function drop_dead(s)
  for id, each in pairs(s.processes) do
    if each.seen < now - LEASE_S and id ~= ask.id then
      for name, slots in pairs(each.held) do
        if s.groups[name] then
          for _, slot in ipairs(slots) do give_back(s.groups[name], slot) end
        end
      end
      s.processes[id] = nil
    end
  end
end

local function busy(s, name)
  local sum = 0
  for _, each in pairs(s.processes) do sum = sum + (each.busy[name] or 0) end
  return sum
end

local function measure_jitter(s)
  local samples, longest = 0, 0
  for _, each in pairs(s.processes) do
    samples, longest = samples + each.delays[1], math.max(longest, each.delays[2])
  end
  if samples >= SAMPLES_NEEDED then s.jitter = longest end
end

local function restart(s, id, mine)
  local is_clock_new = ask.clock == 1 or now < s.seen
  s.slow_until, s.expected = now + GRACE_S, math.max(mine.n, alive(s))
  s.id, s.processes, s.is_cautious = id, {}, true
  for _, g in pairs(s.groups) do
    g.free, g.waiting, g.invited = {}, {}, {}
    if is_clock_new then g.closed = g.closed > s.seen and now + g.closed - s.seen or 0 end
    for _, l in ipairs(g.limits) do
      if is_clock_new then
        l.closed = l.closed > s.seen and now + l.closed - s.seen or 0
        l.cut = l.cut > 0 and now or 0
        l.fixed = nil
      end
      -- Slots that were reserved before are used all the same. Where they are forgotten, each process may have one.
      local reserved = is_clock_new and now + l.tat - s.seen - ask.away or l.tat
      if l.tat == 0 then reserved = now + math.min(mine.n * spacing(s, l), l.period) - ask.away end
      l.tat = math.max(now, l.closed, reserved)
      if l.window then fill(l) end
    end
  end
end

local function configure(s, config)
  for name, given in pairs(config) do
    local g = s.groups[name]
    local is_new = not g
    g = g or { limits = {}, closed = 0, free = {}, waiting = {}, invited = {}, starts = {}, run = 0, decreased = 0 }
    s.groups[name] = g
    local most = given.most > 0 and given.most or nil
    if most ~= g.most or is_new then g.most, g.allowed = most, most end
    for _, each in ipairs(given.limits) do
      local l = find(g, each[1], each[2])
      if not l then
        l = new_limit(each[1], each[2], each[3], each[4] > 0 and each[4] or nil, true)
        g.limits[#g.limits + 1] = l
      elseif l.ceiling ~= each[3] then
        l.ceiling, l.amount = each[3], each[3]
      end
    end
    if is_new then  -- what this process has learned before the server lost it
      for _, each in ipairs(given.learned) do
        local l = find(g, each[1], each[2])
        if not l then
          l = new_limit(each[1], each[2], each[3])
          g.limits[#g.limits + 1] = l
        end
        l.amount, l.named = math.min(each[3], l.ceiling or each[3]), true
        if each[4] < 1 then l.cut, l.rate = now, each[4] end
      end
      g.closed = given.closed > 0 and now + given.closed or 0
    end
  end
end

local function load(place, key)
  local mine, raw = ask.states[place], redis.call('GET', key)
  local s = raw and cmsgpack.unpack(raw)
  if s and mine.id ~= s.id and not joins then return nil end
  if not s then
    if not joins then return nil end
    s = { id = new_id(), seen = now, processes = {}, groups = {}, slow = 1 }
    configure(s, joins[place])
    if mine.id ~= '' then restart(s, s.id, mine) end
  else
    if ask.lost == 1 and mine.id ~= '' then
      if mine.id == s.id then
        if ask.clock == 1 or now - s.seen > OUTAGE_S or now < s.seen then
          restart(s, new_id(), mine)
        end
      elseif not s.is_cautious then
        restart(s, s.id, mine)  -- a new process found the server empty, and did not know of the others
      else
        s.expected = math.max(s.expected or 1, mine.n)
      end
    end
    if joins then configure(s, joins[place]) end
  end
  local me = s.processes[ask.id] or { held = {} }
  me.seen, me.busy, me.over, me.delays = now, mine.busy, mine.over, ask.delays
  for name, slots in pairs(me.held) do  -- those whose time has passed are used, or lost
    local kept = {}
    for _, slot in ipairs(slots) do if slot > now then kept[#kept + 1] = slot end end
    me.held[name] = #kept > 0 and kept or nil
  end
  s.processes[ask.id] = me
  drop_dead(s)
  measure_jitter(s)
  s.slow = 1
  if s.slow_until and now < s.slow_until then s.slow = math.max(1, s.expected / alive(s)) end
  s.seen = now
  for name, g in pairs(s.groups) do
    for _, l in ipairs(g.limits) do
      adapt_margin(s, l)
      l.paced = l.known_window or l.period
      for _, short in ipairs(ask.short) do  -- pace for a window that the host may have, where that costs little
        local price = (jitter(s, l) + l.burst * short / l.period * burst_share(l)) / short
        if l.dimension == 'requests' and not l.known_window and l.paced == l.period and short < l.period
          and l.period <= LONGEST_PACED_S and price <= 0.02
          and not ((l.most_remaining or 0) > 1.1 * l.amount * short / l.period + 1) then
          l.paced = short
        end
      end
    end
  end
  return s
end

