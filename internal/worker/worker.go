// Package worker is the worker's house: it builds every room, opens the doors,
// and closes them again in the right order. cmd/worker and cmd/demo live in it.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-retry"

	"terbayar/internal/admission"
	"terbayar/internal/clients"
	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/clients/paydia"
	"terbayar/internal/config"
	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redisconn"
	"terbayar/internal/redishealth"
	"terbayar/internal/refusals"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/secret"
	"terbayar/internal/statuspoll"
	"terbayar/internal/submit"
	"terbayar/internal/tasks"
	"terbayar/internal/telemetry"
	"terbayar/internal/version"
	"terbayar/internal/web"
)

// Config is every setting of the worker.
type Config struct {
	Redis       config.Redis       `embed:""`
	AMDigiPay   config.AMDigiPay   `embed:""`
	Paydia      config.Paydia      `embed:""`
	Worker      config.Worker      `embed:""`
	RetryPolicy config.RetryPolicy `embed:""`
	Events      config.Events      `embed:""`
	Payload     config.Payload     `embed:""`
	Log         config.Log         `embed:""`
}

// Worker is a worker, built and not yet open.
type Worker struct {
	cfg       Config
	log       *slog.Logger
	redis     redis.UniversalClient
	writes    *durable.Writer
	health    *redishealth.Monitor
	cipher    *secret.Cipher
	ledger    *ledger.Ledger
	listener  net.Listener
	site      *web.Site
	gateways  []payment.Gateway // those that are on
	admission map[payment.Gateway]*admission.Controller
	tasks     *tasks.Server
	ticker    *statuspoll.Ticker
}

