// Package admission decides whether a request may be made to a gateway now. A Controller
// checks, in this order: the gateway's last Retry-After, a circuit breaker, for submits the
// pause of package refusals, and a rate limit that all workers share. A caller that is denied
// has sent and claimed nothing, spends no attempt, and gets the time to wait.
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

// Options are the settings of a Controller.
type Options struct {
	Gateway  payment.Gateway
	Failures int           // consecutive failures that open the circuit breaker
	Pause    time.Duration // how long it then stays open, by the real clock: gobreaker uses no other

	Requests int           // rate limit: the number of requests (without logins) ...
	Per      time.Duration // ... per this duration, of all workers together; 0: no limit
	Redis    redis.UniversalClient

	Refusals *refusals.Guard // pauses submits while the gateway refuses us; nil: never

	Now func() time.Time
	Log *slog.Logger // logs when the breaker opens and closes
	// OnState is called with every new state of the breaker: 0 closed, 1 half-open, 2 open.
	// It must not call the Controller.
	OnState func(state int)
	// OnLogin is called with the result of the login, before every request that is allowed;
	// may be nil.
	OnLogin func(err error)
}

// Controller controls one worker's requests to one gateway. A nil Controller allows all.
type Controller struct {
	options  Options
	breaker  *gobreaker.TwoStepCircuitBreaker[any]
	limiter  *redis_rate.Limiter
	limit    redis_rate.Limit
	stopping chan struct{} // closed by Stop
	stopOnce sync.Once

	mu         sync.Mutex
	retryAfter time.Time               // end of the gateway's last Retry-After
	reopens    time.Time               // when the open breaker becomes half-open; real clock
	lastSlot   time.Time               // the last slot given to a submit that exceeded the rate limit
	failure    string                  // code of the last failure
	login      error                   // the last login failure that was counted
	token      clients.TokenGeneration // the access token in use at the last failure
}

// New returns a Controller whose breaker is closed.
func New(o Options) *Controller {
	c := &Controller{options: o, stopping: make(chan struct{})}
	c.breaker = gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		Timeout:       o.Pause,
		ReadyToTrip:   func(n gobreaker.Counts) bool { return int64(n.ConsecutiveFailures) >= int64(o.Failures) },
		IsExcluded:    func(err error) bool { return errors.Is(err, errNoResult) },
		OnStateChange: c.stateChanged,
	})
	if o.Per > 0 {
		c.limiter = redis_rate.NewLimiter(o.Redis)
		// asynq runs retries in steps of a second (see internal/tasks), so the burst is what
		// the limit allows in one second. A larger one would let "300/m" send 600 in a minute.
		burst := max(1, int(time.Duration(o.Requests)*time.Second/o.Per))
		c.limit = redis_rate.Limit{Rate: o.Requests, Burst: burst, Period: o.Per}
	}
	return c
}

// Stop denies all further requests, because the worker shuts down. Requests in flight
// continue.
func (c *Controller) Stop() { c.stopOnce.Do(func() { close(c.stopping) }) }

// DeniedError says that no request may be made to the gateway now.
type DeniedError struct {
	Gateway payment.Gateway
	Reason  string        // contains no secrets
	Wait    time.Duration // when to try again; with jitter, so that not all callers do at once
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("request to %s denied: %s", e.Gateway, e.Reason)
}

// deny returns a DeniedError for a wait that is the same for all callers, with jitter added.
func (c *Controller) deny(reason string, wait time.Duration) *DeniedError {
	wait = max(wait, 0)
	return &DeniedError{c.options.Gateway, reason, wait + jitter(wait/4+time.Second)}
}

// jitter returns a random duration shorter than d.
func jitter(d time.Duration) time.Duration {
	return rand.N(d) //nolint:gosec // G404: it spreads load and keeps no secret
}

// Allow asks for a permit for one submit, and logs in if necessary. The error is a
// *DeniedError, a *clients.Error if the login failed, or that of Redis, without which the
// rate limit is unknown. The caller has to call Release.
func (c *Controller) Allow(ctx context.Context, gateway clients.Gateway) (*Permit, error) {
	permit, wait, err := c.admit(ctx, true)
	if wait > 0 {
		err = &DeniedError{c.options.Gateway, reasonRateLimit, c.nextSlot(wait)}
	}
	if err == nil {
		err = permit.logIn(ctx, gateway)
	}
	if err != nil {
		return nil, err
	}
	return permit, nil
}

// Ready reports whether a lookup would be allowed now, and logs in if necessary. It does not
// check the rate limit. Its errors are those of Allow.
func (c *Controller) Ready(ctx context.Context, gateway clients.Gateway) error {
	if c == nil {
		return gateway.Authenticate(ctx)
	}
	if err := c.denied(); err != nil {
		return err
	}
	if c.breaker.State() == gobreaker.StateOpen {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.deny(reasonOpen, time.Until(c.reopens))
	}
	return (&Permit{controller: c}).logIn(ctx, gateway)
}

