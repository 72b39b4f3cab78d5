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
// because WAIT only covers writes of its own connection: APPEND of nothing.
//
// All times are by Redis' clock, in Unix milliseconds. Every key that a script uses is in
// KEYS: while the slot migrates, Redis then returns TRYAGAIN before the script's first
// write.
//
// The scripts only read the first line of a record (see format.go). They copy the rest, or
// get it from the caller.

// clock is the beginning of a script that needs the time. It defines now (ms) and text(n),
// which formats a number for a reply. Numbers of up to 14 digits need no formatting elsewhere.
const clock = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function text(n) return string.format('%.0f', n) end
`

// load is the beginning of a script that changes a payment: it defines record, the stored
// text, which is false if the payment does not exist, and the words of its first line. If
// the record has another version, the script ends with other(v), which the script defines
// before; v is "version 2" for the records of version2.go.
const load = clock + `
local record = redis.pcall('GET', KEYS[1])
local status, rev, request, held_until, unknown, updated, claimed, lowest, created, expires, rest
if type(record) == 'table' then return other('version 2') end
if record then
  status, rev, request, held_until, unknown, updated, claimed, lowest, created, rest, expires = string.match(record,
    '^3 ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+) ()([^ ]+)')
  if not status then return other('other version') end
end
-- write stores and returns the record with its present words; body is what follows CREATED.
local function write(body)
  record = table.concat({'3', status, rev, request, held_until, unknown, updated, claimed, lowest, created, body}, ' ')
  redis.call('SET', KEYS[1], record)
  return record
end
`

func ms(d time.Duration) int64 { return d.Milliseconds() }

// createScript creates a payment. (Step [create].) It does not change a payment that
// exists, with one exception: it replaces a customer token that no worker could decrypt,
// and queues the payment. A payment with a tombstone exists.
//
//	KEYS[1] payment
//	KEYS[2] sending
//	KEYS[3] queued
//	KEYS[4] open
//	KEYS[5] counts
//	KEYS[6] tombstones
//	KEYS[7] in needs_review
//	ARGV[1] request id
//	ARGV[2] transaction id
//	ARGV[3] time after which its task counts as lost (ms)
//	ARGV[4] body: the record after CREATED
//	ARGV[5] digest of the order
//	ARGV[6] encrypted token, or ""
//	result[1] "created" | "duplicate" | "conflict" | "tombstone" | "version 2" | "other version"
//	result[2] status; "tombstone": the tombstone; "version 2", "other version": nothing
var createScript = redis.NewScript(`
local function other(version) return {version, ''} end
` + load + `
if record then
  redis.call('APPEND', KEYS[1], '')
  if request == ARGV[1] then return {'created', status} end
  local digest, flag, tail = string.match(record, '^%d+ (%S+) (%S+)()', rest)
  if digest ~= ARGV[5] then return {'conflict', status} end
  if flag ~= 'bad-token' or ARGV[6] == '' or (status ~= 'queued' and status ~= 'needs_review') then
    return {'duplicate', status}
  end
  local attempts = string.find(record, '\n', string.find(record, '\n', tail, true) + 1, true) -- their end
  local facts = string.find(record, '\n', attempts + 1, true)
  local token = string.find(record, '\n', facts + 1, true)
  if status == 'needs_review' then
    redis.call('HINCRBY', KEYS[5], status, -1)
    redis.call('ZREM', KEYS[7], ARGV[2])
  end
  status, rev, request, held_until, updated = 'queued', rev + 1, ARGV[1], 0, now
  write(expires .. ' ' .. digest .. ' -' .. string.sub(record, tail, facts) .. ARGV[6] .. string.sub(record, token))
  redis.call('ZREM', KEYS[4], ARGV[2])
else
  local tombstone = redis.call('HGET', KEYS[6], ARGV[2])
  if tombstone then return {'tombstone', tombstone} end
  status, rev, request, held_until, unknown, updated, claimed, lowest, created = 'queued', 1, ARGV[1], 0, 0, now, 0, 0, now
  write(ARGV[4])
