// Package refusals detects that a gateway refuses us rather than an order. A gateway that
// refuses payment after payment with the same message has no problem with the orders: a
// signature, a credential or a merchant setting of ours is wrong. So consecutive refusals are
// counted in Redis, over all workers. The first two payments are rejected, from the third on
// a payment goes to needs_review instead, and at a limit the gateway is paused: then one
// probe payment per minute is sent, and all others wait.
//
// A streak consists of refusals of different payments, with the same gateway, code and
// message (digits are ignored), and no accepted payment between them. A success needs no
// write here: the ledger counts accepted payments, and the count is part of the streak's
// name.
//
// The writes are not durable, unlike the ledger's: a failover that loses them lets two more
// payments be rejected, no more.
package refusals

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/clients"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

const (
	// reviewFrom is the number in a streak from which a refused payment goes to review. Two
	// customers in a row may well be declined with the same message.
	reviewFrom = 3
	// ProbeInterval is the time between two probes of a paused gateway.
	ProbeInterval = time.Minute
	// streakTTL is how long a streak lives without a new refusal. It is long because an order
	// system with a few payments per day has streaks too.
	streakTTL = 24 * time.Hour
	// refreshInterval is how often a worker reads the pause from Redis.
	refreshInterval = time.Second
	// redisTimeout bounds one request to Redis.
	redisTimeout = 3 * time.Second
)

// Options are the settings of a Guard.
type Options struct {
	Gateway payment.Gateway
	Limit   int           // the number of payments refused in a row that pauses the gateway
	Probe   time.Duration // the time between two probes; 0: ProbeInterval
	Redis   redis.UniversalClient
	// Accepted returns how many payments the gateway has accepted so far. Any change is a
	// success.
	Accepted func(ctx context.Context, g payment.Gateway) (int64, error)

	Now      func() time.Time
	Log      *slog.Logger
	OnPaused func(paused bool) // called when the pause begins and when it ends; may be nil
}

// Guard counts the refusals of one gateway in one worker. It is safe for concurrent use.
type Guard struct {
	options Options

	mu        sync.Mutex
	paused    bool      // as last read from Redis
	code      string    // of the refusal that paused the gateway
	nextProbe time.Time // while paused: before that Redis is not asked for a probe
	changes   int       // how often paused has changed

	acceptedToken clients.TokenGeneration // the latest access token with which a payment was accepted
}

// New returns a Guard that assumes the gateway is not paused.
func New(o Options) *Guard {
	o.Probe = cmp.Or(o.Probe, ProbeInterval)
	if o.OnPaused == nil {
		o.OnPaused = func(bool) {}
	}
	return &Guard{options: o}
}

// Admission says whether a payment may be sent.
type Admission struct {
	Wait   time.Duration // positive: not now; retry after this time
	Reason string        // why it has to wait; contains no secrets
	Probe  string        // not empty: the payment is the probe of a paused gateway
}

// Admit decides whether a payment may be sent. While the gateway is not paused it makes no
// round trip. After a probe the caller has to call Adjust or Release. The error is Redis'.
func (g *Guard) Admit(ctx context.Context) (Admission, error) {
	g.mu.Lock()
	paused, wait, reason := g.paused, g.nextProbe.Sub(g.options.Now()), g.reason()
	g.mu.Unlock()
	switch {
	case !paused:
		return Admission{}, nil
	case wait > 0:
		return Admission{Wait: wait, Reason: reason}, nil
	}
	answer, err := g.admit(ctx)
	if err != nil {
		return Admission{}, fmt.Errorf("refusals: read the pause of %s: %w", g.options.Gateway, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch answer[0] {
	case "wait":
		ms, err := strconv.ParseInt(answer[1], 10, 64)
		if err != nil {
			return Admission{}, fmt.Errorf("refusals: next probe of %s: %w", g.options.Gateway, err)
		}
		wait := time.Duration(ms) * time.Millisecond
		g.nextProbe = g.options.Now().Add(wait)
		return Admission{Wait: wait, Reason: reason}, nil
	case "probe":
		g.nextProbe = g.options.Now().Add(g.options.Probe)
		return Admission{Probe: answer[1]}, nil
	default:
		g.setPause(pause{})
		return Admission{}, nil
	}
}

// admit runs admitScript and returns its answer.
func (g *Guard) admit(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	accepted, err := g.options.Accepted(ctx, g.options.Gateway)
	if err != nil {
		return nil, err
	}
	answer, err := admitScript.Run(ctx, g.options.Redis, []string{pauseKey(g.options.Gateway)},
		accepted, g.options.Probe.Milliseconds(),
	).StringSlice()
	if err == nil && len(answer) == 0 {
		err = errAnswer
	}
	return answer, err
}

var errAnswer = errors.New("unexpected answer of a script")

// Release releases a probe that was not sent.
func (g *Guard) Release(ctx context.Context, probe string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), redisTimeout)
	defer cancel()
	// If this fails, the next probe is sent a minute later.
	_ = releaseScript.Run(ctx, g.options.Redis, []string{pauseKey(g.options.Gateway)}, probe).Err()
	g.allowProbe()
}

