package ledger

import "github.com/redis/go-redis/v9"

// Every script may be run twice: go-redis sends a command again when the
// connection broke before the reply was read. So each call carries a nonce that
// is written with what it changes, and a script that finds its own nonce there
// answers as it did the first time.

// createScript writes a payment down, once.
//
//	KEYS payment, open, counts
//	ARGV nonce, digest, transaction id, due (ms), v, order, token, facts, updated (ms)
//	returns {"created" | "duplicate" | "conflict", status}
var createScript = redis.NewScript(`
local p = redis.call('HMGET', KEYS[1], 'digest', 'nonce', 'status')
if p[1] then
  if p[2] == ARGV[1] then return {'created', p[3]} end
  if p[1] ~= ARGV[2] then return {'conflict', p[3]} end
  return {'duplicate', p[3]}
end
redis.call('HSET', KEYS[1], 'nonce', ARGV[1], 'digest', ARGV[2], 'v', ARGV[5],
  'status', 'queued', 'rev', 1, 'events', 0, 'attempts', 0,
  'order', ARGV[6], 'facts', ARGV[8], 'updated', ARGV[9])
if ARGV[7] ~= '' then redis.call('HSET', KEYS[1], 'token', ARGV[7]) end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
redis.call('HINCRBY', KEYS[3], 'queued', 1)
return {'created', 'queued'}
`)

// ofLineage begins a script that works for those only who know this Redis: it
// sets lineage, which is new whenever a Redis starts or is promoted. One that does
// not tell has none, and then nobody notices (redisconn.Check warns of it).
const ofLineage = `
local info = redis.pcall('INFO', 'replication')
local lineage = type(info) == 'string' and info:match('master_replid:(%x+)') or 'untold'
`

// lookScript says which Redis this is, and who has a payment that is due.
//
//	KEYS open, open, ...
//	ARGV now (ms)
//	returns {lineage, the most overdue or "", the most overdue or "", ...}
var lookScript = redis.NewScript(ofLineage + `
local answer = {lineage}
for i, open in ipairs(KEYS) do
  answer[i + 1] = redis.call('ZRANGEBYSCORE', open, '-inf', ARGV[1], 'LIMIT', 0, 1)[1] or ''
end
return answer
`)

// meetScript says which Redis this is, and until when its vigil is kept: with the
// first who meets it the vigil begins.
//
//	KEYS vigil
//	ARGV until (ms)
//	returns {lineage, until (ms)}
var meetScript = redis.NewScript(ofLineage + `
local whose, till = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+)$')
if whose ~= lineage then
  till = ARGV[1]
  redis.call('SET', KEYS[1], lineage .. ' ' .. till)
end
return {lineage, till}
`)

// claimScript takes a queued payment for one submit: writes the attempt down
// and turns the revision, which from then on is the holder's fence.
//
//	KEYS payment, open, counts, newest
//	ARGV nonce, now (ms), lease end (ms), attempt, transaction id, lineage,
//	     "1" while nothing may be claimed
//	returns {"claimed" | "busy" | "lapsed" | "settled", field, value, field, value, ...}
//	        or {"missing"} or {"held"} or {"stranger"} or {"early", not before (ms)}
var claimScript = redis.NewScript(ofLineage + `
if lineage ~= ARGV[6] then return {'stranger'} end
local p = redis.call('HMGET', KEYS[1], 'status', 'nonce', 'lease', 'after')
if not p[1] then return {'missing'} end
local verdict = 'settled'
if p[1] == 'queued' then
  if ARGV[7] == '1' then return {'held'} end
  if p[4] and tonumber(p[4]) > tonumber(ARGV[2]) then return {'early', p[4]} end
  local n = redis.call('HINCRBY', KEYS[1], 'attempts', 1)
  redis.call('HINCRBY', KEYS[1], 'rev', 1)
  redis.call('HSET', KEYS[1], 'status', 'submitting', 'nonce', ARGV[1],
    'lease', ARGV[3], 'updated', ARGV[2], 'a:' .. n, ARGV[4])
  redis.call('HSETNX', KEYS[1], 'floor', redis.call('GET', KEYS[4]) or '0')
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[5])
  redis.call('HINCRBY', KEYS[3], 'queued', -1)
  redis.call('HINCRBY', KEYS[3], 'submitting', 1)
  redis.call('HINCRBY', KEYS[3], 'claims', 1)
  verdict = 'claimed'
elseif p[2] == ARGV[1] then
  verdict = 'claimed'
elseif p[1] == 'submitting' then
  verdict = tonumber(p[3]) <= tonumber(ARGV[2]) and 'lapsed' or 'busy'
end
local answer = redis.call('HGETALL', KEYS[1])
table.insert(answer, 1, verdict)
return answer
`)

