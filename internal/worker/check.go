package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/clients"
	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redisconn"
	"terbayar/internal/redishealth"
	"terbayar/internal/retrypolicy"
)

// ErrCheck says that a check failed; its line has said which one, and why.
var ErrCheck = errors.New("a check failed")

// Check tries what a worker with these settings would need, and prints to out
// what each check came to. It logs in to the gateways and sends them nothing
// else. Every check runs, whatever became of those before it. The error is that
// of a wrong setting, else ErrCheck.
func Check(ctx context.Context, cfg Config, client redis.UniversalClient, out io.Writer) error {
	r := &report{out: out}
	r.settings(cfg, client)
	r.policy(cfg)
	r.payloadKeys(cfg)
	if r.redis(ctx, client) {
		r.durability(ctx, cfg)
		r.customerTokens(ctx, cfg, client)
	}
	r.gateway(ctx, payment.AMDigiPay, cfg.AMDigiPay.Enabled(), access{
		open:       func() (clients.Gateway, error) { return amdigipayClient(cfg, clients.NewTransport()) },
		address:    "AMDIGIPAY_BASE_URL",
		login:      "AMDIGIPAY_USERNAME and AMDIGIPAY_PASSWORD",
		signatures: "AMDIGIPAY_SIGNATURE_SCHEME",
	})
	r.gateway(ctx, payment.Paydia, cfg.Paydia.Enabled(), access{
		open:       func() (clients.Gateway, error) { return paydiaClient(cfg, clients.NewTransport()) },
		address:    "PAYDIA_BASE_URL",
		login:      "PAYDIA_CLIENT_ID and PAYDIA_PRIVATE_KEY",
		signatures: "PAYDIA_CLIENT_SECRET",
	})
	return r.err
}

// report prints what was found, one line each.
type report struct {
	out io.Writer
	err error
}

func (r *report) line(outcome, what, text string) {
	fmt.Fprintf(r.out, "%-4s  %-12s  %s\n", outcome, what, text)
}

func (r *report) ok(what, text string) { r.line("ok", what, text) }

func (r *report) fail(what, text string) {
	r.line("FAIL", what, text)
	if r.err == nil {
		r.err = ErrCheck
	}
}

// wrong reports a setting with which no worker would start.
func (r *report) wrong(what string, err error) {
	r.line("FAIL", what, err.Error())
	if r.err == nil || errors.Is(r.err, ErrCheck) {
		r.err = err
	}
}

func (r *report) settings(cfg Config, client redis.UniversalClient) {
	if err := agree(cfg, client); err != nil {
		r.wrong("settings", err)
		return
	}
	r.ok("settings", "every one is well-formed, and they agree with each other")
}

func (r *report) policy(cfg Config) {
	const what = "retry policy"
	policy, err := Policy(cfg.RetryPolicy, cfg.Worker.GatewayTimeout)
	switch {
	case err != nil:
		r.wrong(what, err)
	case cfg.RetryPolicy.File == "":
		r.ok(what, "the built-in one")
	default:
		r.ok(what, "RETRY_POLICY_FILE can be read, and is safe for money")
		for _, c := range policy.VendorConfirmed() {
			r.line("note", what, c.String())
		}
	}
}

func (r *report) payloadKeys(cfg Config) {
	const what = "payload keys"
	sealer, err := cfg.Payload.Sealer()
	switch {
	case err != nil:
		r.wrong(what, err)
	case sealer.CanEncrypt():
		r.ok(what, "seal customer tokens; enqueue needs the same PAYLOAD_KEYS")
	case cfg.Paydia.Enabled():
		r.fail(what, "PAYLOAD_KEYS is not set: payments with a customer token cannot be sent")
	default:
		r.ok(what, "none, and none needed: Paydia is off")
	}
}

// redisCheckTimeout is longer than one try to connect: a Cluster or a Sentinel
// has several addresses.
const redisCheckTimeout = 8 * time.Second

// redis reports whether Redis can be used.
func (r *report) redis(ctx context.Context, client redis.UniversalClient) (usable bool) {
	const what = "redis"
	end := time.Now().Add(redisCheckTimeout)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	warnings, err := redisconn.Check(ctx, client)
	switch {
	case errors.Is(err, redisconn.ErrUnfit):
		r.fail(what, strings.TrimPrefix(err.Error(), "redisconn: check: "))
	case err != nil && time.Until(end) < time.Second: // a connection's time-out may come before the context's
		r.fail(what, fmt.Sprintf("gives no answer within %s: see REDIS_URL and the network on the way", redisCheckTimeout))
	case err != nil:
		r.fail(what, fmt.Sprintf("cannot be used (%s): see REDIS_URL and REDIS_PASSWORD", strings.TrimPrefix(err.Error(), "redisconn: check: ")))
	case r.unwritable(ctx, client):
	case len(warnings) > 0:
		for _, w := range warnings {
			r.line("warn", what, w)
		}
		return true
	default:
		r.ok(what, "answers, and is fit to keep payments (version, eviction policy)")
		return true
	}
	return false
}

