-- The limits that several processes share: one atomic exchange of a process with the server. `messages.py` builds the
-- request and reads the reply; `../rate_limit.py` explains the algorithm, of which this is the shared form.
--
-- KEYS: the shared state of each credential (a cmsgpack map), all with the hash tag of the credential.
-- ARGV[1]: the request as JSON, ARGV[2]: the configuration of a process that joins, as JSON; empty otherwise.
--
-- The server's clock is the only one. All moments of a reply are relative to its `now`.

local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local ask = cjson.decode(ARGV[1])
local joins = ARGV[2] ~= '' and cjson.decode(ARGV[2]) or nil

local LEASE_S = 15            -- a process that sends nothing for so long is dead: three heartbeats
local KEPT_S = 3600           -- the state of a credential that no process uses; limits per minute are long full by then
local GRACE_S = 3             -- after an outage: each process has tried again three times by then
local OUTAGE_S = 1.5          -- without any exchange while a process failed to reach the server: an outage for all
local SKEW_S = 0.1            -- a request cannot be older than its sender's clock, scheduling delays excepted
local JITTER_S = 1.0          -- assumed until it is measured, for a period of a minute
local SAMPLES_NEEDED = 50     -- the maximum of fewer delays is likely to be exceeded soon
local CLOCK_MARGIN = 0.0005   -- the provider's clock and the server's may differ in speed
local LONGEST_PACED_S = 600
local BUCKETS = 240           -- of a window of tokens: a quarter of a second for a minute
local WINDOW_SPEEDUP = 1.05
local RATE_DECREASE, LEAST_RATE, RECOVERY = 0.9, 0.05, 0.01
local GUESS_GROWTH, GUESS_GROWTH_BY_SUCCESS, MOST_GROWTH = 1.5, 1.005, 1000
local BURST_DECREASE, LEAST_BURST = 0.5, 1 / 16
local SURE_DEVIATIONS = 3.5
local INVITED_S = 0.6         -- a place is kept for the process that has waited longest; it asks again within this time
local GUESS_NEEDS = 5
local PAUSE_S = 1.0
local OVERLOAD_DECREASE = 0.7
local BATCH_RUN = 4           -- of five slots far ahead, one is kept for interactive calls
local NEAR_S, NEAR_SLOTS = 1.0, 6  -- kept slots that come so soon are open to batches: about one process asks per slot
local LAST_SLOTS = 2          -- and these to all, before they are lost
local LENGTHS_KEPT = 128      -- samples of lengths: some seconds of them, so that a process that exchanges rarely misses few
local RECENT_S = 60           -- slots are kept for so long after an interactive call; also the time of equal shares

local states = {}

local function new_id()
  return string.format('%.6f', now)
end

-- One limit

local function rate_share(l)
  if l.cut == 0 then return 1 end
  local periods = (now - l.cut) / l.period
  if l.guess then return math.min(l.rate * GUESS_GROWTH ^ math.min(periods, 100), MOST_GROWTH) end
  return math.min(1, l.rate + RECOVERY * math.floor(periods))
end

local function burst_share(l)
  if l.cut == 0 then return 1 end
  return math.min(1, l.burst_share * 2 ^ math.min(math.floor((now - l.cut) / (10 * l.period)), 10))
end

-- How long after its slot a request may arrive, as it is measured now; assumed while there is no measurement.
local function lateness(s, l)
  return s.jitter or JITTER_S * math.min(1, l.period / 60)
end

-- The margin of a limit for that.
local function jitter(s, l)
  return l.margin or lateness(s, l)
end

-- A longer lateness applies at once, and a gap makes up for the slots of the last period, whose margin is smaller. A
-- shorter one applies a period later, when all requests that may have been so late are out of the window.
local function adapt_margin(s, l)
  local late = lateness(s, l)
  if not l.margin or late >= l.margin then
    if l.margin and not l.window then l.tat = l.tat + late - l.margin end
    l.margin, l.since, l.lower = late, now, 0
  else
    l.lower = l.is_assumed and late or math.max(l.lower, late)
    if l.is_assumed or now >= l.since + math.min(l.period, LONGEST_PACED_S) then
      l.margin, l.since, l.lower = l.lower, now, late
    end
  end
  l.is_assumed = not s.jitter or nil
end

local function burst_s(l)
  return l.burst * l.paced / l.period * burst_share(l)
end

local function spacing(s, l)
  if l.fixed then return l.fixed.open / l.fixed.amount * s.slow end
  local each = l.period / (l.amount * rate_share(l)) * s.slow
  if l.window and l.paced == l.period then return each / WINDOW_SPEEDUP end
  return each * (1 + math.min(1, (jitter(s, l) + burst_s(l)) / l.paced) + CLOCK_MARGIN)
end

local function tokens_of(l, input, output)
  return l.dimension == 'input_tokens' and input or l.dimension == 'output_tokens' and output or input + output
end

