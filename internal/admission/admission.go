// Package admission says whether a gateway may be asked right now. A gate has four
// doors: the gateway's own request to be left alone (Retry-After), a circuit
// breaker, for submits a pause when the gateway refuses us (package refusals),
// and a rate limit that all workers share. Whoever is turned away has
// claimed, sent and asked nothing, spends no attempt, and is told when to come
// back.
package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"terbayar/internal/clients"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/refusals"
	"terbayar/internal/retrypolicy"
)

// Options are the settings of a gate.
type Options struct {
	Gateway  payment.Gateway
	Failures int           // so many in a row open the circuit breaker
	Pause    time.Duration // how long it then stays open; on the real clock, gobreaker knows no other

	Requests int           // the rate limit: so many requests, logins not counted, ...
	Per      time.Duration // ... in this time, of all workers together; 0: no limit
	Redis    redis.UniversalClient

	Refusals *refusals.Guard // pauses submits when the gateway refuses us; nil: never

	Now func() time.Time
	Log *slog.Logger // told when the breaker opens and when it closes
	// OnState is told of every state the breaker reaches: 0 closed, 1 half-open,
	// 2 open. It must not call the gate.
	OnState func(state int)
	// OnLogin is told, before every request that the gate lets through, whether the
	// gateway can be logged in to; may be nil.
	OnLogin func(err error)
}

// Controller stands before one gateway in one worker. A nil Gate is always open.
type Controller struct {
	options  Options
	breaker  *gobreaker.TwoStepCircuitBreaker[any]
	limiter  *redis_rate.Limiter
	limit    redis_rate.Limit
	stopping chan struct{} // closed: the worker ends
	once     sync.Once     // to close it

	mu         sync.Mutex
	retryAfter time.Time               // until when the gateway asked to be left alone
	reopens    time.Time               // when the open breaker lets a request try; real clock
	lastSlot   time.Time               // the latest turn given to those who found no room
	failure    string                  // the code of the latest failure
	login      error                   // the latest failure of a login, as it was counted
	token      clients.TokenGeneration // the one in use when the gateway last failed
}

// New makes a gate: open, with its breaker closed.
func New(o Options) *Controller {
	g := &Controller{options: o, stopping: make(chan struct{})}
	g.breaker = gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		Timeout:       o.Pause,
		ReadyToTrip:   func(c gobreaker.Counts) bool { return int64(c.ConsecutiveFailures) >= int64(o.Failures) },
		IsExcluded:    func(err error) bool { return errors.Is(err, errNoEvidence) },
		OnStateChange: g.changed,
	})
	if o.Per > 0 {
		g.limiter = redis_rate.NewLimiter(o.Redis)
		// Tasks that come again do so in steps of a second (see internal/tasks), so
		// one second's worth of requests may come at once; no more, or "300/m" would
		// let 600 through in one minute.
		burst := max(1, int(time.Duration(o.Requests)*time.Second/o.Per))
		g.limit = redis_rate.Limit{Rate: o.Requests, Burst: burst, Period: o.Per}
	}
	return g
}

// Stop closes the gate for good, since the worker ends: requests under way go on, and
// no other begins.
func (g *Controller) Stop() { g.once.Do(func() { close(g.stopping) }) }

// DeniedError says that the gateway may not be asked right now.
type DeniedError struct {
	Gateway payment.Gateway
	Reason  string        // in words, safe to show anywhere
	Wait    time.Duration // when to come back; differs from caller to caller, so that not all do at once
}

func (c *DeniedError) Error() string { return fmt.Sprintf("%s is not asked: %s", c.Gateway, c.Reason) }

// spread is the answer to those who are turned away for a time that is the same
// for all of them.
func (g *Controller) deny(reason string, d time.Duration) *DeniedError {
	d = max(d, 0)
	return &DeniedError{g.options.Gateway, reason, d + jitter(d/4+time.Second)}
}

// jitter is some time shorter than d.
func jitter(d time.Duration) time.Duration {
	return rand.N(d) //nolint:gosec // G404: it spreads load and keeps no secret
}

// Allow asks to make one submit, and logs in if need be. The error is a *Closed, a
// *clients.Error when the gateway cannot be logged in to, or that of a Redis
// without which nobody knows whether the limit has room. The pass must be left,
// whatever happens.
func (g *Controller) Allow(ctx context.Context, gateway clients.Gateway) (*Permit, error) {
	pass, wait, err := g.admit(ctx, true)
	if wait > 0 {
		err = &DeniedError{g.options.Gateway, reasonRateLimit, g.nextSlot(wait)}
	}
	if err == nil {
		err = pass.logIn(ctx, gateway)
	}
	if err != nil {
		return nil, err
	}
	return pass, nil
}

// Ready reports whether a lookup would be let through now, as far as can be told without
// making one, and logs in if need be. The errors are those of Enter.
func (g *Controller) Ready(ctx context.Context, gateway clients.Gateway) error {
	if g == nil {
		return gateway.Authenticate(ctx)
	}
	if closed := g.denied(); closed != nil {
		return closed
	}
	if g.breaker.State() == gobreaker.StateOpen {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.deny(reasonOpen, time.Until(g.reopens))
	}
	return (&Permit{controller: g}).logIn(ctx, gateway)
}