end
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[2])
redis.call('ZADD', KEYS[3], created, ARGV[2])
return {rev == 1 and 'created' or 'duplicate', 'queued'}
`)

type createArgs struct {
	key            payment.Key
	request        string
	grace          time.Duration
	body           []byte
	digest         string
	encryptedToken string
}

func (p *partition) createCall(a createArgs) durable.Call {
	g := a.key.Gateway
	return durable.Call{
		Script: createScript,
		Keys:   []string{p.payment(a.key), p.sending(g), p.queued(g), p.open(g), p.counts(g), p.tombstones(a.key), p.listed(g, payment.NeedsReview)},
		Args:   []any{a.request, a.key.TransactionID, ms(a.grace), a.body, a.digest, a.encryptedToken},
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
//	ARGV[1] request id
//	ARGV[2] attempt
//	ARGV[3] lease (ms)
//	ARGV[4] transaction id
//	ARGV[5] longest time in the queue (ms) for a payment without expires; 0: no limit
//	result[1] a ClaimResult, "too early" or "version 2"
//	result[2] now (ms)
//	result[3] "too early": time left (ms). "missing", "other version", "version 2": "". Others: the record
var claimScript = redis.NewScript(`
local function other(version) return {version, '0', ''} end
` + load + `
local function result(name, value) return {name, text(now), value} end
if not record then return result('missing', '') end
if status == 'submitting' and request ~= ARGV[1] then
  return result(tonumber(held_until) <= now and 'claim expired' or 'busy', record)
end
local body = string.sub(record, rest)
if status == 'queued' then
  if request == ARGV[1] .. ':released' then return result('too early', '0') end
  local deadline = tonumber(expires)
  if deadline == 0 and tonumber(ARGV[5]) > 0 then deadline = created + ARGV[5] end
  if deadline > 0 and deadline <= now then return result('too late', record) end
  if tonumber(held_until) > now then return result('too early', text(held_until - now)) end
  if claimed == '0' then claimed, lowest = now, redis.call('HGET', KEYS[4], 'highest') or 0 end
  status, rev, request, updated = 'submitting', rev + 1, ARGV[1], now
  local first = string.find(body, '\n', 1, true)
  local attempts = string.find(body, '\n', first + 1, true) -- their end
  local separator = attempts > first + 1 and '\t' or ''
  body = string.sub(body, 1, attempts - 1) .. separator .. ARGV[2] .. string.sub(body, attempts)
  redis.call('ZREM', KEYS[3], ARGV[4])
elseif status ~= 'submitting' then
  return result('not queued', record)
