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

	"terbayar/internal/archive"
	"terbayar/internal/clients"
	"terbayar/internal/config"
	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redisconn"
	"terbayar/internal/redishealth"
	"terbayar/internal/retrypolicy"
)

// ErrCheck says that a check failed. The check's line says why.
var ErrCheck = errors.New("a check failed")

// Check checks everything that a worker with these settings needs, and writes one line per
// check to out. It logs in to the gateways and sends them nothing else. A failed check
// does not stop the others. The error is that of a wrong setting, else ErrCheck.
func Check(ctx context.Context, cfg Config, client redis.UniversalClient, out io.Writer) error {
	r := &report{out: out}
	r.settings(cfg, client)
	r.policy(cfg)
	r.payloadKeys(cfg)
	r.archive(cfg)
	r.webhooks(cfg)
	if r.redis(ctx, client) {
		r.memory(ctx, cfg, client)
		r.durability(ctx, cfg, client)
		r.customerTokens(ctx, cfg, client)
	}
	r.gateway(ctx, payment.AMDigiPay, cfg.AMDigiPay.Enabled(), gatewaySettings{
		newClient: func() (clients.Gateway, error) { return amdigipayClient(cfg, clients.NewTransport()) },
		address:   "AMDIGIPAY_BASE_URL",
		login:     "AMDIGIPAY_USERNAME and AMDIGIPAY_PASSWORD",
		signature: "AMDIGIPAY_SIGNATURE_SCHEME",
	})
	r.gateway(ctx, payment.Paydia, cfg.Paydia.Enabled(), gatewaySettings{
		newClient: func() (clients.Gateway, error) { return paydiaClient(cfg, clients.NewTransport()) },
		address:   "PAYDIA_BASE_URL",
		login:     "PAYDIA_CLIENT_ID and PAYDIA_PRIVATE_KEY",
		signature: "PAYDIA_CLIENT_SECRET",
	})
	return r.err
}

// report writes the result of every check, one line each.
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

// wrong reports a setting with which a worker does not start.
func (r *report) wrong(what string, err error) {
	r.line("FAIL", what, err.Error())
	if r.err == nil || errors.Is(r.err, ErrCheck) {
		r.err = err
	}
}

func (r *report) settings(cfg Config, client redis.UniversalClient) {
	if err := checkCombined(cfg, client); err != nil {
		r.wrong("settings", err)
		return
	}
	r.ok("settings", "all are valid and do not contradict each other")
}

func (r *report) policy(cfg Config) {
	const what = "retry policy"
	policy, err := Policy(cfg.RetryPolicy, cfg.Worker.GatewayTimeout)
	switch {
	case err != nil:
		r.wrong(what, err)
	case cfg.RetryPolicy.File == "":
		r.ok(what, "the built-in policy")
	default:
		r.ok(what, "RETRY_POLICY_FILE is valid and cannot cause a duplicate charge")
		for _, c := range policy.VendorConfirmed() {
			r.line("note", what, c.String())
		}
	}
}

func (r *report) webhooks(cfg Config) {
	const what = "webhooks"
	o, enabled, err := webhookOptions(cfg)
	switch {
	case err != nil:
		r.wrong(what, err)
	case !enabled:
		r.ok(what, "off")
	default:
		r.ok(what, fmt.Sprintf("%d endpoint(s); a delivery is tried %d times in %s", len(o.Endpoints), o.Schedule.Tries(), o.Schedule.Total()))
	}
}

func (r *report) payloadKeys(cfg Config) {
	const what = "payload keys"
	cipher, err := cfg.Payload.Cipher()
	switch {
	case err != nil:
		r.wrong(what, err)
	case cipher.CanEncrypt():
		r.ok(what, "encrypt customer tokens; enqueue needs the same PAYLOAD_KEYS")
	case cfg.Paydia.Enabled():
		r.fail(what, "PAYLOAD_KEYS is not set: payments with a customer token cannot be sent")
	default:
		r.ok(what, "not set and not needed: Paydia is off")
	}
}

// archive writes a line only if records are deleted after RETENTION.
func (r *report) archive(cfg Config) {
	const what = "archive"
	keep := cfg.Retention.Payments
	if keep == 0 {
		return
	}
	if cfg.Archive.Dir == "" {
		r.line("warn", what, "ARCHIVE_DIR is not set: after RETENTION, the attempts and details of payments are deleted")
		return
	}
	if err := archive.CheckDir(cfg.Archive.Dir); err != nil {
		r.wrong(what, config.Wrong("ARCHIVE_DIR", err))
		return
	}
	r.ok(what, "can be written to; payments that have been over for "+keep.String()+" are archived")
}

// redisCheckTimeout is longer than one attempt to connect: a Cluster or a Sentinel has
// several addresses. Tests make it shorter.
var redisCheckTimeout = 8 * time.Second

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
	case err != nil && time.Until(end) < time.Second: // a connection's timeout may end before the context's
		r.fail(what, fmt.Sprintf("no answer within %s: check REDIS_URL and the network", redisCheckTimeout))
	case err != nil:
		r.fail(what, fmt.Sprintf("cannot be used (%s): check REDIS_URL and REDIS_PASSWORD", strings.TrimPrefix(err.Error(), "redisconn: check: ")))
	case r.unwritable(ctx, client):
	case len(warnings) > 0:
		for _, w := range warnings {
			r.line("warn", what, w)
		}
		return true
	default:
		r.ok(what, "answers, and its version and eviction policy are fit to keep payments")
		return true
	}
	return false
}

// fullMemory is the used share of the memory from which on Check warns, as the alert
// RedisMemoryHigh does.
const fullMemory = 0.8

