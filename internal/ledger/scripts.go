package ledger

import (
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/payment"
)

// Every script may run twice for one request, because its reply may be lost. So a script
// that changes a payment writes its request id into the record. If it finds its own request
// id there, it returns its first result. It writes in that case too, without a change,
// because WAIT only covers writes of its own connection.
//
// All times are by Redis' clock, in Unix milliseconds. Every key that a script uses is in
// KEYS: while the slot migrates, Redis then returns TRYAGAIN before the script's first
// write.

// clock is the beginning of a script that needs the time. It defines now (ms) and text(n),
// which formats a number without an exponent.
const clock = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function text(n) return string.format('%.0f', n) end
`

func ms(d time.Duration) int64 { return d.Milliseconds() }

// createScript creates a payment. (Step [create].) It does not change a payment that
// exists, with one exception: it replaces a customer token that no worker could decrypt,
// and queues the payment.
//
//	KEYS[1] payment
//	KEYS[2] sending
//	KEYS[3] queued
//	KEYS[4] open
//	KEYS[5] counts
//	ARGV[1] request id
//	ARGV[2] digest of the order
//	ARGV[3] transaction id
//	ARGV[4] version
//	ARGV[5] order
//	ARGV[6] encrypted token, or ""
//	ARGV[7] facts
//	ARGV[8] expires (ms), or ""
//	ARGV[9] time after which its task counts as lost (ms)
//	result[1] "created" | "duplicate" | "conflict"
//	result[2] status
var createScript = redis.NewScript(clock + `
local digest, request, status, version, bad_token, created = unpack(
  redis.call('HMGET', KEYS[1], 'digest', 'request', 'status', 'v', 'bad_token', 'created'))
if digest then
  redis.call('HSET', KEYS[1], 'digest', digest)
  if request == ARGV[1] then return {'created', status} end
  if digest ~= ARGV[2] then return {'conflict', status} end
  if bad_token and version == ARGV[4] and ARGV[6] ~= '' and (status == 'queued' or status == 'needs_review') then
    redis.call('HDEL', KEYS[1], 'bad_token', 'after')
    redis.call('HINCRBY', KEYS[1], 'rev', 1)
    redis.call('HSET', KEYS[1], 'token', ARGV[6], 'status', 'queued', 'request', ARGV[1], 'updated', text(now))
    redis.call('ZADD', KEYS[2], text(now + ARGV[9]), ARGV[3])
    redis.call('ZADD', KEYS[3], created, ARGV[3])
    redis.call('ZREM', KEYS[4], ARGV[3])
    redis.call('HINCRBY', KEYS[5], status, -1)
    redis.call('HINCRBY', KEYS[5], 'queued', 1)
    return {'duplicate', 'queued'}
  end
  return {'duplicate', status}
end
redis.call('HSET', KEYS[1], 'request', ARGV[1], 'digest', ARGV[2], 'v', ARGV[4],
  'status', 'queued', 'rev', 1, 'events', 0, 'attempts', 0,
  'order', ARGV[5], 'facts', ARGV[7], 'created', text(now), 'updated', text(now))
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'token', ARGV[6]) end
if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'expires', ARGV[8]) end
redis.call('ZADD', KEYS[2], text(now + ARGV[9]), ARGV[3])
redis.call('ZADD', KEYS[3], text(now), ARGV[3])
redis.call('HINCRBY', KEYS[5], 'queued', 1)
return {'created', 'queued'}
`)

type createArgs struct {
	request, digest, transactionID string
	order                          []byte
	token                          string
	facts                          []byte
	expires                        time.Time
	grace                          time.Duration
}

func createCall(g payment.Gateway, a createArgs) durable.Call {
	var expires any = ""
	if !a.expires.IsZero() {
		expires = a.expires.UnixMilli()
	}
	return durable.Call{
		Script: createScript,
		Keys: []string{
			paymentKey(payment.Key{Gateway: g, TransactionID: a.transactionID}), sendingKey(g), queuedKey(g), openKey(g), countsKey(g),
		},
		Args: []any{a.request, a.digest, a.transactionID, version, a.order, a.token, a.facts, expires, ms(a.grace)},
	}
}

// claimScript claims a queued payment for one submit: it adds the attempt, sets the lease,
// and writes a new revision and request id, the fencing token. If it runs again for the
// same request, it renews the lease. (Step [claim].)
//
//	KEYS[1] payment
//	KEYS[2] sending
//	KEYS[3] queued
//	KEYS[4] counts
//	KEYS[5] highest reference
//	ARGV[1] request id
//	ARGV[2] attempt
//	ARGV[3] lease (ms)
//	ARGV[4] transaction id
//	ARGV[5] version
//	ARGV[6] longest time in the queue (ms) for a payment without expires; 0: no limit
//	result[1] a ClaimResult
//	result[2] now (ms)
//	result[3...] "too early": time left (ms). "missing", "other version": nothing. Else field, value, ...
var claimScript = redis.NewScript(clock + `
local status, request, lease, after, version, expires, created = unpack(
  redis.call('HMGET', KEYS[1], 'status', 'request', 'lease', 'after', 'v', 'expires', 'created'))