// Lookup makes one lookup when it is allowed, logs in if necessary, and reports the answer to
// the breaker. It waits for the rate limit unless the context would end first. Its errors are
// those of Allow; then send was not called.
func (c *Controller) Lookup(ctx context.Context, gateway clients.Gateway, send func() clients.Answer) (clients.Answer, error) {
	permit, wait, err := c.admit(ctx, false)
	for wait > 0 {
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return clients.Answer{}, &DeniedError{c.options.Gateway, reasonRateLimit, wait}
		}
		select {
		case <-ctx.Done():
			return clients.Answer{}, &DeniedError{c.options.Gateway, reasonRateLimit, wait}
		case <-c.stopping: // admit denies it
		case <-time.After(wait):
		}
		permit, wait, err = c.admit(ctx, false)
	}
	if err == nil {
		err = permit.logIn(ctx, gateway)
	}
	if err != nil {
		return clients.Answer{}, err
	}
	defer permit.Release()
	answer := send()
	if ctx.Err() == nil { // else we cancelled it ourselves
		permit.Report(answer)
	}
	return answer, nil
}

// The reasons of a DeniedError.
const (
	reasonRetryAfter = "waiting for the gateway's Retry-After"
	reasonOpen       = "circuit breaker is open"
	reasonHalfOpen   = "circuit breaker is half-open"
	reasonRateLimit  = "rate limit reached"
	reasonStopping   = "worker is shutting down"
)

// admit returns a permit, without a login. A positive wait means that the rate limit is
// reached for that time; permit and err are then nil.
func (c *Controller) admit(ctx context.Context, submit bool) (permit *Permit, wait time.Duration, err error) {
	if c == nil {
		return &Permit{}, 0, nil
	}
	if err := c.denied(); err != nil {
		return nil, 0, err
	}
	done, err := c.breaker.Allow()
	switch {
	case errors.Is(err, gobreaker.ErrOpenState):
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, 0, c.deny(reasonOpen, time.Until(c.reopens))
	case err != nil: // half-open: one request is in flight, its answer will come soon
		return nil, 0, c.deny(reasonHalfOpen, c.options.Pause/4)
	}
	permit = &Permit{controller: c, done: done}
	if submit && c.options.Refusals != nil {
		admission, err := c.options.Refusals.Admit(ctx)
		if err == nil && admission.Wait > 0 {
			err = c.deny(admission.Reason, admission.Wait)
		}
		if err != nil {
			permit.Release()
			return nil, 0, err
		}
		permit.probe = admission.Probe
	}
	if c.limiter == nil {
		return permit, 0, nil
	}
	result, err := c.limiter.Allow(ctx, rateKey(c.options.Gateway), c.limit)
	switch {
	case err != nil:
		permit.Release()
		return nil, 0, fmt.Errorf("admission: rate limit of %s: %w", c.options.Gateway, err)
	case result.Allowed == 0:
		permit.Release()
		return nil, max(result.RetryAfter, time.Millisecond), nil
	}
	return permit, 0, nil
}