// customerTokens tries the keys on what enqueue has encrypted with them. It says
// nothing where all is well, or there is nothing to try them on.
func (r *report) customerTokens(ctx context.Context, cfg Config, client redis.UniversalClient) {
	sealer, err := cfg.Payload.Sealer()
	if err != nil || !cfg.Paydia.Enabled() {
		return // which is told elsewhere
	}
	ctx, cancel := context.WithTimeout(ctx, redisCheckTimeout)
	defer cancel()
	complaint, err := decryptable(ctx, ledger.NewReader(client), sealer)
	switch {
	case err != nil:
		r.fail("payload keys", "cannot be tried on the payments in Redis: "+err.Error())
	case complaint != "":
		r.fail("payload keys", complaint)
	}
}

// durability looks whether Redis gives what REDIS_DURABILITY wants, and whether the clocks
// agree.
func (r *report) durability(ctx context.Context, cfg Config) {
	const what, clocks = "durability", "clocks"
	ctx, cancel := context.WithTimeout(ctx, redisCheckTimeout)
	defer cancel()
	writes, closeAll, err := cfg.Redis.OpenDurable(ledger.DurabilityKey, slog.New(slog.DiscardHandler))
	if err != nil {
		r.wrong(what, err)
		return
	}
	defer func() { _ = closeAll() }()
	switch err := writes.Start(ctx); {
	case errors.Is(err, durable.ErrUnfit):
		r.fail(what, err.Error())
		return
	case err != nil:
		return // that Redis cannot be used was told
	}
	for _, w := range writes.Warnings() {
		r.line("warn", what, w)
	}
	s := writes.Status()
	how := fmt.Sprintf("REDIS_DURABILITY is %s: a write waits for %d replicas of %d", s.Mode, s.Needed, s.Replicas)
	if s.Fsync {
		how += " and for an fsync"
	}
	r.ok(what, how)
	var ahead, behind time.Duration
	nodes := writes.ClockSkews(ctx)
	for _, by := range nodes {
		ahead, behind = max(ahead, by), min(behind, by)
	}
	if ahead-behind > durable.MaxSkew {
		r.fail(clocks, fmt.Sprintf("of this machine and of %d nodes of Redis are %s apart: gateways, expiry dates and a failover need them to agree within %s",
			len(nodes), (ahead-behind).Round(time.Millisecond), durable.MaxSkew))
		return
	}
	r.ok(clocks, fmt.Sprintf("of this machine and of %d nodes of Redis agree", len(nodes)))
}

// unwritable tries whether Redis takes writes: one that is full answers all the same.
func (r *report) unwritable(ctx context.Context, client redis.UniversalClient) bool {
	err := redishealth.Check(ctx, client).Err()
	if err != nil {
		r.fail("redis", strings.TrimPrefix(err.Error(), "redis "))
	}
	return err != nil
}

// access is the way to a gateway, and the names of the settings on it.
type access struct {
	open                       func() (clients.Gateway, error)
	address, login, signatures string
}

func (r *report) gateway(ctx context.Context, g payment.Gateway, on bool, a access) {
	what := string(g)
	if !on {
		r.line("off", what, "its credentials are not set: its payments wait in the queue")
		return
	}
	client, err := a.open()
	if err != nil {
		r.wrong(what, err)
		return
	}
	err = client.Authenticate(ctx)
	var failure *clients.Error
	switch {
	case err == nil:
		r.ok(what, "can be logged in to; whether "+a.signatures+" is right, only a payment shows")
	case errors.As(err, &failure):
		verdict, look := judge(failure, a)
		r.fail(what, fmt.Sprintf("%s (%s): %s", verdict, strings.TrimPrefix(failure.Error(), what+" "), look))
	default:
		r.fail(what, err.Error())
	}
}

// judge says what a login that failed means, and where to look.
func judge(e *clients.Error, a access) (verdict, look string) {
	switch {
	case e.Code == retrypolicy.CodeUnsent || e.Code == retrypolicy.CodeUnknown:
		return "cannot be reached", "see " + a.address + ", GATEWAY_TIMEOUT and the network on the way"
	case e.HTTPStatus == http.StatusTooManyRequests:
		return "is busy", "try again later"
	case e.HTTPStatus/100 == 5, e.Code == retrypolicy.CodeUnreadable, e.HTTPStatus == http.StatusNotFound:
		return "gives no login", "it is in trouble, or " + a.address + " is not its address"
	default:
		return "refuses the login", "see " + a.login
	}
}