// Lookup makes one look-up, logging in if need be, and reports its answer. For room
// within the rate limit it waits, unless the context would end first. The errors
// are those of Enter; nothing was asked then.
func (g *Controller) Lookup(ctx context.Context, gateway clients.Gateway, lookUp func() clients.Answer) (clients.Answer, error) {
	pass, wait, err := g.admit(ctx, false)
	for wait > 0 {
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return clients.Answer{}, &DeniedError{g.options.Gateway, reasonRateLimit, wait}
		}
		select {
		case <-ctx.Done():
			return clients.Answer{}, &DeniedError{g.options.Gateway, reasonRateLimit, wait}
		case <-g.stopping: // which the next knock is told
		case <-time.After(wait):
		}
		pass, wait, err = g.admit(ctx, false)
	}
	if err == nil {
		err = pass.logIn(ctx, gateway)
	}
	if err != nil {
		return clients.Answer{}, err
	}
	defer pass.Release()
	answer := lookUp()
	if ctx.Err() == nil { // else it was broken off by us
		pass.Report(answer)
	}
	return answer, nil
}

// The reasons of a Closed.
const (
	reasonRetryAfter = "it asked to be left alone for a while"
	reasonOpen       = "circuit breaker is open"
	reasonHalfOpen   = "circuit breaker is half-open"
	reasonRateLimit  = "rate limit has no room"
	reasonStopping   = "the worker ends"
)

// knock tries the doors. A positive wait: the rate limit has no room until then.
func (g *Controller) admit(ctx context.Context, submit bool) (pass *Permit, wait time.Duration, err error) {
	if g == nil {
		return &Permit{}, 0, nil
	}
	if closed := g.denied(); closed != nil {
		return nil, 0, closed
	}
	done, err := g.breaker.Allow()
	switch {
	case errors.Is(err, gobreaker.ErrOpenState):
		g.mu.Lock()
		defer g.mu.Unlock()
		return nil, 0, g.deny(reasonOpen, time.Until(g.reopens))
	case err != nil:
		return nil, 0, g.deny(reasonHalfOpen, g.options.Pause/4) // the answer to the one that tries is near
	}
	pass = &Permit{controller: g, done: done}
	if submit && g.options.Refusals != nil {
		admission, err := g.options.Refusals.Admit(ctx)
		if err == nil && admission.Wait > 0 {
			err = g.deny(admission.Reason, admission.Wait)
		}
		if err != nil {
			pass.Release()
			return nil, 0, err
		}
		pass.probe = admission.Probe
	}
	if g.limiter == nil {
		return pass, 0, nil
	}
	result, err := g.limiter.Allow(ctx, rateKey(g.options.Gateway), g.limit)
	switch {
	case err != nil:
		pass.Release()
		return nil, 0, fmt.Errorf("admission: rate limit of %s: %w", g.options.Gateway, err)
	case result.Allowed == 0:
		pass.Release()
		return nil, max(result.RetryAfter, time.Millisecond), nil
	}
	return pass, 0, nil
}

// closed says why nobody may ask whatever the breaker and the limit say; nil: they may.
func (g *Controller) denied() error {
	select {
	case <-g.stopping:
		return g.deny(reasonStopping, 0)
	default:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if rest := g.retryAfter.Sub(g.options.Now()); rest > 0 {
		return g.deny(reasonRetryAfter, rest)
	}
	return nil
}

// rateKey holds what is used up of a gateway's rate limit, for redis_rate, which
// puts "rate:" before it. Its hash tag is the ledger's: in a Redis Cluster the
// limit is out of reach when the ledger is, and at no other time.
func rateKey(g payment.Gateway) string { return "{" + ledger.DefaultStream + "}:" + string(g) }

// farthestTurn is the longest that a submit is told to wait for its turn. The
// rate limit is shared, so a turn farther away is only a guess.
const farthestSlot = 5 * time.Minute

// turn is when a submit that found no room for at least so long comes back: each
// at a turn of its own, one behind the other at the limit's pace. Ten thousand
// that came back together would only be turned away again.
func (g *Controller) nextSlot(wait time.Duration) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.options.Now()
	turn := g.lastSlot.Add(g.options.Per / time.Duration(g.options.Requests))
	if soonest := now.Add(wait); turn.Before(soonest) {
		turn = soonest
	}
	if turn.Sub(now) > farthestSlot {
		return farthestSlot/2 + jitter(farthestSlot/2)
	}
	g.lastSlot = turn
	return turn.Sub(now)
}