local function units_of(l, input, output)
  return math.min(l.dimension == 'requests' and 1 or tokens_of(l, input, output), l.amount)
end

-- The window of a limit of tokens: the sums of short intervals, from `first` on.

local function bucket_of(l, moment)
  return math.floor(moment * BUCKETS / l.period)
end

local function forget(l, before)
  local w, oldest = l.window, bucket_of(l, before)
  local gone = 0
  while gone < #w.sums and w.first + gone < oldest do
    gone = gone + 1
    w.total = w.total - w.sums[gone]
  end
  if gone > 0 then
    local kept = {}
    for place = gone + 1, #w.sums do kept[place - gone] = w.sums[place] end
    w.sums, w.first = kept, w.first + gone
  end
  if #w.sums == 0 then w.total = 0 end
end

local function add_units(l, moment, units)
  local w, bucket = l.window, bucket_of(l, moment)
  if #w.sums == 0 then w.first = bucket end
  if bucket < w.first then return end  -- it no longer counts
  for place = #w.sums + 1, bucket - w.first + 1 do w.sums[place] = 0 end
  w.sums[bucket - w.first + 1] = w.sums[bucket - w.first + 1] + units
  w.total = w.total + units
end

local function fill(l)
  -- After an outage: as if the whole limit had been used evenly, so that it comes back evenly.
  local reach = l.period + 1
  l.window = { first = bucket_of(l, now - reach), sums = {}, total = 0 }
  local each = l.amount / BUCKETS
  for place = 1, bucket_of(l, now) - l.window.first do l.window.sums[place] = each end
  l.window.total = each * #l.window.sums
end

local function room_at(s, l, most)
  local reach = l.period + jitter(s, l)
  forget(l, now - reach)
  local over, moment = l.window.total - most, now
  for place = 1, #l.window.sums do
    if over <= 0 then break end
    over = over - l.window.sums[place]
    moment = math.max(now, (l.window.first + place) * l.period / BUCKETS + reach)
  end
  return moment
end

local function room_in_fixed(l, moment)
  local f = l.fixed
  local most = math.max(1, math.floor(f.amount * rate_share(l)) - math.floor(f.amount * 0.003))
  local closed = 0.9 * (f.length - f.open)
  local parts = math.ceil(l.period / f.length)
  while true do
    local index = math.floor((moment - f.at) / f.length + 1e-9)
    if moment > f.at + index * f.length + f.open then
      index = index + 1
      moment = f.at + index * f.length
    end
    local counted = math.floor((moment - f.at + closed) / f.length)
    local inside, whole = f.counts[tostring(counted)] or 0, 0
    for each = counted - parts + 1, counted do whole = whole + (f.counts[tostring(each)] or 0) end
    if inside < most and whole < l.amount then return moment end
    moment = f.at + (index + 1) * f.length
  end
end

local function earliest(s, l, units, overrun)
  if l.void then return now end
  local moment = math.max(now, l.closed, l.tat - burst_s(l))
  if l.fixed then return room_in_fixed(l, moment) end
  if not l.window then return moment end
  return math.max(moment, room_at(s, l, l.amount * rate_share(l) - units - overrun))
end

local function worth(l, units, each)
  return math.min(units * each, 1.1 * l.period)
end

local function charge(s, l, units, expected, slot)
  if l.tat < slot then l.forward = 0 end
  local burst = burst_s(l)
  local unused = (l.tat < slot - burst and not l.window and l.period <= LONGEST_PACED_S and not l.wanted) and burst or 0
  local from, slow = math.max(l.tat, slot + unused), worth(l, expected, spacing(s, l))
  l.tat = from + slow
  if s.slow > 1 then  -- no slot after the slow time waits for its sake
    l.tat = math.max(from + slow / s.slow, math.min(l.tat, s.slow_until))
  end
  if l.window then add_units(l, slot, units) end
  if l.fixed then
    local index = math.floor((slot - l.fixed.at + 0.9 * (l.fixed.length - l.fixed.open)) / l.fixed.length)
    l.fixed.counts[tostring(index)] = (l.fixed.counts[tostring(index)] or 0) + 1
    l.fixed.counts[tostring(index - 2 * math.ceil(l.period / l.fixed.length))] = nil
  end
end

local function new_limit(dimension, period, amount, burst, is_firm)
  local paced = period <= LONGEST_PACED_S
  local window = paced and dimension ~= 'requests' or nil
  local share = not paced and 1 or window and 1 / 120 or 1 / 600
  return {
    dimension = dimension, period = period, amount = amount, ceiling = is_firm and amount or nil, tat = 0, closed = 0,
    cut = 0, rate = 1, burst_share = 1, in_a_row = 0, moved = 0, forward = 0, paced = period,
    burst = burst or period * share, wanted = burst and true or nil,
    window = window and { first = 0, sums = {}, total = 0 } or nil,
  }
end

local function find(g, dimension, period)
  for _, l in ipairs(g.limits) do
    if l.dimension == dimension and l.period == period then return l end
  end
end