if not version then return {'missing', text(now)} end
if version ~= ARGV[5] then return {'other version', text(now)} end
local result = 'not queued'
if status == 'queued' then
  if request == ARGV[1] .. ':released' then return {'too early', text(now), '0'} end
  expires = tonumber(expires or '')
  if not expires and tonumber(ARGV[6]) > 0 then expires = tonumber(created) + tonumber(ARGV[6]) end
  if expires and expires <= now then
    result = 'too late'
  elseif after and tonumber(after) > now then
    return {'too early', text(now), text(tonumber(after) - now)}
  else
    result = 'claimed'
    local n = redis.call('HINCRBY', KEYS[1], 'attempts', 1)
    redis.call('HINCRBY', KEYS[1], 'rev', 1)
    redis.call('HSET', KEYS[1], 'status', 'submitting', 'request', ARGV[1], 'updated', text(now), 'a:' .. n, ARGV[2])
    redis.call('HSETNX', KEYS[1], 'first_claim', text(now))
    redis.call('HSETNX', KEYS[1], 'lowest_id', redis.call('GET', KEYS[5]) or '0')
    redis.call('ZREM', KEYS[3], ARGV[4])
    redis.call('HINCRBY', KEYS[4], 'queued', -1)
    redis.call('HINCRBY', KEYS[4], 'submitting', 1)
  end
elseif status == 'submitting' then
  if request == ARGV[1] then
    result = 'claimed'
  else
    result = tonumber(lease) <= now and 'claim expired' or 'busy'
  end
end
if result == 'claimed' then
  redis.call('HSET', KEYS[1], 'lease', text(now + ARGV[3]))
  redis.call('ZADD', KEYS[2], text(now + ARGV[3]), ARGV[4])
end
local answer = redis.call('HGETALL', KEYS[1])
table.insert(answer, 1, text(now))
table.insert(answer, 1, result)
return answer
`)

type claimArgs struct {
	request, transactionID string
	attempt                []byte
	lease, queueTTL        time.Duration
}

func claimCall(g payment.Gateway, a claimArgs) durable.Call {
	return durable.Call{
		Script: claimScript,
		Keys: []string{
			paymentKey(payment.Key{Gateway: g, TransactionID: a.transactionID}), sendingKey(g), queuedKey(g), countsKey(g), highestKey(g),
		},
		Args: []any{a.request, a.attempt, ms(a.lease), a.transactionID, version, ms(a.queueTTL)},
	}
}

// releaseScript undoes a claim that nothing was sent for, with its attempt. The request id
// is marked as released, so a late repetition of the claim returns "too early".
// (Step [release].)
//
//	KEYS[1] payment
//	KEYS[2] sending
//	KEYS[3] queued
//	KEYS[4] counts
//	ARGV[1] request id of the claim
//	ARGV[2] transaction id
//	ARGV[3] time after which its task counts as lost (ms)
//	result  "released" | "not claimed": by that request
var releaseScript = redis.NewScript(clock + `
local status, request, attempts, created = unpack(redis.call('HMGET', KEYS[1], 'status', 'request', 'attempts', 'created'))
if request == ARGV[1] .. ':released' then return 'released' end
if status ~= 'submitting' or request ~= ARGV[1] then return 'not claimed' end
redis.call('HDEL', KEYS[1], 'lease', 'after', 'a:' .. attempts)
if attempts == '1' then redis.call('HDEL', KEYS[1], 'first_claim', 'lowest_id') end
redis.call('HINCRBY', KEYS[1], 'attempts', -1)
redis.call('HINCRBY', KEYS[1], 'rev', 1)
redis.call('HSET', KEYS[1], 'status', 'queued', 'request', ARGV[1] .. ':released', 'updated', text(now))
redis.call('ZADD', KEYS[2], text(now + ARGV[3]), ARGV[2])
redis.call('ZADD', KEYS[3], created, ARGV[2])
redis.call('HINCRBY', KEYS[4], 'submitting', -1)
redis.call('HINCRBY', KEYS[4], 'queued', 1)
return 'released'
`)

type releaseArgs struct {
	request, transactionID string
	grace                  time.Duration
}

func releaseCall(g payment.Gateway, a releaseArgs) durable.Call {
	return durable.Call{
		Script: releaseScript,
		Keys: []string{
			paymentKey(payment.Key{Gateway: g, TransactionID: a.transactionID}), sendingKey(g), queuedKey(g), countsKey(g),
		},
		Args: []any{a.request, a.transactionID, ms(a.grace)},
	}
}

// saveScript writes a change if the payment has not changed since it was read: the status,
// the facts, at most one attempt, when it is next due, and the event. (Step [record].)
//
// It compares the revision and the request id. After a failover that loses a change the
// revision alone could be the same again.
//
//	KEYS[1] payment
//	KEYS[2] sending
//	KEYS[3] queued
//	KEYS[4] open
//	KEYS[5] unknown
//	KEYS[6] counts
//	KEYS[7] stream
//	KEYS[8] highest reference
//	ARGV[1] request id
//	ARGV[2] revision read
//	ARGV[3] request id read
//	ARGV[4] transaction id
//	ARGV[5] status
//	ARGV[6] facts
//	ARGV[7] updated (ms)
//	ARGV[8] attempt number, or ""
//	ARGV[9] attempt
//	ARGV[10] time until it is due (ms), or "": never
//	ARGV[11] round the due time up to a multiple of this (ms), or 0
//	ARGV[12] time until a queued payment can be claimed (ms)
//	ARGV[13] set unknown_since to now, with this primary; "-": leave both
//	ARGV[14] event, or ""
//	ARGV[15] "1": delete the customer token
//	ARGV[16] numeric gateway reference, or 0
//	ARGV[17] "1": save only if the claim has expired
//	ARGV[18] "1": no worker could decrypt the customer token
//	result   "saved" | "fenced" | "missing"
var saveScript = redis.NewScript(clock + `
local before, rev, request, lease, created = unpack(redis.call('HMGET', KEYS[1], 'status', 'rev', 'request', 'lease', 'created'))
if not before then return 'missing' end
if request == ARGV[1] then
  redis.call('HSET', KEYS[1], 'request', ARGV[1])
  return 'saved'