// changed hears of the breaker's states, under the breaker's own lock.
func (g *Controller) changed(_ string, from, to gobreaker.State) {
	g.mu.Lock()
	defer g.mu.Unlock()
	log := g.options.Log.With("gateway", g.options.Gateway)
	switch {
	case to == gobreaker.StateOpen:
		g.reopens = time.Now().Add(g.options.Pause)
		if from == gobreaker.StateClosed { // an outage is told once, not with every try
			log.Warn("circuit breaker opens: the gateway is left alone",
				"failures", g.options.Failures, "code", g.failure, "pause", g.options.Pause.String())
		}
	case to == gobreaker.StateClosed:
		log.Info("circuit breaker closes: the gateway answers again")
	}
	g.options.OnState(int(to))
}

// Watch keeps what the gate knows about a pause up to date until the context ends.
func (g *Controller) Watch(ctx context.Context) {
	if g != nil && g.options.Refusals != nil {
		g.options.Refusals.Watch(ctx)
	}
}

// Permit is the permission to make one request. It is for one goroutine.
type Permit struct {
	controller *Controller
	done       func(error) // nil once the breaker was told
	probe      string      // not empty: the request is the probe of a paused gateway, not weighed yet
}

// What the breaker is told of a request: success is nil.
var (
	errFailed     = errors.New("the gateway failed")
	errNoEvidence = errors.New("the request says nothing about the gateway")
)

// Report tells the gate what the request came to.
func (p *Permit) Report(a clients.Answer) {
	g := p.controller
	if g == nil || a.At.IsZero() { // nothing was sent, for a reason of our own
		return
	}
	var outcome error
	g.mu.Lock()
	if rest := g.options.Now().Add(a.RetryAfter); a.RetryAfter > 0 && rest.After(g.retryAfter) {
		g.retryAfter = rest
	}
	if failing(a) {
		outcome = errFailed
		g.failure, g.token = a.Code, max(g.token, a.Token)
	}
	g.mu.Unlock()
	p.tell(outcome)
}

// Adjust is told of the answer to a submit and what the policy makes of it, and
// returns what follows: the same, or a review where the policy would reject and
// other payments were refused alike. See package refusals.
func (p *Permit) Adjust(ctx context.Context, key payment.Key, a clients.Answer, d retrypolicy.Decision) retrypolicy.Decision {
	if p.controller == nil || p.controller.options.Refusals == nil {
		return d
	}
	if a.At.IsZero() { // nothing was sent, for a reason of our own: another may be the probe
		return d
	}
	probe := p.probe
	p.probe = ""
	return p.controller.options.Refusals.Adjust(ctx, probe, key, a, d)
}

// Release gives the pass back. Of a request that was not reported nothing is
// learnt: were it the one that tries a half-open breaker, or the probe of a paused
// gateway, another may try.
func (p *Permit) Release() {
	p.tell(errNoEvidence)
	if p.probe != "" {
		p.controller.options.Refusals.Release(context.Background(), p.probe)
		p.probe = ""
	}
}

func (p *Permit) tell(outcome error) {
	if p.done != nil {
		p.done(outcome)
		p.done = nil
	}
}

// logIn sees to it that an access token is at hand. Where it is not, the pass is
// left.
//
// The request that tries a half-open breaker begins with a new login: while that
// fails, no payment is claimed, and an outage costs no attempt at all.
func (p *Permit) logIn(ctx context.Context, gateway clients.Gateway) error {
	loggedIn := false
	defer func() {
		if !loggedIn { // by an error or by a panic
			p.Release()
		}
	}()
	if g := p.controller; g != nil && g.breaker.State() == gobreaker.StateHalfOpen {
		g.mu.Lock()
		token := g.token
		g.mu.Unlock()
		gateway.RenewToken(token)
	}
	err := gateway.Authenticate(ctx)
	if g := p.controller; g != nil && g.options.OnLogin != nil && ctx.Err() == nil {
		g.options.OnLogin(err)
	}
	if err == nil {
		loggedIn = true
		return nil
	}
	var failure *clients.Error
	if ctx.Err() == nil && errors.As(err, &failure) && p.controller.firstHeard(err) {
		p.Report(clients.Answer{
			Code: failure.Code, HTTPStatus: failure.HTTPStatus, RetryAfter: failure.RetryAfter, At: time.Now(),
		})
	}
	return err
}

// firstHeard reports whether the failure of a login is a new one. A client makes
// one login for all who ask and gives all of them the same error: that is one
// failure, not fifty.
func (g *Controller) firstHeard(err error) bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if errors.Is(err, g.login) {
		return false
	}
	g.login = err
	return true
}

// failing reports whether an answer counts against the gateway: no answer at
// all, one that cannot be read, or one that says that the gateway is in trouble.
// What it refuses, throttles or accepts for later it has understood.
func failing(a clients.Answer) bool {
	switch a.Code {
	case retrypolicy.CodeUnsent, retrypolicy.CodeUnknown:
		return true
	case retrypolicy.CodeUnreadable:
		return a.HTTPStatus != http.StatusAccepted // AM's "in progress" has no body that we know
	default:
		snap := len(a.Code) == 7 && strings.Trim(a.Code, "0123456789") == ""
		return strings.HasPrefix(a.Code, "http:5") || snap && a.Code[0] == '5'
	}
}