// allowProbe makes the next Admit ask Redis whether the gateway is still paused.
func (g *Guard) allowProbe() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nextProbe = time.Time{}
}

// Adjust has to be called with every answer to a submit and the policy's decision on it. It
// returns the decision to follow: the policy's, or a review where the policy rejects and
// other payments were refused in the same way. probe is Admission.Probe of the payment. If
// Redis is unavailable, it is unknown whether other payments were refused: a review.
func (g *Guard) Adjust(ctx context.Context, probe string, key payment.Key, a clients.Answer, d retrypolicy.Decision) retrypolicy.Decision {
	switch g.classify(a, d) {
	case success:
		g.tokenAccepted(a.Token)
		if d.Action != retrypolicy.Accept {
			g.reset(ctx) // an override makes it a lookup or a review, which the ledger does not count as accepted
		}
		if probe != "" {
			g.allowProbe()
		}
	case refusalOfOrder:
		// The gateway processed our request, so it does not refuse us. Only a probe's answer
		// ends the pause: any other payment may have been sent before the pause began.
		if probe != "" {
			g.resume(ctx)
		}
	case maybeRefusalOfUs:
		count, err := g.count(ctx, probe, key, a)
		if d.Action != retrypolicy.Reject {
			break
		}
		refusal := a.Code
		if a.Message != "" {
			refusal += ": " + a.Message
		}
		switch {
		case err != nil:
			d.Action = retrypolicy.Review
			d.Reason = fmt.Sprintf("refused (%s), and Redis could not be asked whether other payments were refused in the same way", refusal)
		case count >= int64(min(reviewFrom, g.options.Limit)):
			d.Action = retrypolicy.Review
			d.Reason = fmt.Sprintf("refused (%s) like %d other payments in a row: check signature, credentials and merchant settings "+
				"before you treat it as a refusal of this order", refusal, count-1)
		}
	case inconclusive:
	}
	return d
}

// meaning is what an answer to a submit means for a streak.
type meaning int

const (
	inconclusive     meaning = iota // nothing: a timeout, a server error, "too many requests"
	success                         // the gateway accepted the payment
	refusalOfOrder                  // it certainly refused this order or its customer
	maybeRefusalOfUs                // it may have refused our credentials or settings: counts for the streak
)

// classify returns the meaning of an answer to a submit. A rejection counts, unless it is one
// of Paydia's codes about customers, or was decided by a rule with "match": with that the
// operator says that the message is about an order. A review, and a refused access token,
// are never about an order, so they count too. An access token that has worked and is then
// refused was revoked: all payments in flight are refused at once, and nothing is wrong with
// our settings.
func (g *Guard) classify(a clients.Answer, d retrypolicy.Decision) meaning {
	switch {
	case a.Receipt != nil || d.Action == retrypolicy.Accept:
		return success
	case a.HTTPStatus == 0: // no answer
		return inconclusive
	case g.options.Gateway == payment.Paydia && aboutCustomer(a.Code):
		return refusalOfOrder
	}
	switch d.Rule.Action {
	case retrypolicy.Reject:
		if d.Rule.Match != "" {
			return refusalOfOrder
		}
		return maybeRefusalOfUs
	case retrypolicy.Review, retrypolicy.RefreshToken:
		if a.HTTPStatus >= http.StatusInternalServerError { // an override may review server errors
			return inconclusive
		}
		if d.Rule.Action == retrypolicy.RefreshToken && g.tokenWorked(a.Token) {
			return inconclusive
		}
		return maybeRefusalOfUs
	default:
		return inconclusive
	}
}

func (g *Guard) tokenAccepted(t clients.TokenGeneration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.acceptedToken = max(g.acceptedToken, t)
}

// tokenWorked reports whether a payment was accepted with this access token, or with a newer
// one: then the answer is late.
func (g *Guard) tokenWorked(t clients.TokenGeneration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return t > 0 && t <= g.acceptedToken
}

// aboutCustomer reports whether a code of Paydia's is about the customer: 403xx02 to 403xx23
// (docs/gateways.md 3.1).
func aboutCustomer(code string) bool {
	if len(code) != 7 || !strings.HasPrefix(code, "403") {
		return false
	}
	n, err := strconv.Atoi(code[5:])
	return err == nil && n >= 2 && n <= 23
}