end
held_until = now + ARGV[3]
redis.call('ZADD', KEYS[2], held_until, ARGV[4])
return result('claimed', write(body))
`)

type claimArgs struct {
	key             payment.Key
	request         string
	attempt         []byte
	lease, queueTTL time.Duration
}

func (p *partition) claimCall(a claimArgs) durable.Call {
	g := a.key.Gateway
	return durable.Call{
		Script: claimScript,
		Keys:   []string{p.payment(a.key), p.sending(g), p.queued(g), p.counts(g)},
		Args:   []any{a.request, a.attempt, ms(a.lease), a.key.TransactionID, ms(a.queueTTL)},
	}
}

// releaseScript undoes a claim that nothing was sent for, with its attempt. The request id
// is marked as released, so a late repetition of the claim returns "too early".
// (Step [release].)
//
//	KEYS[1] payment
//	KEYS[2] sending
//	KEYS[3] queued
//	ARGV[1] request id of the claim
//	ARGV[2] attempt of the claim
//	ARGV[3] transaction id
//	ARGV[4] time after which its task counts as lost (ms)
//	result  "released" | "not claimed": by that request
var releaseScript = redis.NewScript(`
local function other() return 'not claimed' end
` + load + `
if not record then return 'not claimed' end
if request == ARGV[1] .. ':released' then return 'released' end
if status ~= 'submitting' or request ~= ARGV[1] then return 'not claimed' end
local body = string.sub(record, rest)
local attempt, last = string.find(body, ARGV[2] .. '\n', 1, true)
local first = string.sub(body, attempt - 1, attempt - 1) == '\n'
if first then claimed, lowest = 0, 0 end
body = string.sub(body, 1, attempt - (first and 1 or 2)) .. string.sub(body, last)
status, rev, request, held_until, updated = 'queued', rev + 1, ARGV[1] .. ':released', 0, now
write(body)
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[3])
redis.call('ZADD', KEYS[3], created, ARGV[3])
return 'released'
`)

type releaseArgs struct {
	key     payment.Key
	request string
	attempt []byte
	grace   time.Duration
}

func (p *partition) releaseCall(a releaseArgs) durable.Call {
	g := a.key.Gateway
	return durable.Call{
		Script: releaseScript,
		Keys:   []string{p.payment(a.key), p.sending(g), p.queued(g)},
		Args:   []any{a.request, a.attempt, a.key.TransactionID, ms(a.grace)},
	}
}

// saveScript writes a change if the payment has not changed since it was read, when it is
// next due, and the event. (Step [record].)
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
//	KEYS[8] in on_processing
//	KEYS[9] in needs_review
//	ARGV[1] request id
//	ARGV[2] revision read
//	ARGV[3] request id read
//	ARGV[4] transaction id
//	ARGV[5] status
//	ARGV[6] updated (ms)
//	ARGV[7] body: the record after CREATED
//	ARGV[8] time until it is due (ms), or "": never
//	ARGV[9] round the due time up to a multiple of this (ms), or 0
//	ARGV[10] time until a queued payment can be claimed (ms)
//	ARGV[11] event, or ""
//	ARGV[12] numeric gateway reference, or 0
//	ARGV[13] "1": the outcome is unknown since now
//	ARGV[14] "1": save only if the claim has expired
//	result   "saved" | "fenced" | "missing"
var saveScript = redis.NewScript(`
local function other() return 'fenced' end
` + load + `
if not record then return 'missing' end
if request == ARGV[1] then
  redis.call('APPEND', KEYS[1], '')
  return 'saved'
end
if rev ~= ARGV[2] or request ~= ARGV[3] then return 'fenced' end
if ARGV[14] == '1' and (status ~= 'submitting' or tonumber(held_until) > now) then return 'fenced' end

local before = status
status, rev, request, held_until, updated = ARGV[5], rev + 1, ARGV[1], 0, ARGV[6]
if ARGV[13] == '1' then unknown = now end
local due
if status == 'queued' then
  held_until = now + ARGV[10]
  due = held_until + ARGV[8]
elseif ARGV[8] ~= '' then
  local grid = tonumber(ARGV[9])
  due = now + ARGV[8]
  if grid > 0 then due = math.floor(due / grid) * grid + grid end
elseif status ~= 'verifying' and status ~= 'needs_review' then -- it is over: only lookups need these
  unknown, claimed, lowest = 0, 0, 0
end
write(ARGV[7])

-- Each status has its sets: queued and submitting are in sending, all others that are
-- looked up in open.
local sent = before ~= 'queued' and before ~= 'submitting'
if status == 'queued' then
  if sent then redis.call('ZREM', KEYS[4], ARGV[4]) end
  redis.call('ZADD', KEYS[2], due, ARGV[4])
  redis.call('ZADD', KEYS[3], created, ARGV[4])
else
  if not sent then redis.call('ZREM', KEYS[2], ARGV[4]) end
  if before == 'queued' then redis.call('ZREM', KEYS[3], ARGV[4]) end
  if due then
    redis.call('ZADD', KEYS[4], due, ARGV[4])
  elseif sent then
    redis.call('ZREM', KEYS[4], ARGV[4])
  end
end
if status == 'verifying' then
  redis.call('ZADD', KEYS[5], unknown, ARGV[4])
elseif before == 'verifying' then
  redis.call('ZREM', KEYS[5], ARGV[4])
