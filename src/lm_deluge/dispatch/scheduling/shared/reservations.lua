-- Reservations

local function overrun_of(s, name, l)
  if l.dimension == 'requests' then return 0 end
  local mean, variance, third = 0, 0, 0
  for _, each in pairs(s.processes) do
    local over = each.over[name] and each.over[name][l.dimension]
    if over then mean, variance, third = mean + over[1], variance + over[2], third + over[3] end
  end
  if variance == 0 then return mean end
  local skewed = (SURE_DEVIATIONS ^ 2 - 1) / 6 * third / variance
  return mean + SURE_DEVIATIONS * math.sqrt(variance) + math.max(0, skewed)
end

local function index_of(list, value)
  for place, each in ipairs(list) do if each == value then return place end end
end

local function has_place(s, g, name)
  if not g.allowed then return true end
  local used = busy(s, name)
  for id, at in pairs(g.invited) do
    if at < now - INVITED_S or not s.processes[id] then
      g.invited[id] = nil
    elseif id ~= ask.id then
      used = used + 1
    end
  end
  local is_in_turn = #g.waiting == 0 or g.invited[ask.id] or g.waiting[1] == ask.id
  if used + 1 <= g.allowed and is_in_turn then
    return true
  end
  if not index_of(g.waiting, ask.id) then g.waiting[#g.waiting + 1] = ask.id end
  return false
end

local function invite(s)
  for name, g in pairs(s.groups) do
    while g.allowed and #g.waiting > 0 do
      local invited = 0
      for id, at in pairs(g.invited) do if at >= now - INVITED_S and s.processes[id] then invited = invited + 1 end end
      if busy(s, name) + invited + 1 > g.allowed then break end
      local id = table.remove(g.waiting, 1)
      if s.processes[id] then
        g.invited[id] = now
      end
    end
  end
end

-- Slots of a process within about the last minute, compared with those of the others.
local function recent(me)
  return me.recent * math.exp((me.recent_at - now) / RECENT_S)
end

local function is_behind(s)
  local sum, count = 0, 0
  for _, each in pairs(s.processes) do
    local own = each.recent and recent(each) or 0
    if own > 0.01 then sum, count = sum + own, count + 1 end
  end
  local me = s.processes[ask.id]
  return count == 0 or not me.recent or recent(me) <= sum / count
end

local function note_slot(s)
  local me = s.processes[ask.id]
  me.recent, me.recent_at = 1 + (me.recent and recent(me) or 0), now
end

-- A kept slot, or one that was given back, before the next new one. A slot that no interactive call has taken goes to a
-- process that had fewer than the others, and shortly before it comes to any.
local function take_free(part, from, before, each, is_interactive)
  local g = part.g
  while #g.free > 0 and g.free[1] < now do table.remove(g.free, 1) end
  if #g.free == 0 then return nil end
  local last = now + LAST_SLOTS * each
  local near = is_behind(part.s) and now + math.max(NEAR_S, NEAR_SLOTS * each) or last
  for place, slot in ipairs(g.free) do
    if slot >= before or (slot > near and not is_interactive) then return nil end
    if slot >= from then return table.remove(g.free, place) end
  end
end

local function plan(parts, want)
  local requests, tokens, each = now, now, 0
  for _, part in ipairs(parts) do
    tokens = math.max(tokens, part.g.closed)
    for _, l in ipairs(part.g.limits) do
      local moment = earliest(part.s, l, units_of(l, want.input, want.output), overrun_of(part.s, part.name, l))
      if l.dimension == 'requests' then
        requests, each = math.max(requests, moment), math.max(each, spacing(part.s, l))
      else
        tokens = math.max(tokens, moment)
      end
      tokens = math.max(tokens, l.closed)
    end
  end
  return requests, tokens, each
end

local function charge_all(parts, want, slot, is_charged)
  local after = {}
  for _, part in ipairs(parts) do
    for _, l in ipairs(part.g.limits) do
      if not (is_charged and l.dimension == 'requests') then
        local units = units_of(l, want.input, want.output)
        charge(part.s, l, units, math.min(units, units_of(l, want.input, want.expected)), slot)
      end
      after[#after + 1] = l.tat - now
    end
    if #part.g.limits == 0 then
      local second = tostring(math.floor(slot))
      part.g.starts[second] = (part.g.starts[second] or 0) + 1
      part.g.starts[tostring(math.floor(slot) - 61)] = nil
    end
  end
  return after
end

local function reserve_one(parts, want, count)
  for _, part in ipairs(parts) do
    if not has_place(part.s, part.g, part.name) then return nil, 'full' end
  end
  local g = parts[#parts].g
  if want.interactive == 1 then g.interactive_until = now + RECENT_S end
  local requests, tokens, each = plan(parts, want)
  local slot = math.max(requests, tokens)
  local is_far = count > want.least and slot > now + want.horizon
  local free = each > 0 and take_free(parts[#parts], tokens, slot, each, want.interactive == 1)
  if free then
    slot = free
  elseif is_far then
    return nil, 'far'
  elseif each > 0 and want.interactive == 0 and now < (g.interactive_until or 0) and slot > now + math.max(NEAR_S, NEAR_SLOTS * each) then
    g.run = g.run + 1
    if g.run > BATCH_RUN then  -- keep this slot for interactive calls, and take the next one
      g.run = 0
      for _, part in ipairs(parts) do
        for _, l in ipairs(part.g.limits) do
          if l.dimension == 'requests' then charge(part.s, l, 1, 1, math.max(slot, l.tat - burst_s(l))) end
        end
      end
      give_back(g, slot)
      requests, tokens = plan(parts, want)
      slot = math.max(requests, tokens)
    end
  end
  local after = charge_all(parts, want, slot, free)
  note_slot(parts[#parts].s)
  for _, part in ipairs(parts) do
    local me = part.s.processes[ask.id]
    me.busy[part.name] = (me.busy[part.name] or 0) + 1
    part.g.invited[ask.id] = nil
  end
  local held = parts[#parts].s.processes[ask.id].held
  held[parts[#parts].name] = held[parts[#parts].name] or {}
  table.insert(held[parts[#parts].name], slot)
  return { slot - now, after }
end

local function parts_of(refs)
  local parts = {}
  for _, ref in ipairs(refs) do
    local s = states[ref[1]]
    parts[#parts + 1] = { s = s, g = s.groups[ref[2]], name = ref[2] }
  end
  return parts
end

local function reserve(want)
  local parts, slots, reason = parts_of(want.parts), {}, nil
  for count = 1, want.count do
    local slot
    local cost = count == 1 and want.cost or want.rest
    want.input, want.output, want.expected = cost[1], cost[2], cost[3]
    slot, reason = reserve_one(parts, want, count)
    if not slot then break end
    slots[count] = slot
  end
  return { slots = slots, reason = reason or '' }
end

-- `from` and `to`: input and output tokens, and the output by which the limits are paced.
local function correct(parts, slot, from, to)
  for _, part in ipairs(parts) do
    for _, l in ipairs(part.g.limits) do
      if l.dimension ~= 'requests' then
        local reserved, one = units_of(l, from[1], from[2]), spacing(part.s, l)
        local expected = math.min(reserved, units_of(l, from[1], from[3]))
        l.tat = l.tat + worth(l, tokens_of(l, to[1], to[3]), one) - worth(l, expected, one)
        if l.window then add_units(l, slot, tokens_of(l, to[1], to[2]) - reserved) end
      end
    end
  end
end

local function take_back(parts, slot, from)
  correct(parts, slot, from, { 0, 0, 0 })
  local last = parts[#parts]
  local held = last.s.processes[ask.id].held[last.name]
  for place, each in ipairs(held or {}) do
    if math.abs(each - slot) < 1e-4 then
      table.remove(held, place)
      give_back(last.g, slot)
      break
    end
  end
end

-- Samples of lengths for all processes, the last of them in a ring; a process gets those that came since its last one.
local function exchange_lengths(g, last, own)
  local all, found = g.lengths or { count = 0, ring = {} }, {}
  g.lengths = all
  if last > all.count then last = 0 end  -- the server has forgotten them
  for number = math.max(last, all.count - LENGTHS_KEPT) + 1, last < 0 and 0 or all.count do
    found[#found + 1] = all.ring[(number - 1) % LENGTHS_KEPT + 1]
  end
  for _, sample in ipairs(own) do
    all.ring[all.count % LENGTHS_KEPT + 1] = sample
    all.count = all.count + 1
  end
  return { all.count, found }
end

local function describe(s)
  local groups = {}
  for name, g in pairs(s.groups) do
    local limits = {}
    for place, l in ipairs(g.limits) do
      limits[place] = {
        l.dimension, l.period, l.amount, l.tat - burst_s(l) - now, math.max(0, l.closed - now), spacing(s, l), l.moved,
        rate_share(l), l.cut > 0 and 1 or 0, l.guess and 1 or 0, l.named and 1 or 0, l.ceiling and 1 or 0,
      }
    end
    local fixed
    for _, l in ipairs(g.limits) do
      if l.fixed then fixed = { l.period, l.fixed.at - now, l.fixed.length, l.fixed.open, l.fixed.amount } end
    end
    groups[name] = {
      fixed = fixed, free = g.free[1] and g.free[1] > now and g.free[1] - now or 0,
      limits = #limits > 0 and limits or nil, closed = math.max(0, g.closed - now), allowed = g.allowed,
      most = g.most, busy = g.allowed and busy(s, name) or 0,
    }
  end
  return { id = s.id, processes = alive(s), jitter = s.jitter, groups = groups }
end

-- The exchange

if ask.at > 0 and (now < ask.at - SKEW_S or now > ask.at + ask.age) and not joins then
  return cjson.encode({ error = 'late', now = new_id() })
end
for place, key in ipairs(KEYS) do
  states[place] = load(place, key)
  if not states[place] then return cjson.encode({ error = 'unknown', now = new_id() }) end
end
local answers = {}
for _, each in ipairs(ask.observed) do
  local s = states[each[1]]
  observe[each[3]](s, s.groups[each[2]], each)
end
for _, each in ipairs(ask.corrected) do correct(parts_of(each[1]), each[2], each[3], each[4]) end
for _, each in ipairs(ask.returned) do take_back(parts_of(each[1]), each[2], each[3]) end
for place, want in ipairs(ask.wanted) do answers[place] = reserve(want) end
local described, lengths = {}, {}
for place, each in ipairs(ask.lengths) do
  lengths[place] = exchange_lengths(states[each[1]].groups[each[2]], each[3], each[4])
end
for place, key in ipairs(KEYS) do
  local s = states[place]
  if ask.leaves == 1 then s.processes[ask.id] = nil end
  invite(s)
  described[place] = describe(s)
  redis.call('SET', key, cmsgpack.pack(s), 'EX', KEPT_S)
end
return cjson.encode({
  now = new_id(), states = described, answers = #answers > 0 and answers or nil, lengths = #lengths > 0 and lengths or nil,
})
