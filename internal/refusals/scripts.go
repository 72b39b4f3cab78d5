package refusals

import "github.com/redis/go-redis/v9"

// A streak of refusals is named "<accepted>.<resets>": the number of payments of the gateway
// that the ledger had counted as accepted when the streak began, and the number of other
// successes that were reported by resetScript. Any success changes one of the numbers. So it
// ends the streak, and a pause that began with it, without a write.
//
// The scripts are idempotent: one whose reply was lost may be run again.

// countScript counts a refused payment, and pauses the gateway at the limit. A payment that
// is refused several times counts once.
//
//	KEYS[1] streak
//	KEYS[2] pause
//	ARGV[1] accepted payments, as counted by the ledger
//	ARGV[2] transaction id
//	ARGV[3] limit: the number of refused payments that pauses the gateway
//	ARGV[4] time to live of both keys (ms)
//	ARGV[5] probe interval (ms)
//	ARGV[6] kind of refusal
//	ARGV[7] code
//	ARGV[8] message
//	ARGV[9] the probe's token, or "" if the payment was not a probe
//	result[1] refused payments in this streak
//	result[2] "paused" | ""
var countScript = redis.NewScript(`
local resets, paused_by, kind = unpack(redis.call('HMGET', KEYS[2], 'resets', 'paused', 'kind'))
local streak = ARGV[1] .. '.' .. (resets or '0')
if redis.call('HGET', KEYS[1], 'row') ~= streak then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'row', streak)
end
local limit = tonumber(ARGV[3])
if redis.call('HLEN', KEYS[1]) - 1 < limit then
  redis.call('HSET', KEYS[1], 'p:' .. ARGV[2], '')
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local count = redis.call('HLEN', KEYS[1]) - 1
local paused = paused_by == streak
-- A probe that is refused in another way ends the pause, but not the streak.
if paused and ARGV[9] ~= '' and kind ~= ARGV[6] and count < limit then
  redis.call('HDEL', KEYS[2], 'paused')
  paused = false
end
if count >= limit and not paused then
  local t = redis.call('TIME')
  local probe = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000) + tonumber(ARGV[5])
  redis.call('HSET', KEYS[2], 'paused', streak, 'kind', ARGV[6], 'code', ARGV[7], 'message', ARGV[8],
    'probe', string.format('%.0f', probe))
  paused = true
end
if paused then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
return {count, paused and 'paused' or ''}
`)

// admitScript decides whether a payment may be sent to a gateway that this worker believes to
// be paused. If the next probe is due, this payment becomes the probe.
//
//	KEYS[1] pause
//	ARGV[1] accepted payments, as counted by the ledger
//	ARGV[2] probe interval (ms)
//	result[1] "open" (the gateway is not paused) | "wait" | "probe"
//	result[2] "wait": time until the next probe (ms). "probe": its token, which is the time from
//	          which the probe after it may be sent (Unix ms). "open": nothing
var admitScript = redis.NewScript(`
local paused, resets, probe = unpack(redis.call('HMGET', KEYS[1], 'paused', 'resets', 'probe'))
if not paused or paused ~= ARGV[1] .. '.' .. (resets or '0') then return {'open'} end
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local wait = tonumber(probe) - now
-- If Redis' clock was set back, a longer wait than the interval would stop the probes.
if wait > 0 and wait <= tonumber(ARGV[2]) then return {'wait', string.format('%.0f', wait)} end
local token = string.format('%.0f', now + tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'probe', token)
return {'probe', token}
`)

// releaseScript releases a probe that was not sent: the next payment becomes the probe.
//
//	KEYS[1] pause
//	ARGV[1] the probe's token
//	result  1, or 0 if another payment has become the probe since
var releaseScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'probe') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'probe', '0')
return 1
`)

// resetScript ends all streaks of a gateway, and its pause.
//
//	KEYS[1] pause
//	ARGV[1] time to live (ms)
//	result  number of resets
var resetScript = redis.NewScript(`
redis.call('HDEL', KEYS[1], 'paused')
local resets = redis.call('HINCRBY', KEYS[1], 'resets', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return resets
`)
