"""What Redis runs on tallies and holds: each script is one step, whoever else asks meanwhile."""

REMEMBERED_SECONDS = 24 * 3600
"""How long a hold that is over is known by its name, so that a retry does not take anew."""

PICO = 10**12
# A hold is `state|tally|units|pico`. Holds whose time is over give their units back, and are
# remembered for a day; those that are over are forgotten then.
_PRELUDE = f"""
local PICO, REMEMBERED = {PICO}, {REMEMBERED_SECONDS * 1000}
local function value(key, whole, part)
  local kept = redis.call('HMGET', key, whole, part)
  return tonumber(kept[1]) or 0, tonumber(kept[2]) or 0
end
local function norm(u, p)
  if p >= PICO then return u + 1, p - PICO end
  if p < 0 then return u - 1, p + PICO end
  return u, p
end
local function text(number) return string.format('%.0f', number) end
local function held(key, du, dp)
  if redis.call('EXISTS', key) == 0 then return end
  local u, p = value(key, 'hu', 'hp')
  u, p = norm(u + du, p + dp)
  if u < 0 then u, p = 0, 0 end
  redis.call('HSET', key, 'hu', text(u), 'hp', text(p))
end
local function read(name)
  local kept = redis.call('HGET', KEYS[1], name)
  if not kept then return nil end
  local state, tally, u, p = string.match(kept, '^(%a)|(.*)|(%d+)|(%d+)$')
  return state, tally, tonumber(u), tonumber(p)
end
local function write(name, state, tally, u, p, ends)
  redis.call('HSET', KEYS[1], name, state .. '|' .. tally .. '|' .. text(u) .. '|' .. text(p))
  redis.call('ZADD', KEYS[2], ends, name)
end
local function lapse(prefix, now)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do
    local state, tally, u, p = read(name)
    if state == 'R' or state == 'C' then
      held(prefix .. tally, -u, -p)
      write(name, 'E', tally, u, p, now + REMEMBERED)
    else
      redis.call('HDEL', KEYS[1], name)
      redis.call('ZREM', KEYS[2], name)
    end
  end
end
local function is_cold(key)
  local gap = tonumber(redis.call('HGET', KEYS[3], 'gap')) or 0
  return (tonumber(redis.call('HGET', key, 's')) or -1) < gap
end
local function answer(key)
  local kept = redis.call('HMGET', key, 'u', 'p', 'hu', 'hp', 's')
  if not kept[1] or is_cold(key) then kept[1] = '' end
  return {{kept[1], kept[2] or '0', kept[3] or '0', kept[4] or '0', kept[5] or '0'}}
end
"""
# KEYS: holds, their ends, progress. ARGV: prefix, now in ms, then the names of tallies.
LOOK = (
    _PRELUDE
    + """
lapse(ARGV[1], tonumber(ARGV[2]))
local found = {}
for at = 3, #ARGV do found[at - 2] = answer(ARGV[1] .. ARGV[at]) end
return found
"""
)
# ARGV: prefix, now, tally, name of the hold, units, pico, state, end, at most (units, pico; empty
# for no limit), holds at most, ms to keep.
TAKE = (
    _PRELUDE
    + """
local prefix, now, tally, name = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local u, p = tonumber(ARGV[5]), tonumber(ARGV[6])
lapse(prefix, now)
local key = prefix .. tally
local state, of, ou, op = read(name)
if state then
  return {'KNOWN', state, of, text(ou), text(op), answer(prefix .. of)}
end
if is_cold(key) then return {'COLD'} end
if ARGV[9] ~= '' then
  local uu, up = value(key, 'u', 'p')
  local hu, hp = value(key, 'hu', 'hp')
  local tu, tp = norm(uu + hu, up + hp)
  tu, tp = norm(tu + u, tp + p)
  local lu, lp = tonumber(ARGV[9]), tonumber(ARGV[10])
  if tu > lu or (tu == lu and tp > lp) then return {'FULL', answer(key)} end
end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[11]) then return {'CROWDED'} end
held(key, u, p)
write(name, ARGV[7], tally, u, p, ARGV[8])
for _, each in ipairs({KEYS[1], KEYS[2], key}) do redis.call('PEXPIRE', each, ARGV[12]) end
return {'TAKEN', answer(key)}
"""
)
# ARGV: prefix, now, name, units, pico, new state (C or X), end. Only a reservation is finished.
FINISH = (
    _PRELUDE
    + """
local prefix, now, name = ARGV[1], tonumber(ARGV[2]), ARGV[3]
lapse(prefix, now)
local state, tally, ou, op = read(name)
if not state then return {'NONE'} end
local key, u, p = prefix .. tally, tonumber(ARGV[4]), tonumber(ARGV[5])
local function told(what) return {what, state, tally, text(ou), text(op), answer(key)} end
if state ~= 'R' and state ~= 'E' then return told('OVER') end
if ARGV[6] == 'X' then
  if state == 'R' then held(key, -ou, -op) end
  write(name, 'X', tally, ou, op, now + REMEMBERED)
else
  if state == 'R' then held(key, -ou, -op) end
  held(key, u, p)
  write(name, 'C', tally, u, p, ARGV[7])
end
return told('DONE')
"""
)
# ARGV: prefix, now, whether the tallies are new (1 or 0), ms to keep, number of names, the names,
# then per tally: name, units, pico, segment. A new one may have been counted just before a segment
# that nobody moves it on by: then it is refused.
SETTLE = (
    _PRELUDE
    + """
local prefix, now, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[5])
local begun = tonumber(redis.call('HGET', KEYS[3], 'begun')) or 0
for at = 6, 5 + count do
  local state, tally, u, p = read(ARGV[at])
  if state == 'R' or state == 'C' then held(prefix .. tally, -u, -p) end
  if state then write(ARGV[at], 'S', tally, u, p, now + REMEMBERED) end
end
for at = 6 + count, #ARGV, 4 do
  local key, segment = prefix .. ARGV[at], tonumber(ARGV[at + 3])
  if ARGV[3] == '1' and segment < begun then return 0 end
  if segment >= (tonumber(redis.call('HGET', key, 's')) or -1) then
    redis.call('HSET', key, 'u', ARGV[at + 1], 'p', ARGV[at + 2], 's', text(segment))
  end
  redis.call('PEXPIRE', key, ARGV[4])
end
return 1
"""
)