// New builds the house. An error is a wrong setting, or an address that is
// taken. Nothing is sent anywhere yet. The client and what the writer writes with are
// the caller's to close.
func New(cfg Config, client redis.UniversalClient, writes *durable.Writer, log *slog.Logger) (*Worker, error) {
	policy, err := Policy(cfg.RetryPolicy, cfg.Worker.GatewayTimeout)
	if err != nil {
		return nil, err
	}
	sealer, err := cfg.Payload.Sealer()
	if err != nil {
		return nil, err
	}
	users, err := cfg.Worker.Users()
	if err != nil {
		return nil, err
	}
	if err := agree(cfg, client); err != nil {
		return nil, err
	}
	now := time.Now
	book := ledger.New(ledger.Options{Redis: client, Writes: writes, Stream: cfg.Events.Stream, Now: now, Log: log})
	inspector := asynq.NewInspectorFromRedisClient(client)
	health := redishealth.New(client, now, log)
	metrics := telemetry.NewMetrics(inspector, book, health)
	writes.Observe(func(s durable.Status) {
		metrics.ClockSkew(-s.Skew)
		metrics.ClaimsPaused(s.Paused != "")
		metrics.PrimaryChanges(s.PrimaryChanges)
	})
	metrics.Durability(string(cfg.Redis.Durability))
	observe := observer(log, metrics)
	enqueuer := tasks.NewEnqueuer(client, now)

	submitter := &submit.Submitter{
		Ledger: book, Gateways: map[payment.Gateway]clients.Gateway{}, Admission: map[payment.Gateway]*admission.Controller{}, Policy: policy, Cipher: sealer,
		Times:        submit.Times{Send: cfg.Worker.SendBudget(cfg.Redis.LongestWait()), Lease: cfg.Worker.ClaimLease(cfg.Redis.LongestWait())},
		PollInterval: cfg.Worker.StatusPollInterval,
		QueueTTL:     map[payment.Gateway]time.Duration{payment.Paydia: time.Duration(cfg.Paydia.QueueTTL)},
		Now:          now, OnLogin: func(payment.Gateway, error) {}, OnAttempt: observe, // the gates tell of logins, those for lookups included
		OnExpired: func(r *ledger.Record) {
			log.Warn("payment expired: not sent in time", "gateway", r.Gateway, "transaction_id", r.TransactionID, "expires_at", r.ExpiresAt)
		},
	}
	poller := &statuspoll.Poller{
		Ledger: book, Submitter: submitter, Askers: map[payment.Gateway]statuspoll.Asker{}, Policy: policy,
		Requeue: enqueuer.Requeue, Interval: cfg.Worker.StatusPollInterval, FullScan: cfg.Worker.StatusSweepInterval,
		ExpiryGrace: cfg.Worker.ExpiryGrace, LateWindow: cfg.Worker.LatePaymentWindow,
		Now: now, OnAttempt: observe,
		OnUnreadable: func(g payment.Gateway, ids []string, why error) {
			metrics.Unreadable(g, len(ids))
			log.Error("records cannot be read, or are of another version: they are put off", "gateway", g, "records", len(ids), "error", why)
		},
	}
	watch := newLoginWatch(log, now, metrics.LoginFailed)
	newGate := func(g payment.Gateway, limit config.Rate) *admission.Controller {
		submitter.Admission[g] = admission.New(admission.Options{
			Gateway: g, Failures: cfg.Worker.BreakerFailures, Pause: cfg.Worker.BreakerPause,
			Requests: limit.Requests, Per: limit.Per, Redis: client,
			Refusals: refusals.New(refusals.Options{
				Gateway: g, Limit: cfg.Worker.Refusals, Redis: client, Accepted: book.Accepted,
				Now: now, Log: log, OnPaused: func(paused bool) { metrics.Paused(g, paused) },
			}),
			Now: now, Log: log, OnState: func(state int) { metrics.Breaker(g, state) },
			OnLogin: func(err error) { watch.told(g, err) },
		})
		return submitter.Admission[g]
	}
	h := &Worker{cfg: cfg, log: log, cipher: sealer, redis: client, writes: writes, health: health, ledger: book, admission: submitter.Admission}
	if cfg.AMDigiPay.Enabled() {
		client, err := amdigipayClient(cfg, metrics.Transport(payment.AMDigiPay, clients.NewTransport()))
		if err != nil {
			return nil, err
		}
		submitter.Gateways[payment.AMDigiPay] = client
		poller.Askers[payment.AMDigiPay] = &statuspoll.ListAsker{
			Client: client, Admission: newGate(payment.AMDigiPay, cfg.AMDigiPay.RateLimit), Policy: policy, Limit: cfg.AMDigiPay.ListLimit,
		}
		h.gateways = append(h.gateways, payment.AMDigiPay)
	}
	if cfg.Paydia.Enabled() {
		client, err := paydiaClient(cfg, metrics.Transport(payment.Paydia, clients.NewTransport()))
		if err != nil {
			return nil, err
		}
		submitter.Gateways[payment.Paydia] = client
		poller.Askers[payment.Paydia] = &statuspoll.QueryAsker{
			Client: client, Admission: newGate(payment.Paydia, cfg.Paydia.RateLimit), Policy: policy, Cipher: sealer, Now: now,
			// Half as many as submits: what a dead worker had under way takes two rounds.
			Concurrency: (cfg.Worker.Concurrency + 1) / 2,
		}
		h.gateways = append(h.gateways, payment.Paydia)
	}
	h.tasks = tasks.NewServer(client, tasks.ServerConfig{
		Gateways: h.gateways, Concurrency: cfg.Worker.Concurrency, ShutdownTimeout: cfg.Worker.Drain(),
		Log: log, AsynqLog: telemetry.AsynqLogger(log),
	}, tasks.Handlers{
		Submit: func(ctx context.Context, key payment.Key) (time.Duration, string, error) {
			next, err := submitter.Submit(ctx, key)
			if errors.Is(err, ledger.ErrNotFound) {
				err = tasks.ErrNoPayment
			}
			return next.In, next.Reason, err
		},
		Poll: func(ctx context.Context, g payment.Gateway) error {
			metrics.Poll(g)
			return watch.knows(poller.Poll(ctx, g))
		},
	})
	h.ticker = &statuspoll.Ticker{
		Ledger: book, Gateways: h.gateways, Enqueue: enqueuer.Poll,
		Every: min(time.Second, cfg.Worker.StatusPollInterval), Now: now, Log: log,
	}
	h.site = web.New(web.Options{Redis: client, Ready: health.Err, Ledger: book, Metrics: metrics.Handler(), Users: users})
	h.warn(sealer, policy)
	if h.listener, err = net.Listen("tcp", cfg.Worker.HTTPAddr); err != nil {
		return nil, config.Wrong("WORKER_HTTP_ADDR", err)
	}
	return h, nil
}