// memory reports how many more payments fit into Redis.
func (r *report) memory(ctx context.Context, cfg Config, client redis.UniversalClient) {
	const what = "memory"
	ctx, cancel := context.WithTimeout(ctx, redisCheckTimeout)
	defer cancel()
	var payments, tombstones int64
	for _, g := range payment.Gateways() {
		stats, err := ledger.NewReader(client, cfg.Ledger.Partitions).Stats(ctx, g)
		if err != nil {
			r.fail(what, "the payments in Redis cannot be counted: "+err.Error())
			return
		}
		payments += stats.Payments()
		tombstones += stats.Tombstones
	}
	state := redishealth.Check(ctx, client)
	left, known := state.PaymentsLeft(payments, tombstones)
	if !known {
		r.line("note", what, "Redis does not report its memory: how many more payments fit is unknown")
		return
	}
	const mb = 1 << 20
	outcome, of := "ok", ""
	if tombstones > 0 {
		of = fmt.Sprintf(" and %d tombstones", tombstones)
	}
	if ratio, _ := state.MemoryRatio(); ratio > fullMemory {
		outcome = "warn"
	}
	r.line(outcome, what, fmt.Sprintf("about %d more payments fit: the fullest primary uses %d of %d MB, for %d payments", left, state.UsedMemory/mb, state.MaxMemory/mb, payments)+of)
}

// customerTokens tries the keys on customer tokens that enqueue has encrypted. It writes
// a line only when a key is missing.
func (r *report) customerTokens(ctx context.Context, cfg Config, client redis.UniversalClient) {
	const what = "payload keys"
	cipher, err := cfg.Payload.Cipher()
	if err != nil || !cfg.Paydia.Enabled() {
		return // payloadKeys has reported the error
	}
	ctx, cancel := context.WithTimeout(ctx, redisCheckTimeout)
	defer cancel()
	problem, err := findUndecryptable(ctx, ledger.NewReader(client, cfg.Ledger.Partitions), cipher)
	switch {
	case err != nil:
		r.fail(what, "cannot be tried on the payments in Redis: "+err.Error())
	case problem != "":
		r.fail(what, problem)
	}
}

// durability checks whether Redis guarantees what REDIS_DURABILITY requires, and whether
// the clocks agree.
func (r *report) durability(ctx context.Context, cfg Config, client redis.UniversalClient) {
	const what, clocks = "durability", "clocks"
	ctx, cancel := context.WithTimeout(ctx, redisCheckTimeout)
	defer cancel()
	writes, closeAll, err := cfg.Redis.OpenDurable(ledger.DurabilityKeys(client, cfg.Ledger.Partitions), slog.New(slog.DiscardHandler))
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
		return // the check of Redis reports that it cannot be reached
	}
	var other *ledger.PartitionsError
	if err := ledger.NewReader(client, cfg.Ledger.Partitions).ReadPartitions(ctx); errors.As(err, &other) {
		r.fail("ledger", "LEDGER_PARTITIONS: "+other.Error())
	}
	for _, w := range writes.Warnings() {
		r.line("warn", what, w)
	}
	s := writes.Status()
	how := fmt.Sprintf("REDIS_DURABILITY is %s: a write waits for %d of %d replicas", s.Mode, s.Needed, s.Replicas)
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
		r.fail(clocks, fmt.Sprintf("of this machine and of the Redis nodes (%d) differ by %s, %s is allowed: gateways, expiry dates and failovers need the real time",
			len(nodes), (ahead-behind).Round(time.Millisecond), durable.MaxSkew))
		return
	}
	r.ok(clocks, fmt.Sprintf("of this machine and of all Redis nodes (%d) agree", len(nodes)))
}

// unwritable reports whether Redis refuses writes. A full Redis refuses them but still
// answers reads.
func (r *report) unwritable(ctx context.Context, client redis.UniversalClient) bool {
	err := redishealth.Check(ctx, client).Err()
	if err != nil {
		r.fail("redis", strings.TrimPrefix(err.Error(), "redis "))
	}
	return err != nil
}

// gatewaySettings creates a gateway's client, and names the settings that it depends on.
type gatewaySettings struct {
	newClient                 func() (clients.Gateway, error)
	address, login, signature string
}

func (r *report) gateway(ctx context.Context, g payment.Gateway, enabled bool, s gatewaySettings) {
	what := string(g)
	if !enabled {
		r.line("off", what, "no credentials: its payments wait in the queue")
		return
	}
	client, err := s.newClient()
	if err != nil {
		r.wrong(what, err)
		return
	}
	err = client.Authenticate(ctx)
	var failure *clients.Error
	switch {
	case err == nil:
		r.ok(what, "login works; "+s.signature+" can only be checked with a payment")
	case errors.As(err, &failure):
		problem, advice := explainLogin(failure, s)
		r.fail(what, fmt.Sprintf("%s (%s): %s", problem, strings.TrimPrefix(failure.Error(), what+" "), advice))
	default:
		r.fail(what, err.Error())
	}
}

// explainLogin returns what a failed login means, and what to do about it.
func explainLogin(e *clients.Error, s gatewaySettings) (problem, advice string) {
	switch {
	case e.Code == retrypolicy.CodeUnsent || e.Code == retrypolicy.CodeUnknown:
		return "cannot be reached", "check " + s.address + ", GATEWAY_TIMEOUT and the network"
	case e.HTTPStatus == http.StatusTooManyRequests:
		return "is busy", "try again later"
	case e.HTTPStatus/100 == 5, e.Code == retrypolicy.CodeUnreadable, e.HTTPStatus == http.StatusNotFound:
		return "no usable answer to the login", "the gateway has an outage, or " + s.address + " is wrong"
	default:
		return "refuses the login", "check " + s.login
	}
}