// denied returns an error after Stop and during the gateway's Retry-After.
func (c *Controller) denied() error {
	select {
	case <-c.stopping:
		return c.deny(reasonStopping, 0)
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if rest := c.retryAfter.Sub(c.options.Now()); rest > 0 {
		return c.deny(reasonRetryAfter, rest)
	}
	return nil
}

// rateKey returns the key of a gateway's rate limit; redis_rate prepends "rate:". It has the
// ledger's hash tag: in a Redis Cluster the limit is unavailable only when the ledger is.
func rateKey(g payment.Gateway) string { return "{" + ledger.DefaultStream + "}:" + string(g) }

// maxSlotWait is the longest wait for a slot. All workers share the rate limit, so a slot
// further in the future would only be a guess.
const maxSlotWait = 5 * time.Minute

// nextSlot returns when a submit that exceeded the rate limit should try again: after at
// least wait, in a slot of its own. The slots are spaced by the rate limit: ten thousand
// submits that tried again together would be denied again.
func (c *Controller) nextSlot(wait time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.options.Now()
	slot := c.lastSlot.Add(c.options.Per / time.Duration(c.options.Requests))
	if earliest := now.Add(wait); slot.Before(earliest) {
		slot = earliest
	}
	if slot.Sub(now) > maxSlotWait {
		return maxSlotWait/2 + jitter(maxSlotWait/2)
	}
	c.lastSlot = slot
	return slot.Sub(now)
}

// stateChanged is called by the breaker, with the breaker's lock held.
func (c *Controller) stateChanged(_ string, from, to gobreaker.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log := c.options.Log.With("gateway", c.options.Gateway)
	switch {
	case to == gobreaker.StateOpen:
		c.reopens = time.Now().Add(c.options.Pause)
		if from == gobreaker.StateClosed { // log an outage once, not after every failed try
			log.Warn("circuit breaker opened",
				"failures", c.options.Failures, "code", c.failure, "pause", c.options.Pause.String())
		}
	case to == gobreaker.StateClosed:
		log.Info("circuit breaker closed")
	}
	c.options.OnState(int(to))
}

// Watch keeps this worker's copy of the pause of package refusals up to date, until the
// context ends.
func (c *Controller) Watch(ctx context.Context) {
	if c != nil && c.options.Refusals != nil {
		c.options.Refusals.Watch(ctx)
	}
}

// Permit is the permission to make one request. Use it in one goroutine only.
type Permit struct {
	controller *Controller
	done       func(error) // reports to the breaker; nil afterwards
	probe      string      // not empty: the request is the probe of a paused gateway, without a result yet
}

// What is reported to the breaker; nil is a success.
var (
	errFailed   = errors.New("the gateway failed")
	errNoResult = errors.New("the request has no result")
)

// Report reports the answer to the breaker, and obeys its Retry-After.
func (p *Permit) Report(a clients.Answer) {
	c := p.controller
	if c == nil || a.At.IsZero() { // zero: nothing was sent, for a reason of our own
		return
	}
	var outcome error
	c.mu.Lock()
	if end := c.options.Now().Add(a.RetryAfter); a.RetryAfter > 0 && end.After(c.retryAfter) {
		c.retryAfter = end
	}
	if countsAsFailure(a) {
		outcome = errFailed
		c.failure, c.token = a.Code, max(c.token, a.Token)
	}
	c.mu.Unlock()
	p.finish(outcome)
}

// Adjust has to be called with the answer to a submit and the policy's decision on it, and
// returns the decision to follow. See refusals.Guard.Adjust.
func (p *Permit) Adjust(ctx context.Context, key payment.Key, a clients.Answer, d retrypolicy.Decision) retrypolicy.Decision {
	if p.controller == nil || p.controller.options.Refusals == nil {
		return d
	}
	if a.At.IsZero() { // nothing was sent, for a reason of our own: Release releases the probe
		return d
	}
	probe := p.probe
	p.probe = ""
	return p.controller.options.Refusals.Adjust(ctx, probe, key, a, d)
}

// Release releases the permit. If no answer was reported, another request takes its place as
// the test of a half-open breaker or the probe of a paused gateway.
func (p *Permit) Release() {
	p.finish(errNoResult)
	if p.probe != "" {
		p.controller.options.Refusals.Release(context.Background(), p.probe)
		p.probe = ""
	}
}

// finish reports the outcome to the breaker, once.
func (p *Permit) finish(outcome error) {
	if p.done != nil {
		p.done(outcome)
		p.done = nil
	}
}

// logIn makes sure that the client has an access token, and releases the permit if not.
//
// While the breaker is half-open the token is renewed first. If the login fails then, no
// payment is claimed, so an outage costs no attempts.
func (p *Permit) logIn(ctx context.Context, gateway clients.Gateway) error {
	loggedIn := false
	defer func() {
		if !loggedIn { // because of an error or a panic
			p.Release()
		}
	}()
	if c := p.controller; c != nil && c.breaker.State() == gobreaker.StateHalfOpen {
		c.mu.Lock()
		token := c.token
		c.mu.Unlock()
		gateway.RenewToken(token)
	}
	err := gateway.Authenticate(ctx)
	if c := p.controller; c != nil && c.options.OnLogin != nil && ctx.Err() == nil {
		c.options.OnLogin(err)
	}
	if err == nil {
		loggedIn = true
		return nil
	}
	var failure *clients.Error
	if ctx.Err() == nil && errors.As(err, &failure) && p.controller.newLoginFailure(err) {
		p.Report(clients.Answer{
			Code: failure.Code, HTTPStatus: failure.HTTPStatus, RetryAfter: failure.RetryAfter, At: time.Now(),
		})
	}
	return err
}

// newLoginFailure reports whether a login failure was not counted yet. The client makes one
// login for all callers and returns the same error to each: that is one failure.
func (c *Controller) newLoginFailure(err error) bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, c.login) {
		return false
	}
	c.login = err
	return true
}

// countsAsFailure reports whether the breaker counts an answer as a failure: none, a malformed
// one, or a server error. A refusal, "too many requests" and "accepted" show that the gateway
// works.
func countsAsFailure(a clients.Answer) bool {
	switch a.Code {
	case retrypolicy.CodeUnsent, retrypolicy.CodeUnknown:
		return true
	case retrypolicy.CodeUnreadable:
		return a.HTTPStatus != http.StatusAccepted // AM's "in progress" has no documented body
	default:
		snap := len(a.Code) == 7 && strings.Trim(a.Code, "0123456789") == ""
		return strings.HasPrefix(a.Code, "http:5") || snap && a.Code[0] == '5'
	}
}