// agree checks the settings that only together are right or wrong.
func agree(cfg Config, client redis.UniversalClient) error {
	if needs := cfg.Worker.TaskNeeds(cfg.Redis.LongestWait()); needs >= tasks.SubmitTimeout {
		return config.Wrong("GATEWAY_TIMEOUT", fmt.Errorf(
			"%s is too long: to log in, to send and to record may take %s, and a task has %s", cfg.Worker.GatewayTimeout, needs, tasks.SubmitTimeout))
	}
	if _, isCluster := client.(*redis.ClusterClient); isCluster && !ledger.SharesSlot(cfg.Events.Stream) {
		return config.Wrong("EVENTS_STREAM", fmt.Errorf(
			"%q lies in another slot of the Redis Cluster than the ledger; put {%s} into its name", cfg.Events.Stream, ledger.DefaultStream))
	}
	return nil
}

// Policy is the retry policy in force, checked against the gateway time-out.
func Policy(cfg config.RetryPolicy, gatewayTimeout time.Duration) (*retrypolicy.Policy, error) {
	policy, err := retrypolicy.Load(cfg.File)
	if err == nil {
		err = policy.Check(gatewayTimeout)
	}
	if err != nil {
		return nil, config.Wrong("RETRY_POLICY_FILE", err)
	}
	return policy, nil
}

func amdigipayClient(cfg Config, transport http.RoundTripper) (*amdigipay.Client, error) {
	statusMap, err := amdigipay.ParseStatusMap(cfg.AMDigiPay.StatusMap)
	if err != nil {
		return nil, config.Wrong("AMDIGIPAY_STATUS_MAP", err)
	}
	a := cfg.AMDigiPay
	client, err := amdigipay.New(amdigipay.Options{
		BaseURL: a.BaseURL, Username: a.Username, Password: a.Password,
		SignatureScheme: a.SignatureScheme, SignatureKey: a.SignatureKey, SignatureFields: a.SignatureFields,
		LoginEncoding: a.LoginEncoding, ListMethod: a.ListMethod, StatusMap: statusMap,
		Timeout: cfg.Worker.GatewayTimeout, Transport: transport, Now: time.Now,
	})
	if err != nil {
		return nil, config.Invalid(err)
	}
	return client, nil
}

func paydiaClient(cfg Config, transport http.RoundTripper) (*paydia.Client, error) {
	key, err := cfg.Paydia.Key()
	if err != nil {
		return nil, err
	}
	p := cfg.Paydia
	client, err := paydia.New(paydia.Options{
		BaseURL: p.BaseURL, ClientID: p.ClientID, ClientSecret: p.ClientSecret, PrivateKey: key, ChannelID: p.ChannelID,
		CustomerTokenPrefix: p.CustomerTokenPrefix, SendEmptyReference: p.QueryEmptyReference,
		Timeout: cfg.Worker.GatewayTimeout, Transport: transport, Now: time.Now,
	})
	if err != nil {
		return nil, config.Invalid(err)
	}
	return client, nil
}

// warn says at the start what an operator would otherwise find out late.
func (h *Worker) warn(sealer *secret.Cipher, policy *retrypolicy.Policy) {
	for _, c := range policy.VendorConfirmed() {
		h.log.Warn("the retry policy trusts a vendor's word", "gateway", c.Gateway, "rule", c.What, "vendor_confirms", c.Words, "source", c.Source)
	}
	for _, g := range payment.Gateways() {
		if !slices.Contains(h.gateways, g) {
			h.log.Warn("gateway is off: no credentials; its tasks wait in the queue", "gateway", g)
		}
	}
	if slices.Contains(h.gateways, payment.Paydia) && !sealer.CanEncrypt() {
		h.log.Warn("PAYLOAD_KEYS is not set: payments with a customer token cannot be sent")
	}
}

// Addr is where the HTTP side listens.
func (h *Worker) Addr() net.Addr { return h.listener.Addr() }

// redisPause is the longest wait between two looks at a Redis that is not there.
const redisPause = 2 * time.Second

// Run opens the house and keeps it open until the context ends; then it takes
// nothing new, lets what is under way finish and be recorded, and closes. While
// Redis is not there yet it waits, alive but not ready. A Redis that does not answer
// keeps nobody beyond the shutdown time-out.
func (h *Worker) Run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- h.run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	latest := time.NewTimer((h.cfg.Worker.Drain() + h.cfg.Worker.ShutdownTimeout) / 2)
	defer latest.Stop()
	select {
	case err := <-ended:
		return err
	case <-latest.C:
		h.log.Error("worker ends as it stands: the time for shutdown is over; what was under way will be looked up")
		return nil
	}
}

