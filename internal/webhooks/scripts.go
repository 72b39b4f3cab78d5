package webhooks

import "github.com/redis/go-redis/v9"

// The state of the deliveries is in Redis, in the slot of the stream of events. An event needs
// a delivery from the moment at which it is in the stream, so it is born in the same script as
// the change of status. The cursor says up to which entry the deliveries of an endpoint were
// created. A replica receives the stream before the cursor, so after a failover the cursor is
// never ahead of the stream.
//
// For each endpoint and stream there are, with the prefix that queue.key returns:
//
//	cursor    id of the last stream entry that was read
//	payments  hash of payment to the payment's deliveries:
//	              TRIES LEASE RESULT AT ENTRY ENTRY...
//	          ENTRY is the id of a stream entry; only the first is being delivered. TRIES,
//	          RESULT and AT (ms) belong to it: the tries that have failed, and the last one.
//	          LEASE is the time (ms) until which a worker sends it; 0: no worker does
//	due       sorted set of payment by the time (ms) of the next try
//	heads     sorted set of payment by the time (ms) of its first entry
//	given_up  sorted set of "ENTRY PAYMENT" by the time (ms) of the entry: all tries have failed
//
// All times are by Redis' clock. The scripts may run twice for one request, which at worst
// sends an event twice.

// clock is the beginning of a script that needs the time: it defines now (ms) and text(n),
// which formats a number for a reply.
const clock = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function text(n) return string.format('%.0f', n) end
`

// deliveries is the beginning of a script that changes the deliveries of payments. It needs
// KEYS[1] payments, KEYS[2] due and KEYS[3] heads.
const deliveries = clock + `
local function load(payment)
  local value = redis.call('HGET', KEYS[1], payment)
  if not value then return end
  local tries, lease, result, at, entries = string.match(value, '^(%d+) (%d+) (%S+) (%d+) (.+)$')
  return {tries = tonumber(tries), lease = tonumber(lease), result = result, at = at, entries = entries}
end
local function save(payment, d)
  redis.call('HSET', KEYS[1], payment, table.concat({text(d.tries), text(d.lease), d.result, d.at, d.entries}, ' '))
end
local function head(d) return string.match(d.entries, '^%S+') end
local function ms(entry) return string.match(entry, '^%d+') end
-- add adds an entry, which is due at once if the payment has no earlier one.
local function add(payment, entry)
  local d = load(payment)
  if d then
    d.entries = d.entries .. ' ' .. entry
    return save(payment, d)
  end
  save(payment, {tries = 0, lease = 0, result = '-', at = '0', entries = entry})
  redis.call('ZADD', KEYS[2], now, payment)
  redis.call('ZADD', KEYS[3], ms(entry), payment)
end
-- pop removes the first entry of a payment. The next one is due at once.
local function pop(payment, d)
  local rest = string.match(d.entries, '^%S+ (.+)$')
  if not rest then
    redis.call('HDEL', KEYS[1], payment)
    redis.call('ZREM', KEYS[2], payment)
    redis.call('ZREM', KEYS[3], payment)
    return
  end
  local next = {tries = 0, lease = 0, result = '-', at = '0', entries = rest}
  save(payment, next)
  redis.call('ZADD', KEYS[2], now, payment)
  redis.call('ZADD', KEYS[3], ms(rest), payment)
  return next
end
`

// startScript creates the cursor of a new endpoint at the present end of the stream. If Redis has
// lost the cursor, it creates the one that the worker has last seen.
//
//	KEYS[1] cursor
//	KEYS[2] stream
//	ARGV[1] cursor that the worker has last seen, or ""
//	result the cursor
var startScript = redis.NewScript(`
local cursor = redis.call('GET', KEYS[1])
if cursor then return cursor end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
cursor = ARGV[1] ~= '' and ARGV[1] or last and last[1] or '0-0'
redis.call('SET', KEYS[1], cursor)
return cursor
`)

// workScript reports which endpoints have something to do.
//
//	KEYS[1] stream
//	KEYS[2...] for each endpoint: cursor, due
//	result for each endpoint: "1" or "", ...
var workScript = redis.NewScript(clock + `
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local answer = {}
for i = 2, #KEYS, 2 do
  local due = redis.call('ZRANGEBYSCORE', KEYS[i + 1], '-inf', now, 'LIMIT', 0, 1)[1]
  answer[i / 2] = (due or last and last[1] ~= redis.call('GET', KEYS[i])) and '1' or ''
end
return answer
`)

// createScript creates the deliveries of entries that were read after the cursor, unless
// another worker was faster.
//
//	KEYS[1] payments
//	KEYS[2] due
//	KEYS[3] heads
//	KEYS[4] cursor
//	ARGV[1] cursor after which the entries were read
//	ARGV[2] new cursor
//	ARGV[3...] for each delivery: payment, entry, ...
//	result 1, or 0 if the cursor has changed
var createScript = redis.NewScript(deliveries + `
if redis.call('GET', KEYS[4]) ~= ARGV[1] then return 0 end
for i = 3, #ARGV, 2 do add(ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[4], ARGV[2])
return 1
`)

// takeScript takes deliveries that are due. A delivery that is taken is due again at the end
// of its lease. An entry that is no longer in the stream is dropped.
//
//	KEYS[1] payments
//	KEYS[2] due
//	KEYS[3] heads
//	KEYS[4] stream
//	ARGV[1] highest number of deliveries
//	ARGV[2] length of the lease (ms)
//	result[1] number of entries that were dropped
//	result[2...] for each delivery: payment, entry, lease, tries, the fields of the stream entry, ...
var takeScript = redis.NewScript(deliveries + `
local dropped, answer, lease = 0, {0}, now + ARGV[2]
for _, payment in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local d, entry = load(payment), nil
  while d and not entry do
    entry = redis.call('XRANGE', KEYS[4], head(d), head(d))[1]
    if not entry then
      dropped, d = dropped + 1, pop(payment, d)
    end
  end
  if d then
    d.lease = lease
    save(payment, d)
    redis.call('ZADD', KEYS[2], lease, payment)
    for _, value in ipairs({payment, entry[1], text(lease), text(d.tries), entry[2]}) do table.insert(answer, value) end
  else
    redis.call('ZREM', KEYS[2], payment)
  end