end
if before ~= status then
  local old, new, accepted, highest = unpack(redis.call('HMGET', KEYS[6], before, status, 'accepted', 'highest'))
  local counts = {'HSET', KEYS[6]}
  local function set(field, value)
    table.insert(counts, field)
    table.insert(counts, value)
  end
  if sent and before ~= 'verifying' then set(before, (old or 0) - 1) end
  if status ~= 'queued' and status ~= 'verifying' then set(status, (new or 0) + 1) end
  if before == 'submitting' and (status == 'on_processing' or status == 'paid') then set('accepted', (accepted or 0) + 1) end
  if tonumber(ARGV[12]) > tonumber(highest or '0') then set('highest', ARGV[12]) end
  if #counts > 2 then redis.call(unpack(counts)) end
end
local listed = {on_processing = KEYS[8], needs_review = KEYS[9]}
if before ~= status and listed[before] then redis.call('ZREM', listed[before], ARGV[4]) end
if listed[status] and (before ~= status or status == 'needs_review') then redis.call('ZADD', listed[status], updated, ARGV[4]) end
if ARGV[11] ~= '' then redis.call('XADD', KEYS[7], '*', 'event', ARGV[11]) end
return 'saved'
`)

type saveArgs struct {
	key            payment.Key
	request        string
	revRead        int64
	requestRead    string
	status         payment.Status
	updated        time.Time
	body           []byte
	due            Due
	notBefore      time.Duration
	event          []byte
	reference      int64
	restartUnknown bool
	onlyIfExpired  bool
}

func (p *partition) saveCall(a saveArgs) durable.Call {
	var due any = ""
	if a.due.set {
		due = ms(a.due.in)
	}
	flag := func(b bool) string {
		if b {
			return "1"
		}
		return ""
	}
	g := a.key.Gateway
	return durable.Call{
		Script: saveScript,
		Keys: []string{
			p.payment(a.key), p.sending(g), p.queued(g), p.open(g), p.unknown(g), p.counts(g), p.stream,
			p.listed(g, payment.OnProcessing), p.listed(g, payment.NeedsReview),
		},
		Args: []any{
			a.request, a.revRead, a.requestRead, a.key.TransactionID, string(a.status), unixMilli(a.updated), a.body,
			due, ms(a.due.grid), ms(a.notBefore), a.event, a.reference, flag(a.restartUnknown), flag(a.onlyIfExpired),
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

// statsScript counts the payments of a gateway in one partition.
//
//	KEYS[1] counts
//	KEYS[2] queued
//	KEYS[3] unknown
//	KEYS[4] sending
//	result[1] now (ms)
//	result[2] creation time of the oldest queued payment (ms), or "0"
//	result[3] time since which the oldest unknown outcome is unknown (ms), or "0"
//	result[4...] status, number of payments, ...
var statsScript = redis.NewScript(clock + `
local queued, sending = redis.call('ZCARD', KEYS[2]), redis.call('ZCARD', KEYS[4])
local answer = {
  text(now),
  redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] or '0',
  redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2] or '0',
}
for _, word in ipairs(redis.call('HGETALL', KEYS[1])) do table.insert(answer, word) end
-- They replace fields that version 2 wrote.
for status, n in pairs({queued = queued, submitting = sending - queued, verifying = redis.call('ZCARD', KEYS[3])}) do
  table.insert(answer, status)
  table.insert(answer, text(n))
end
return answer
`)

// partitionsScript writes down the number of partitions of a new ledger. A ledger without a
// number has 1: it is older than the number.
//
//	KEYS[1] number of partitions
//	KEYS[2...] counts and queued payments of partition 0
//	ARGV[1] number of partitions
//	result  number of partitions of the ledger
var partitionsScript = redis.NewScript(`
local n = redis.call('GET', KEYS[1])
if not n then
  n = ARGV[1]
  for i = 2, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then n = '1' end
  end
end
redis.call('SET', KEYS[1], n)
return n
`)