end
if rev ~= ARGV[2] or request ~= ARGV[3] then return 'fenced' end
if ARGV[17] == '1' and not (lease and tonumber(lease) <= now) then return 'fenced' end
local status = ARGV[5]
redis.call('HINCRBY', KEYS[1], 'rev', 1)
redis.call('HSET', KEYS[1], 'request', ARGV[1], 'status', status, 'facts', ARGV[6], 'updated', ARGV[7])
redis.call('HDEL', KEYS[1], 'lease', 'after')
if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'attempts', ARGV[8], 'a:' .. ARGV[8], ARGV[9]) end
if status == 'queued' then
  local after = now + ARGV[12]
  redis.call('HSET', KEYS[1], 'after', text(after))
  redis.call('ZADD', KEYS[2], text(after + ARGV[10]), ARGV[4])
  redis.call('ZADD', KEYS[3], created, ARGV[4])
  redis.call('ZREM', KEYS[4], ARGV[4])
else
  redis.call('ZREM', KEYS[2], ARGV[4])
  redis.call('ZREM', KEYS[3], ARGV[4])
  if ARGV[10] ~= '' then
    local due, grid = now + ARGV[10], tonumber(ARGV[11])
    if grid > 0 then due = math.floor(due / grid) * grid + grid end
    redis.call('ZADD', KEYS[4], text(due), ARGV[4])
  else
    redis.call('ZREM', KEYS[4], ARGV[4])
  end
end
if ARGV[13] ~= '-' then redis.call('HSET', KEYS[1], 'unknown_since', text(now), 'primary', ARGV[13]) end
if status == 'verifying' then
  redis.call('ZADD', KEYS[5], redis.call('HGET', KEYS[1], 'unknown_since'), ARGV[4])
else
  redis.call('ZREM', KEYS[5], ARGV[4])
end
if before ~= status then
  redis.call('HINCRBY', KEYS[6], before, -1)
  redis.call('HINCRBY', KEYS[6], status, 1)
  if before == 'submitting' and (status == 'on_processing' or status == 'paid') then
    redis.call('HINCRBY', KEYS[6], 'accepted', 1)
  end
end
if ARGV[14] ~= '' then
  redis.call('HINCRBY', KEYS[1], 'events', 1)
  redis.call('XADD', KEYS[7], '*', 'event', ARGV[14])
