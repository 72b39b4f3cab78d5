// Package refusals tells a refusal of ourselves from a refusal of an order. A
// gateway that refuses one payment after the other in the same words does not
// refuse the orders: a signature, a credential or a merchant setting of ours is
// wrong. So refusals in a row are counted, in Redis, over all workers: from the
// third on a payment goes to review instead of being rejected, and at a limit
// the gateway is paused but for one probe payment a minute.
//
// A row is of different payments with the same gateway, code and words (digits
// left out), with no payment accepted between them. Nobody has to report a
// success: the ledger counts accepted payments, and a row belongs to one count.
//
// The counts are not waited for as the ledger's writes are: a failover that loses
// them lets two more payments be rejected, no more.
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
	// reviewFrom is the place in a row from which on a refused payment goes to
	// review. Two customers in a row may well be declined in the same words.
	reviewFrom = 3
	// ProbeInterval is the time from one probe of a paused gateway to the next.
	ProbeInterval = time.Minute
	// keep is how long a row that does not grow is remembered: a shop with a few
	// payments a day has rows, too.
	keep = 24 * time.Hour
	// refresh is how old what a worker knows about a pause may be.
	refresh = time.Second
	// askTimeout bounds one question to Redis.
	askTimeout = 3 * time.Second
)

// Options are the settings of a Guard.
type Options struct {
	Gateway payment.Gateway
	Limit   int           // so many payments refused in a row pause the gateway
	Probe   time.Duration // the time from one probe to the next; 0: ProbeInterval
	Redis   redis.UniversalClient
	// Accepted says how many payments the gateway has accepted, ever. Any change is
	// a success.
	Accepted func(ctx context.Context, g payment.Gateway) (int64, error)

	Now      func() time.Time
	Log      *slog.Logger
	OnPaused func(paused bool) // told when the gateway is paused, and when it no longer is; may be nil
}

// Guard watches the refusals of one gateway in one worker. It is safe for
// concurrent use.
type Guard struct {
	options Options

	mu     sync.Mutex
	paused bool      // as far as this worker knows
	ask    time.Time // while paused: when Redis is next asked for a probe
	code   string    // of the refusal that paused it
	turns  int       // how often paused has changed
}

// New makes a guard: the gateway is not paused as far as it knows.
func New(o Options) *Guard {
	o.Probe = cmp.Or(o.Probe, ProbeInterval)
	if o.OnPaused == nil {
		o.OnPaused = func(bool) {}
	}
	return &Guard{options: o}
}

// Admission says whether a payment may be sent.
type Admission struct {
	Wait   time.Duration // positive: not before that
	Reason string        // of a wait, in words, safe to show anywhere
	Probe  string        // not empty: the payment is the probe of a paused gateway
}

// Admit asks to send a payment. It costs no round trip while the gateway is not
// paused. A probe must be weighed or released. The error is Redis'.
func (g *Guard) Admit(ctx context.Context) (Admission, error) {
	g.mu.Lock()
	paused, wait, reason := g.paused, g.ask.Sub(g.options.Now()), g.reason()
	g.mu.Unlock()
	switch {
	case !paused:
		return Admission{}, nil
	case wait > 0:
		return Admission{Wait: wait, Reason: reason}, nil
	}
	answer, err := g.admit(ctx)
	if err != nil {
		return Admission{}, fmt.Errorf("refusals: is %s paused: %w", g.options.Gateway, err)
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
		g.ask = g.options.Now().Add(wait)
		return Admission{Wait: wait, Reason: reason}, nil
	case "probe":
		g.ask = g.options.Now().Add(g.options.Probe)
		return Admission{Probe: answer[1]}, nil
	default:
		g.learn(pause{})
		return Admission{}, nil
	}
}

func (g *Guard) admit(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
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

// Release gives back a probe that was not sent.
func (g *Guard) Release(ctx context.Context, probe string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	// Where that fails the next probe is a minute away: nothing is lost but time.
	_ = releaseScript.Run(ctx, g.options.Redis, []string{pauseKey(g.options.Gateway)}, probe).Err()
	g.askAgain()
}

// askAgain lets the next payment ask Redis whether the gateway is still paused.
func (g *Guard) askAgain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ask = time.Time{}
}

// Adjust is told of every answer to a submit and what the policy makes of it, and
// returns what follows: the same, or a review where the policy would reject and
// others were refused alike. Probe is that of the payment's admission. Where
// Redis cannot be asked nobody knows whether others were refused alike: a review.
func (g *Guard) Adjust(ctx context.Context, probe string, key payment.Key, a clients.Answer, d retrypolicy.Decision) retrypolicy.Decision {
	switch evidenceOf(g.options.Gateway, a, d) {
	case success:
		if d.Action != retrypolicy.Accept {
			g.reset(ctx) // the ledger does not count it: an override wants it looked up or reviewed
		}
		if probe != "" {
			g.askAgain()
		}
	case refusedOrder:
		// It was understood and judged as an order, so we are not refused. Only of a
		// probe that is known to have been sent after what had been refused before.
		if probe != "" {
			g.resume(ctx)
		}
	case refusedUs:
		count, err := g.count(ctx, probe, key, a)
		if d.Action != retrypolicy.Reject {
			break
		}
		words := a.Code
		if a.Message != "" {
			words += ": " + a.Message
		}
		switch {
		case err != nil:
			d.Action = retrypolicy.Review
			d.Reason = fmt.Sprintf("refused (%s), and Redis could not be asked whether other payments were refused alike", words)
		case count >= int64(min(reviewFrom, g.options.Limit)):
			d.Action = retrypolicy.Review
			d.Reason = fmt.Sprintf("refused (%s) like %d other payments in a row: check signature, credentials and merchant settings before it is taken for a refusal of the order", words, count-1)
		}
	case silence:
	}
	return d
}