func (h *Worker) run(ctx context.Context) error {
	server := &http.Server{Handler: h.site, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(h.listener) }()
	// The HTTP side answers to the very end: probes want to know.
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(closing) // the worker is done; a page still loading is not worth waiting for
	}()
	h.log.Info("worker starts", "version", version.String(), "http", h.Addr().String(), "gateways", h.gateways,
		"concurrency", h.cfg.Worker.Concurrency, "poll", h.cfg.Worker.StatusPollInterval.String())

	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx)) // to the very end, as the HTTP side
	defer stopWatching()
	go h.health.Run(watching)
	if err := h.awaitRedis(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	go h.writes.Watch(watching)
	if slices.Contains(h.gateways, payment.Paydia) {
		// Where Redis does not tell right now, every payment will.
		if complaint, err := decryptable(ctx, h.ledger, h.cipher); err == nil && complaint != "" {
			h.log.Error(complaint)
		}
	}
	if err := h.tasks.Start(); err != nil {
		return err
	}
	ticking, stopTicking := context.WithCancel(ctx)
	defer stopTicking()
	ticked := make(chan struct{})
	go func() {
		defer close(ticked)
		h.ticker.Run(ticking)
	}()
	for _, g := range h.admission {
		go g.Watch(ticking)
	}
	h.site.SetReady(true)
	h.log.Info("worker is ready")

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("worker: http: %w", err)
	}
	h.site.SetReady(false)
	h.log.Info("worker stops: nothing new is taken", "timeout", h.cfg.Worker.ShutdownTimeout.String())
	for _, g := range h.admission {
		g.Stop()
	}
	stopTicking()
	<-ticked
	h.tasks.Stop()
	h.tasks.Shutdown()
	flushing, cancel := context.WithTimeout(context.Background(), h.cfg.Worker.ShutdownTimeout)
	defer cancel()
	h.ledger.Flush(flushing)
	h.log.Info("worker has stopped")
	return err
}

// awaitRedis returns once Redis answers and is fit to keep payments, or the context
// ends, which is no error.
func (h *Worker) awaitRedis(ctx context.Context) error {
	wait := retry.WithCappedDuration(redisPause, retry.NewFibonacci(100*time.Millisecond))
	var warnings []string
	err := retry.Do(ctx, wait, func(ctx context.Context) (err error) {
		if warnings, err = redisconn.Check(ctx, h.redis); err == nil {
			err = h.writes.Start(ctx)
		}
		switch {
		case redis.IsAuthError(err):
			return config.RefusedLogin(err)
		case errors.Is(err, durable.ErrUnfit):
			return config.Unfit(err)
		}
		if err != nil && !errors.Is(err, redisconn.ErrUnfit) {
			h.log.Warn("waiting for redis", "error", err)
			return retry.RetryableError(err)
		}
		return err
	})
	if ctx.Err() != nil {
		return nil
	}
	for _, w := range append(warnings, h.writes.Warnings()...) {
		h.log.Warn("redis: " + w)
	}
	return err
}

// observer writes one line an attempt and counts it.
func observer(log *slog.Logger, metrics *telemetry.Metrics) func(*ledger.Record, payment.Attempt, error) {
	return func(r *ledger.Record, a payment.Attempt, detail error) {
		metrics.Attempt(r.Gateway, a)
		level := slog.LevelInfo
		if r.Status == payment.NeedsReview {
			level = slog.LevelError
		}
		args := []any{
			"gateway", r.Gateway, "transaction_id", r.TransactionID, "kind", a.Kind, "code", a.Code,
			"action", a.Action, "status", r.Status, "duration_ms", a.DurationMS,
		}
		if a.ExternalID != "" {
			args = append(args, "external_id", a.ExternalID)
		}
		if a.Message != "" {
			args = append(args, "message", a.Message)
		}
		if r.Reason != "" {
			args = append(args, "reason", r.Reason)
		}
		if detail != nil {
			args = append(args, "detail", detail)
		}
		log.Log(context.Background(), level, "attempt", args...)
	}
}