end
answer[1] = dropped
return answer
`)

// finishScript records the result of a try. It does nothing if the delivery was finished by
// another worker, or, after a failed try, if another worker has taken it since.
//
//	KEYS[1] payments
//	KEYS[2] due
//	KEYS[3] heads
//	KEYS[4] given up
//	ARGV[1] payment
//	ARGV[2] entry
//	ARGV[3] lease
//	ARGV[4] "delivered" | "skipped" | "failed" | "gave_up"
//	ARGV[5] the result in one word, for operators
//	ARGV[6] time until the next try (ms), if it failed
//	result 1, or 0 if nothing was done
var finishScript = redis.NewScript(deliveries + `
local payment, entry, outcome = ARGV[1], ARGV[2], ARGV[4]
local d = load(payment)
if not d or head(d) ~= entry then return 0 end
if outcome == 'failed' or outcome == 'gave_up' then
  if text(d.lease) ~= ARGV[3] then return 0 end
end
if outcome == 'failed' then
  save(payment, {tries = d.tries + 1, lease = 0, result = ARGV[5], at = text(now), entries = d.entries})
  redis.call('ZADD', KEYS[2], now + ARGV[6], payment)
  return 1
end
if outcome == 'gave_up' then redis.call('ZADD', KEYS[4], ms(entry), entry .. ' ' .. payment) end
pop(payment, d)
return 1
`)

// replayScript creates deliveries again. One that waits for its next try is tried at once, as
// if it were new; one that is being sent stays as it is.
//
//	KEYS[1] payments
//	KEYS[2] due
//	KEYS[3] heads
//	KEYS[4] given up
//	ARGV for each delivery: payment, entry, ...
//	result the number of deliveries
var replayScript = redis.NewScript(deliveries + `
for i = 1, #ARGV, 2 do
  local payment, entry = ARGV[i], ARGV[i + 1]
  local d = load(payment)
  redis.call('ZREM', KEYS[4], entry .. ' ' .. payment)
  if not d or not string.find(' ' .. d.entries .. ' ', ' ' .. entry .. ' ', 1, true) then add(payment, entry) end
  if d and d.lease < now then
    d = load(payment)
    d.tries, d.lease = 0, 0
    save(payment, d)
    redis.call('ZADD', KEYS[2], now, payment)
  end
end
return #ARGV / 2
`)

// statsScript counts the deliveries of an endpoint in one stream.
//
//	KEYS[1] payments
//	KEYS[2] heads
//	KEYS[3] given up
//	KEYS[4] cursor
//	KEYS[5] stream
//	result[1] number of payments with deliveries that are pending
//	result[2] age (ms) of the oldest event that is not delivered; 0: all are
//	result[3] number of deliveries that were given up
var statsScript = redis.NewScript(clock + `
-- What is no longer in the stream cannot be replayed.
local first = redis.call('XRANGE', KEYS[5], '-', '+', 'COUNT', 1)[1]
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. (first and string.match(first[1], '^%d+') or text(now)))
local oldest = now
local head = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
if head then oldest = tonumber(head) end
local next = redis.call('XRANGE', KEYS[5], '(' .. (redis.call('GET', KEYS[4]) or '0-0'), '+', 'COUNT', 1)[1]
if next then oldest = math.min(oldest, tonumber(string.match(next[1], '^%d+'))) end
return {redis.call('HLEN', KEYS[1]), text(math.max(now - oldest, 0)), redis.call('ZCARD', KEYS[3])}
`)

// healthScript records whether an endpoint can be reached. Its field in the hash is
// "FAILING DISABLED REASON": since when (ms) every try has failed, and since when and why it
// is disabled; 0 and "-" if that is not so.
//
//	KEYS[1] hash of endpoint to health
//	ARGV[1] endpoint
//	ARGV[2] "delivered" | "failed" | "gone" | "enable"
//	ARGV[3] time (ms) of nothing but failures after which the endpoint is disabled
//	result[1] health
//	result[2] "1" if this call disabled the endpoint, or ""
var healthScript = redis.NewScript(clock + `
local failing, disabled, reason = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '0 0 -', '^(%d+) (%d+) (%S+)$')
failing, disabled = tonumber(failing), tonumber(disabled)
local was = disabled
if ARGV[2] == 'enable' then
  failing, disabled, reason = 0, 0, '-'
elseif ARGV[2] == 'delivered' then
  failing = 0
elseif disabled == 0 then
  if failing == 0 then failing = now end
  if ARGV[2] == 'gone' then
    disabled, reason = now, 'gone'
  elseif now - failing >= tonumber(ARGV[3]) then
    disabled, reason = now, 'failing'
  end
end
local health = table.concat({text(failing), text(disabled), reason}, ' ')
redis.call('HSET', KEYS[1], ARGV[1], health)
return {health, was == 0 and disabled > 0 and '1' or ''}
`)