// putBackScript writes a claim that Redis has forgotten once more: if what stands
// there, if anything, is an older revision, and none that was told to anybody.
//
//	KEYS payment, open, unknown, counts
//	ARGV transaction id, revision, lease end (ms), field, value, field, value, ...
//	returns "put back" | "known"
var putBackScript = redis.NewScript(`
local p = redis.call('HMGET', KEYS[1], 'rev', 'status')
if p[1] then
  if tonumber(p[1]) >= tonumber(ARGV[2]) then return 'known' end
  if p[2] ~= 'queued' and p[2] ~= 'submitting' and p[2] ~= 'verifying' then return 'known' end
  redis.call('HINCRBY', KEYS[4], p[2], -1)
end
redis.call('HINCRBY', KEYS[4], 'submitting', 1)
redis.call('HINCRBY', KEYS[4], 'claims', 1)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 'put back'
`)

// saveScript records a change, if nobody has changed the payment since it was
// read: status, facts, at most one attempt, when it is next due, and the event.
//
// The revision alone would not do for a fence: a Redis that has forgotten one counts
// to the same number again.
//
//	KEYS payment, open, unknown, counts, stream, newest
//	ARGV nonce, revision read, transaction id, status, facts, updated (ms),
//	     attempt number or "", attempt, due (ms) or "", unknown since (ms) or "",
//	     event or "", "1" to forget the customer token, numeric reference or "0",
//	     nonce read, not to be claimed before (ms) or "", lineage
//	returns "saved" | "fenced" | "missing" | "stranger"
var saveScript = redis.NewScript(ofLineage + `
if lineage ~= ARGV[16] then return 'stranger' end
local p = redis.call('HMGET', KEYS[1], 'status', 'rev', 'nonce')
if not p[1] then return 'missing' end
if p[3] == ARGV[1] then return 'saved' end
if p[2] ~= ARGV[2] or p[3] ~= ARGV[14] then return 'fenced' end
redis.call('HINCRBY', KEYS[1], 'rev', 1)
redis.call('HSET', KEYS[1], 'nonce', ARGV[1], 'status', ARGV[4], 'facts', ARGV[5], 'updated', ARGV[6])
redis.call('HDEL', KEYS[1], 'lease', 'after')
if ARGV[15] ~= '' then redis.call('HSET', KEYS[1], 'after', ARGV[15]) end
if ARGV[7] ~= '' then redis.call('HSET', KEYS[1], 'attempts', ARGV[7], 'a:' .. ARGV[7], ARGV[8]) end
if ARGV[9] ~= '' then redis.call('ZADD', KEYS[2], ARGV[9], ARGV[3]) else redis.call('ZREM', KEYS[2], ARGV[3]) end
if ARGV[10] ~= '' then redis.call('ZADD', KEYS[3], ARGV[10], ARGV[3]) else redis.call('ZREM', KEYS[3], ARGV[3]) end
if p[1] ~= ARGV[4] then
  redis.call('HINCRBY', KEYS[4], p[1], -1)
  redis.call('HINCRBY', KEYS[4], ARGV[4], 1)
  if p[1] == 'submitting' and (ARGV[4] == 'on_processing' or ARGV[4] == 'paid') then
    redis.call('HINCRBY', KEYS[4], 'accepted', 1)
  end
end
if ARGV[11] ~= '' then
  redis.call('HINCRBY', KEYS[1], 'events', 1)
  redis.call('XADD', KEYS[5], '*', 'event', ARGV[11])
end
if ARGV[12] == '1' then redis.call('HDEL', KEYS[1], 'token') end
if tonumber(ARGV[13]) > tonumber(redis.call('GET', KEYS[6]) or '0') then redis.call('SET', KEYS[6], ARGV[13]) end
return 'saved'
`)

// takeScript takes what is due and hides it from other takers for a while: who
// takes and dies only delays.
//
//	KEYS open
//	ARGV now (ms), hidden until (ms), how many at the most
//	returns the transaction ids, most overdue first
var takeScript = redis.NewScript(`
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, id in ipairs(due) do redis.call('ZADD', KEYS[1], 'XX', ARGV[2], id) end
return due
`)

// postponeHiddenScript postpones what is still hidden as takeScript hid it.
//
//	KEYS open
//	ARGV hidden until (ms), due (ms), transaction id, ...
//	returns how many that were
var postponeHiddenScript = redis.NewScript(`
local n = 0
for i = 3, #ARGV do
  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i])) == tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[1], ARGV[2], ARGV[i])
    n = n + 1
  end
end
return n
`)