// evidence is what an answer says about us.
type evidence int

const (
	silence      evidence = iota // nothing: a time-out, a server error, "too many requests"
	success                      // the gateway took the payment
	refusedOrder                 // it certainly refused this order or this customer
	refusedUs                    // it may have refused us
)

// evidenceOf says what an answer to a submit says about us. What the policy
// rejects may be about us, unless it is one of Paydia's customers' codes or the
// operator has said, by a rule with match, that these words are about an order.
// What it reviews, or sends again with a new token, is about us in any case, so
// it pauses the gateway, too.
func evidenceOf(g payment.Gateway, a clients.Answer, d retrypolicy.Decision) evidence {
	switch {
	case a.Receipt != nil || d.Action == retrypolicy.Accept:
		return success
	case a.HTTPStatus == 0: // no answer
		return silence
	case g == payment.Paydia && customers(a.Code):
		return refusedOrder
	}
	switch d.Rule.Action {
	case retrypolicy.Reject:
		if d.Rule.Match != "" {
			return refusedOrder
		}
		return refusedUs
	case retrypolicy.Review, retrypolicy.RefreshToken:
		if a.HTTPStatus >= http.StatusInternalServerError { // a policy may review a server error
			return silence
		}
		return refusedUs
	default:
		return silence
	}
}

// customers reports whether a code of Paydia's is about the customer: 403xx02 to
// 403xx23 (gateways.md 3.1).
func customers(code string) bool {
	if len(code) != 7 || !strings.HasPrefix(code, "403") {
		return false
	}
	n, err := strconv.Atoi(code[5:])
	return err == nil && n >= 2 && n <= 23
}

// count counts a refusal and returns its place in the row.
func (g *Guard) count(ctx context.Context, probe string, key payment.Key, a clients.Answer) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	o := g.options
	accepted, err := o.Accepted(ctx, o.Gateway)
	if err != nil {
		return 0, err
	}
	kind := kindOf(a.Code, a.Message, key.TransactionID)
	answer, err := countScript.Run(ctx, o.Redis, []string{rowKey(o.Gateway, kind), pauseKey(o.Gateway)},
		accepted, key.TransactionID, o.Limit, keep.Milliseconds(), o.Probe.Milliseconds(), kind, a.Code, a.Message, probe,
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
		g.learn(pause{on: true, code: a.Code, message: a.Message})
		g.ask = o.Now().Add(o.Probe)
	case !paused && probe != "": // another answer may have been overtaken by the pause
		g.learn(pause{})
	}
	return count, nil
}

// kindOf is the kind of a refusal: code and words. Digits are left out, and so is
// what tells one payment from another in the gateway's words: the transaction id
// and longer words with digits in them, such as ids and hashes.
func kindOf(code, message, transactionID string) string {
	hash := sha256.Sum256([]byte(code + "\x00" + wordsOf(message, transactionID)))
	return hex.EncodeToString(hash[:16])
}

// idLength is the length from which on a word of letters and digits is taken for
// an id or a hash.
const idLength = 8

func wordsOf(message, transactionID string) string {
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

// resume ends the pause, for all workers, and no row: the next refusal of the kind
// that began it begins it again.
func (g *Guard) resume(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	// Where that fails the next probe is a minute away: nothing is lost but time.
	_ = g.options.Redis.HDel(ctx, pauseKey(g.options.Gateway), "paused").Err()
	g.askAgain()
}

// reset ends every row and the pause, for all workers.
func (g *Guard) reset(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := resetScript.Run(ctx, g.options.Redis, []string{pauseKey(g.options.Gateway)}, keep.Milliseconds()).Err(); err != nil {
		g.options.Log.Warn("refusals in a row cannot be reset: the gateway may stay paused for another minute", "gateway", g.options.Gateway, "error", err)
	}
}

// Watch keeps what this worker knows about the pause up to date until the context
// ends: one round trip a second.
func (g *Guard) Watch(ctx context.Context) {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		_ = g.Refresh(ctx) // without Redis nothing is sent, and it is told elsewhere
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Refresh looks once whether the gateway is paused.
func (g *Guard) Refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	g.mu.Lock()
	turns := g.turns
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
	row := fmt.Sprintf("%d.%s", accepted, cmp.Or(text(1), "0"))
	g.mu.Lock()
	defer g.mu.Unlock()
	if turns == g.turns { // else somebody knows better
		g.learn(pause{on: text(0) == row, code: text(2), message: text(3)})
	}
	return nil
}

// Paused reports whether the gateway is paused, as far as this worker knows.
func (g *Guard) Paused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.paused
}

// pause is what is known about a pause.
type pause struct {
	on            bool
	code, message string
}

// learn takes note of a pause, or of its end, and says so. The caller holds mu.
func (g *Guard) learn(p pause) {
	if p.on == g.paused {
		return
	}
	g.paused, g.code, g.ask = p.on, p.code, time.Time{}
	g.turns++
	if p.on {
		g.options.Log.Error("the gateway is paused: it refuses one payment after the other in the same words; "+
			"its payments wait, and one a minute probes whether it still does", "gateway", g.options.Gateway,
			"payments", g.options.Limit, "code", p.code, "message", p.message)
	} else {
		g.options.Log.Info("the gateway is no longer paused", "gateway", g.options.Gateway)
	}
	g.options.OnPaused(p.on)
}

// reason is that of a wait, in words. The caller holds mu.
func (g *Guard) reason() string {
	return fmt.Sprintf("paused: %d payments in a row were refused alike (%s)", g.options.Limit, g.code)
}