// count counts a refusal and returns the number of refused payments in its streak.
func (g *Guard) count(ctx context.Context, probe string, key payment.Key, a clients.Answer) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	o := g.options
	accepted, err := o.Accepted(ctx, o.Gateway)
	if err != nil {
		return 0, err
	}
	kind := kindOf(a.Code, a.Message, key.TransactionID)
	answer, err := countScript.Run(ctx, o.Redis, []string{streakKey(o.Gateway, kind), pauseKey(o.Gateway)},
		accepted, key.TransactionID, o.Limit, streakTTL.Milliseconds(), o.Probe.Milliseconds(), kind, a.Code, a.Message, probe,
	).Slice()
	if err != nil {
		return 0, err
	}
	if len(answer) != 2 {
		return 0, errAnswer
	}
	count, ok := answer[0].(int64)
	if !ok {
		return 0, errAnswer
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch paused := answer[1] == "paused"; {
	case paused && !g.paused:
		g.setPause(pause{on: true, code: a.Code, message: a.Message})
		g.nextProbe = o.Now().Add(o.Probe)
	case !paused && probe != "": // without a probe the answer may be older than a pause
		g.setPause(pause{})
	}
	return count, nil
}

// kindOf returns the kind of a refusal: a hash of its code and message. Two refusals with the
// same cause have the same kind: the message is stripped of what differs between payments,
// see normalize.
func kindOf(code, message, transactionID string) string {
	hash := sha256.Sum256([]byte(code + "\x00" + normalize(message, transactionID)))
	return hex.EncodeToString(hash[:16])
}

// idLength is the length from which a word with digits is assumed to be an id or a hash.
const idLength = 8

// normalize returns the words of a message in lower case, without the transaction id, ids,
// hashes, digits and punctuation.
func normalize(message, transactionID string) string {
	message = strings.ToLower(message)
	if transactionID != "" {
		message = strings.ReplaceAll(message, strings.ToLower(transactionID), " ")
	}
	var words []string
	for _, word := range strings.Fields(message) {
		if len(word) >= idLength && strings.ContainsAny(word, "0123456789") {
			continue
		}
		words = append(words, strings.FieldsFunc(word, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) })...)
	}
	return strings.Join(words, " ")
}

// resume ends the pause for all workers. It does not end the streak: the next refusal of the
// same kind pauses the gateway again.
func (g *Guard) resume(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	// If this fails, the next probe is sent a minute later.
	_ = g.options.Redis.HDel(ctx, pauseKey(g.options.Gateway), "paused").Err()
	g.allowProbe()
}

// reset ends all streaks and the pause, for all workers.
func (g *Guard) reset(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	if err := resetScript.Run(ctx, g.options.Redis, []string{pauseKey(g.options.Gateway)}, streakTTL.Milliseconds()).Err(); err != nil {
		g.options.Log.Warn("reset of refusal count failed: the gateway may stay paused for another minute", "gateway", g.options.Gateway, "error", err)
	}
}

// Watch calls Refresh every second until the context ends.
func (g *Guard) Watch(ctx context.Context) {
	tick := time.NewTicker(refreshInterval)
	defer tick.Stop()
	for {
		_ = g.Refresh(ctx) // when Redis is down nothing is sent, and package redishealth logs it
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Refresh reads from Redis whether the gateway is paused.
func (g *Guard) Refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	g.mu.Lock()
	changes := g.changes
	g.mu.Unlock()
	accepted, err := g.options.Accepted(ctx, g.options.Gateway)
	if err != nil {
		return err
	}
	fields, err := g.options.Redis.HMGet(ctx, pauseKey(g.options.Gateway), "paused", "resets", "code", "message").Result()
	if err != nil {
		return err
	}
	text := func(i int) string {
		s, _ := fields[i].(string)
		return s
	}
	streak := fmt.Sprintf("%d.%s", accepted, cmp.Or(text(1), "0"))
	g.mu.Lock()
	defer g.mu.Unlock()
	if changes == g.changes { // else an answer of the gateway is newer than what was read
		g.setPause(pause{on: text(0) == streak, code: text(2), message: text(3)})
	}
	return nil
}

// Paused reports whether the gateway is paused, as last read from Redis.
func (g *Guard) Paused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused
}

// pause is the state of the pause, with the refusal that began it.
type pause struct {
	on            bool
	code, message string
}

// setPause records and logs that the pause has begun or ended. The caller holds mu.
func (g *Guard) setPause(p pause) {
	if p.on == g.paused {
		return
	}
	g.paused, g.code, g.nextProbe = p.on, p.code, time.Time{}
	g.changes++
	if p.on {
		g.options.Log.Error("gateway paused: it refuses every payment with the same message; "+
			"one payment per minute is sent as a probe, all others wait", "gateway", g.options.Gateway,
			"payments", g.options.Limit, "code", p.code, "message", p.message)
	} else {
		g.options.Log.Info("gateway no longer paused", "gateway", g.options.Gateway)
	}
	g.options.OnPaused(p.on)
}

// reason returns the Reason of a wait. The caller holds mu.
func (g *Guard) reason() string {
	return fmt.Sprintf("paused: %d payments in a row were refused with the same message (%s)", g.options.Limit, g.code)
}