end
if ARGV[15] == '1' then redis.call('HDEL', KEYS[1], 'token') end
if ARGV[18] == '1' then redis.call('HSET', KEYS[1], 'bad_token', '1') end
if tonumber(ARGV[16]) > tonumber(redis.call('GET', KEYS[8]) or '0') then redis.call('SET', KEYS[8], ARGV[16]) end
return 'saved'
`)

type saveArgs struct {
	request        string
	revRead        int64
	requestRead    string
	status         payment.Status
	facts          []byte
	updated        time.Time
	attemptNumber  int // 0: no attempt
	attempt        []byte
	due            Due
	notBefore      time.Duration
	restartUnknown bool // set unknown_since and primary
	primary        string
	event          []byte
	deleteToken    bool
	reference      int64
	onlyIfExpired  bool
	badToken       bool
}

func saveCall(key payment.Key, stream string, a saveArgs) durable.Call {
	var attemptNumber, due any = "", ""
	if a.attemptNumber > 0 {
		attemptNumber = a.attemptNumber
	}
	if a.due.set {
		due = ms(a.due.in)
	}
	primary := "-"
	if a.restartUnknown {
		primary = a.primary
	}
	flag := func(b bool) string {
		if b {
			return "1"
		}
		return ""
	}
	g := key.Gateway
	return durable.Call{
		Script: saveScript,
		Keys: []string{
			paymentKey(key), sendingKey(g), queuedKey(g), openKey(g), unknownKey(g), countsKey(g), stream, highestKey(g),
		},
		Args: []any{
			a.request, a.revRead, a.requestRead, key.TransactionID, string(a.status), a.facts, a.updated.UnixMilli(),
			attemptNumber, a.attempt, due, ms(a.due.grid), ms(a.notBefore), primary, a.event,
			flag(a.deleteToken), a.reference, flag(a.onlyIfExpired), flag(a.badToken),
		},
	}
}

// dueScript finds the sets that have a due payment.
//
//	KEYS    sorted sets, scored by the due time (ms)
//	result  for each key "1" (a payment is due) or ""
var dueScript = redis.NewScript(clock + `
local answer = {}
for i, key in ipairs(KEYS) do
  answer[i] = redis.call('ZRANGEBYSCORE', key, '-inf', text(now), 'LIMIT', 0, 1)[1] and '1' or ''
end
return answer
`)

// takeScript returns due payments and hides them until the visibility timeout ends. If
// their worker crashes, another one takes them after that.
//
//	KEYS[1] a sorted set, scored by the due time (ms)
//	ARGV[1] visibility timeout (ms)
//	ARGV[2] largest number of payments
//	result[1] now (ms)
//	result[2] replication id of the primary, or "" if INFO does not show it
//	result[3] hidden until (ms)
//	result[4...] transaction id, former due time (ms), ..., most overdue first
var takeScript = redis.NewScript(clock + `
local info = redis.pcall('INFO', 'replication')
local primary = type(info) == 'string' and info:match('master_replid:(%x+)') or ''
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', text(now), 'WITHSCORES', 'LIMIT', 0, ARGV[2])
for i = 1, #due, 2 do redis.call('ZADD', KEYS[1], text(now + ARGV[1]), due[i]) end
table.insert(due, 1, text(now + ARGV[1]))
table.insert(due, 1, primary)
table.insert(due, 1, text(now))
return due
`)

// rescheduleScript sets when payments are due. It skips payments that are no longer hidden
// until the given time: they have been changed or taken since.
//
//	KEYS[1] the sorted set that they were taken from
//	ARGV[1] hidden until (ms)
//	ARGV[2] time until they are due (ms), or "": the former due time
//	ARGV[3] round the due time up to a multiple of this (ms), or 0
//	ARGV[4...] transaction id, former due time (ms), ...
//	result  number of payments that were changed
var rescheduleScript = redis.NewScript(clock + `
local due, n = '', 0
if ARGV[2] ~= '' then
  local grid = tonumber(ARGV[3])
  due = now + ARGV[2]
  if grid > 0 then due = math.floor(due / grid) * grid + grid end
  due = text(due)
end
for i = 4, #ARGV, 2 do
  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or '-1') == tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[1], due ~= '' and due or ARGV[i + 1], ARGV[i])
    n = n + 1
  end
end
return n
`)

// hideScript restarts the visibility timeout of payments that are still hidden until the
// given time.
//
//	KEYS[1] the sorted set that they were taken from
//	ARGV[1] hidden until (ms)
//	ARGV[2] new visibility timeout, from now (ms)
//	ARGV[3...] transaction id, ...
//	result  new hidden until (ms)
var hideScript = redis.NewScript(clock + `
for i = 3, #ARGV do
  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or '-1') == tonumber(ARGV[1]) then
    redis.call('ZADD', KEYS[1], text(now + ARGV[2]), ARGV[i])
  end
end
return text(now + ARGV[2])
`)

// statsScript counts the payments of a gateway.
//
//	KEYS[1] counts
//	KEYS[2] queued
//	KEYS[3] unknown
//	result[1] now (ms)
//	result[2] creation time of the oldest queued payment (ms), or ""
//	result[3] time since which the oldest unknown outcome is unknown (ms), or ""
//	result[4...] status, number of payments, ...
var statsScript = redis.NewScript(clock + `
local answer = redis.call('HGETALL', KEYS[1])
table.insert(answer, 1, redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2] or '')
table.insert(answer, 1, redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] or '')
table.insert(answer, 1, text(now))
return answer
`)
