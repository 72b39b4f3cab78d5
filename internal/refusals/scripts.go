package refusals

import "github.com/redis/go-redis/v9"

// A row of refusals is named "<accepted>.<resets>": how many payments the ledger
// had seen accepted when it began, and how often a success was reported beside
// it. Any success makes another name, which ends the row, and a pause with it,
// without a write.
//
// A script that is run twice, because its reply was lost, does what it did the
// first time.

// countScript counts a refused payment, once, and pauses the gateway at the limit.
//
//	KEYS 1 row
//	     2 pause
//	ARGV 1 accepted payments of the ledger
//	     2 transaction id
//	     3 limit: as many refused payments pause the gateway
//	     4 time to live of both keys (ms)
//	     5 time from the pause, or a probe, to the next probe (ms)
//	     6 kind of refusal
//	     7 code
//	     8 message
//	     9 the token of the probe, or "" when the payment was none
//	returns {refused payments in this row, "paused" or ""}
var countScript = redis.NewScript(`
local p = redis.call('HMGET', KEYS[2], 'resets', 'paused', 'kind')
local row = ARGV[1] .. '.' .. (p[1] or '0')
if redis.call('HGET', KEYS[1], 'row') ~= row then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'row', row)
end
local limit = tonumber(ARGV[3])
if redis.call('HLEN', KEYS[1]) - 1 < limit then
  redis.call('HSET', KEYS[1], 'p:' .. ARGV[2], '')
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local count = redis.call('HLEN', KEYS[1]) - 1
local paused = p[2] == row
if paused and ARGV[9] ~= '' and p[3] ~= ARGV[6] and count < limit then
  redis.call('HDEL', KEYS[2], 'paused')
  paused = false
end
if count >= limit and not paused then
  local t = redis.call('TIME')
  local probe = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000) + tonumber(ARGV[5])
  redis.call('HSET', KEYS[2], 'paused', row, 'kind', ARGV[6], 'code', ARGV[7], 'message', ARGV[8],
    'probe', string.format('%.0f', probe))
  paused = true
end
if paused then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
return {count, paused and 'paused' or ''}
`)

// admitScript says whether a payment may be sent to a gateway that was paused
// when this worker last looked, and gives away the next probe.
//
//	KEYS 1 pause
//	ARGV 1 accepted payments of the ledger
//	     2 time from one probe to the next (ms)
//	returns {"open"}
//	     or {"wait", time until the next probe (ms)}
//	     or {"probe", its token: the time of the probe after it (Unix ms)}
var admitScript = redis.NewScript(`
local p = redis.call('HMGET', KEYS[1], 'paused', 'resets', 'probe')
if not p[1] or p[1] ~= ARGV[1] .. '.' .. (p[2] or '0') then return {'open'} end
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local wait = tonumber(p[3]) - now
-- A clock that was set back must not stop the probes.
if wait > 0 and wait <= tonumber(ARGV[2]) then return {'wait', string.format('%.0f', wait)} end
local token = string.format('%.0f', now + tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'probe', token)
return {'probe', token}
`)

// releaseScript gives a probe back that was not sent, so that another payment may
// be the probe at once.
//
//	KEYS 1 pause
//	ARGV 1 the token of the probe
//	returns 1, or 0 where another probe was given away meanwhile
var releaseScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'probe') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'probe', '0')
return 1
`)

// resetScript ends every row of refusals of a gateway, and its pause.
//
//	KEYS 1 pause
//	ARGV 1 time to live (ms)
//	returns how often that was done
var resetScript = redis.NewScript(`
redis.call('HDEL', KEYS[1], 'paused')
local resets = redis.call('HINCRBY', KEYS[1], 'resets', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return resets
`)
