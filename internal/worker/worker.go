// Package worker wires the worker together: New creates every part from the settings,
// Run starts them and shuts them down in the right order. Check is the command
// "worker check".
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-retry"

	"terbayar/internal/admission"
	"terbayar/internal/archive"
	"terbayar/internal/clients"
	"terbayar/internal/config"
	"terbayar/internal/durable"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redisconn"
	"terbayar/internal/redishealth"
	"terbayar/internal/retention"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/secret"
	"terbayar/internal/statuspoll"
	"terbayar/internal/submit"
	"terbayar/internal/tasks"
	"terbayar/internal/telemetry"
	"terbayar/internal/version"
	"terbayar/internal/web"
	"terbayar/internal/webhooks"
)

// Config holds all settings of the worker.
type Config struct {
	Redis       config.Redis       `embed:""`
	AMDigiPay   config.AMDigiPay   `embed:""`
	Paydia      config.Paydia      `embed:""`
	Worker      config.Worker      `embed:""`
	RetryPolicy config.RetryPolicy `embed:""`
	Events      config.Events      `embed:""`
	Retention   config.Retention   `embed:""`
	Archive     config.Archive     `embed:""`
	Ledger      config.Ledger      `embed:""`
	Webhooks    config.Webhooks    `embed:""`
	Payload     config.Payload     `embed:""`
	Log         config.Log         `embed:""`
}

// ID returns the worker's id for the log: host and process id, as the column "Host:PID"
// of the web UI's page "Servers" shows them.
func ID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host" // as asynq does
	}
	return fmt.Sprintf("%s:%d", host, os.Getpid())
}

// Worker is one worker process. New creates it, Run runs it.
type Worker struct {
	cfg       Config
	log       *slog.Logger
	redis     redis.UniversalClient
	writes    durable.Writers
	health    *redishealth.Monitor
	cipher    *secret.Cipher
	ledger    *ledger.Ledger
	metrics   *telemetry.Metrics
	logins    *loginWatch
	gateways  []payment.Gateway // those that have credentials
	admission map[payment.Gateway]*admission.Controller
	tasks     *tasks.Server
	ticker    *statuspoll.Ticker
	trimmer   *retention.Trimmer  // nil: events are not deleted
	archiver  *retention.Archiver // nil: records are not deleted
	webhooks  *webhooks.Deliverer // nil: there are no endpoints
	web       *web.Handler
	listener  net.Listener
}

// New creates a worker and opens its HTTP port. It sends nothing to Redis or a gateway.
// An error is a wrong setting or an HTTP address that is in use. The caller closes the
// Redis client and the connections of writes.
func New(cfg Config, client redis.UniversalClient, writes durable.Writers, log *slog.Logger) (*Worker, error) {
	policy, err := Policy(cfg.RetryPolicy, cfg.Worker.GatewayTimeout)
	if err != nil {
		return nil, err
	}
	cipher, err := cfg.Payload.Cipher()
	if err != nil {
		return nil, err
	}
	users, err := cfg.Worker.Users()
	if err != nil {
		return nil, err
	}
	if err := checkCombined(cfg, client); err != nil {
		return nil, err
	}

	w := &Worker{
		cfg: cfg, log: log, redis: client, writes: writes, cipher: cipher,
		health:    redishealth.New(client, time.Now, log),
		admission: map[payment.Gateway]*admission.Controller{},
	}
	w.ledger = ledger.New(ledger.Options{
		Redis: client, Writes: writes, Stream: cfg.Events.Stream, Partitions: cfg.Ledger.Partitions, Now: time.Now, Log: log,
		OnLateResult: func(g payment.Gateway) { w.metrics.LateResult(g) },
	})
	w.metrics = w.newMetrics()
	w.logins = newLoginWatch(log, time.Now, w.metrics.LoginFailed)
	enqueuer := tasks.NewEnqueuer(client, time.Now)
	submitter := w.newSubmitter(policy)
	poller := w.newPoller(submitter, enqueuer)
	if err := w.addAMDigiPay(submitter, poller); err != nil {
		return nil, err
	}
	if err := w.addPaydia(submitter, poller); err != nil {
		return nil, err
	}
	w.tasks = w.newTaskServer(submitter, poller)
	w.ticker = &statuspoll.Ticker{
		Ledger: w.ledger, Gateways: w.gateways, Enqueue: enqueuer.Poll,
		LookUp: func(ctx context.Context, g payment.Gateway) error {
			return w.logins.dropReported(poller.LookUpAsked(ctx, g))
		},
		Every: min(time.Second, cfg.Worker.StatusPollInterval), Now: time.Now, Log: log,
	}
	if w.webhooks, err = w.newDeliverer(); err != nil {
		return nil, err
	}
	if keep := time.Duration(cfg.Retention.Events); keep > 0 {
		w.trimmer = &retention.Trimmer{
			Redis: client, Streams: ledger.StreamNames(cfg.Events.Stream, cfg.Ledger.Partitions), Retention: keep, Log: log,
			OnGroups: func(groups map[string]retention.Group) {
				w.metrics.ForgetGroups()
				for name, g := range groups {
					w.metrics.Group(name, g.Lag, g.Idle)
				}
			},
		}
		if w.webhooks != nil {
			w.trimmer.Hold = w.webhooks.Hold
		}
	}
	if w.archiver, err = w.newArchiver(); err != nil {
		return nil, err
	}
	w.web = web.New(web.Options{Redis: client, Ready: w.health.Err, Ledger: w.ledger, Metrics: w.metrics.Handler(), Users: users})
	w.warn(policy)
	if w.listener, err = net.Listen("tcp", cfg.Worker.HTTPAddr); err != nil {
		return nil, config.Wrong("WORKER_HTTP_ADDR", err)
	}
	return w, nil
}

// checkCombined checks settings that are each valid but may contradict each other.
func checkCombined(cfg Config, client redis.UniversalClient) error {
	if longest := cfg.Worker.LongestSubmit(cfg.Redis.LongestWait()); longest >= tasks.SubmitTimeout {
		return config.Wrong("GATEWAY_TIMEOUT", fmt.Errorf(
			"%s is too long: to log in, send and record a payment may take %s, and its task has %s", cfg.Worker.GatewayTimeout, longest, tasks.SubmitTimeout))
	}
	if _, isCluster := client.(*redis.ClusterClient); isCluster && !ledger.SharesSlot(cfg.Events.Stream) {
		return config.Wrong("EVENTS_STREAM", fmt.Errorf(
			"%q is in another slot of the Redis Cluster than the ledger; put the hash tag {%s} into its name", cfg.Events.Stream, ledger.DefaultStream))
	}
	return nil
}

// Policy returns the retry policy in force: the built-in one, or the policy file's,
// checked against the gateway timeout.
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

func (w *Worker) newMetrics() *telemetry.Metrics {
	metrics := telemetry.NewMetrics(asynq.NewInspectorFromRedisClient(w.redis), w.ledger, w.health)
	metrics.Durability(string(w.cfg.Redis.Durability))
	metrics.EventsRetention(time.Duration(w.cfg.Retention.Events))
	w.writes.Observe(func(s durable.Status) {
		metrics.ClockSkew(-s.Skew)
		metrics.ClaimsPaused(s.Paused != "")
		metrics.PrimaryChanges(s.PrimaryChanges)
	})
	return metrics
}

// newSubmitter creates the submitter without gateways. addAMDigiPay and addPaydia add them.
func (w *Worker) newSubmitter(policy *retrypolicy.Policy) *submit.Submitter {
	longestWait := w.cfg.Redis.LongestWait()
	return &submit.Submitter{
		Ledger: w.ledger, Gateways: map[payment.Gateway]clients.Gateway{}, Admission: w.admission, Policy: policy, Cipher: w.cipher,
		Times:        submit.Times{Send: w.cfg.Worker.SendBudget(longestWait), Lease: w.cfg.Worker.ClaimLease(longestWait)},
		PollInterval: w.cfg.Worker.StatusPollInterval,
		QueueTTL:     map[payment.Gateway]time.Duration{payment.Paydia: time.Duration(w.cfg.Paydia.QueueTTL)},
		Now:          time.Now,
		OnLogin:      func(payment.Gateway, error) {}, // admission reports logins, those of lookups included
		OnExpired:    w.logExpired,
		OnAttempt:    w.onAttempt,
	}
}

// newPoller creates the poller without gateways. addAMDigiPay and addPaydia add them.
func (w *Worker) newPoller(submitter *submit.Submitter, enqueuer *tasks.Enqueuer) *statuspoll.Poller {
	return &statuspoll.Poller{
		Ledger: w.ledger, Submitter: submitter, Askers: map[payment.Gateway]statuspoll.Asker{}, Policy: submitter.Policy,
		Requeue: enqueuer.Requeue, Interval: w.cfg.Worker.StatusPollInterval, FullScan: w.cfg.Worker.StatusFullScanInterval,
		ExpiryGrace: w.cfg.Worker.ExpiryGrace, LateWindow: w.cfg.Worker.LatePaymentWindow,
		Now: time.Now, OnAttempt: w.onAttempt, OnUnreadable: w.onUnreadable,
	}
}

func (w *Worker) newTaskServer(submitter *submit.Submitter, poller *statuspoll.Poller) *tasks.Server {
	return tasks.NewServer(w.redis, tasks.ServerConfig{
		Gateways: w.gateways, Concurrency: w.cfg.Worker.Concurrency, ShutdownTimeout: w.cfg.Worker.Drain(),
		Log: w.log, AsynqLog: telemetry.AsynqLogger(w.log),
	}, tasks.Handlers{
		Submit: func(ctx context.Context, key payment.Key) (time.Duration, string, error) {
			next, err := submitter.Submit(ctx, key)
			if errors.Is(err, ledger.ErrNotFound) {
				err = tasks.ErrNoPayment
			}
			return next.In, next.Reason, err
		},
		Poll: func(ctx context.Context, g payment.Gateway) error {
			w.metrics.Poll(g)
			return w.logins.dropReported(poller.Poll(ctx, g))
		},
	})
}

// newArchiver returns nil if records are not deleted.
func (w *Worker) newArchiver() (*retention.Archiver, error) {
	keep := time.Duration(w.cfg.Retention.Payments)
	if keep == 0 {
		return nil, nil
	}
	a := &retention.Archiver{
		Redis: w.redis, Ledger: w.ledger, Retention: keep, Now: time.Now, Log: w.log,
		OnDropped: w.metrics.Archived, OnScanned: w.metrics.ArchiveFailed,
	}
	if w.cfg.Archive.Dir != "" {
		if err := archive.CheckDir(w.cfg.Archive.Dir); err != nil {
			return nil, config.Wrong("ARCHIVE_DIR", err)
		}
		a.Archive = archive.NewWriter(w.cfg.Archive.Dir, ID(), time.Now)
	}
	return a, nil
}

// warn logs, at the start, settings that are risky or missing.
func (w *Worker) warn(policy *retrypolicy.Policy) {
	for _, c := range policy.VendorConfirmed() {
		w.log.Warn("retry policy relies on a vendor's confirmation", "gateway", c.Gateway, "rule", c.What, "vendor_confirms", c.Words, "source", c.Source)
	}
	if w.archiver != nil && w.archiver.Archive == nil {
		w.log.Warn("ARCHIVE_DIR is not set: after RETENTION, the attempts and details of payments are deleted", "retention", w.cfg.Retention.Payments.String())
	}
	for _, g := range payment.Gateways() {
		if !slices.Contains(w.gateways, g) {
			w.log.Warn("gateway is off: no credentials; its tasks wait in the queue", "gateway", g)
		}
	}
	if slices.Contains(w.gateways, payment.Paydia) && !w.cipher.CanEncrypt() {
		w.log.Warn("PAYLOAD_KEYS is not set: payments with a customer token cannot be sent")
	}
}

// Addr returns the address of the HTTP port.
func (w *Worker) Addr() net.Addr { return w.listener.Addr() }

// Run runs the worker until the context ends, then shuts down gracefully: the worker
// accepts no more tasks, and requests in flight finish and are recorded. While Redis
// cannot be reached at the start, the worker waits for it: alive, but not ready. Run
// returns before the shutdown timeout even if Redis hangs.
func (w *Worker) Run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- w.run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// Between the time that tasks have to finish and the shutdown timeout.
	forced := time.NewTimer((w.cfg.Worker.Drain() + w.cfg.Worker.ShutdownTimeout) / 2)
	defer forced.Stop()
	select {
	case err := <-ended:
		return err
	case <-forced.C:
		w.log.Error("forced shutdown: graceful shutdown took too long; payments in flight will be looked up")
		return nil
	}
}

func (w *Worker) run(ctx context.Context) error {
	server := &http.Server{Handler: w.web, ReadHeaderTimeout: 5 * time.Second}
	httpFailed := make(chan error, 1)
	go func() { httpFailed <- server.Serve(w.listener) }()
	// HTTP is closed last, so that probes are answered during the whole shutdown.
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(closeCtx) // a page that is still loading may be cut off
	}()
	w.log.Info("worker starts", "version", version.String(), "http", w.Addr().String(), "gateways", w.gateways,
		"concurrency", w.cfg.Worker.Concurrency, "poll", w.cfg.Worker.StatusPollInterval.String())

	watchCtx, stopWatching := context.WithCancel(context.WithoutCancel(ctx)) // until the end of the shutdown
	defer stopWatching()
	go w.health.Run(watchCtx)
	if err := w.awaitRedis(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	go w.writes.Watch(watchCtx)
	w.checkPayloadKeys(ctx)

	if err := w.tasks.Start(); err != nil {
		return err
	}
	tickCtx, stopTicking := context.WithCancel(ctx)
	defer stopTicking()
	tickerStopped := make(chan struct{})
	go func() {
		defer close(tickerStopped)
		w.ticker.Run(tickCtx)
	}()
	for _, a := range w.admission {
		go a.Watch(tickCtx)
	}
	if w.trimmer != nil {
		go w.trimmer.Run(tickCtx)
	}
	go w.ledger.KeepListed(tickCtx)
	archiverStopped := make(chan struct{})
	go func() {
		defer close(archiverStopped)
		if w.archiver != nil {
			w.archiver.Run(tickCtx)
		}
	}()
	webhooksStopped := make(chan struct{})
	go func() {
		defer close(webhooksStopped)
		if w.webhooks != nil {
			w.webhooks.Run(tickCtx)
		}
	}()
	w.web.SetReady(true)
	w.log.Info("worker is ready")

	var err error
	select {
	case <-ctx.Done():
	case err = <-httpFailed:
		err = fmt.Errorf("worker: http: %w", err)
	}
	w.web.SetReady(false)
	w.log.Info("worker is stopping: no longer accepting tasks", "timeout", w.cfg.Worker.ShutdownTimeout.String())
	for _, a := range w.admission {
		a.Stop()
	}
	stopTicking()
	<-tickerStopped
	<-archiverStopped
	w.tasks.Stop()
	w.tasks.Shutdown()
	<-webhooksStopped
	flushCtx, cancel := context.WithTimeout(context.Background(), w.cfg.Worker.ShutdownTimeout)
	defer cancel()
	w.ledger.Flush(flushCtx)
	w.log.Info("worker stopped")
	return err
}

// redisRetryInterval is the longest time between two tries to reach Redis at the start.
const redisRetryInterval = 2 * time.Second

// awaitRedis returns when Redis answers and is fit to keep payments, or when the context
// ends, which is no error.
func (w *Worker) awaitRedis(ctx context.Context) error {
	backoff := retry.WithCappedDuration(redisRetryInterval, retry.NewFibonacci(100*time.Millisecond))
	var warnings []string
	level := slog.LevelWarn // the first time, then debug: redishealth logs how long Redis is down
	err := retry.Do(ctx, backoff, func(ctx context.Context) (err error) {
		if warnings, err = redisconn.Check(ctx, w.redis); err == nil {
			err = w.writes.Start(ctx)
		}
		if err == nil {
			err = w.ledger.CheckPartitions(ctx)
		}
		if err == nil && w.webhooks != nil {
			err = w.webhooks.Start(ctx)
		}
		switch {
		case errors.As(err, new(*ledger.PartitionsError)):
			return config.OtherPartitions(err)
		case redis.IsAuthError(err):
			return config.RefusedLogin(err)
		case errors.Is(err, durable.ErrUnfit):
			return config.Unfit(err)
		}
		if err != nil && !errors.Is(err, redisconn.ErrUnfit) {
			w.log.Log(ctx, level, "waiting for redis", "error", err)
			level = slog.LevelDebug
			return retry.RetryableError(err)
		}
		return err
	})
	if ctx.Err() != nil {
		return nil
	}
	for _, text := range append(warnings, w.writes.Warnings()...) {
		w.log.Warn("redis: " + text)
	}
	return err
}

// checkPayloadKeys logs an error when PAYLOAD_KEYS do not decrypt the customer tokens in
// Redis. If Redis cannot be asked now, each payment reports it when it is sent.
func (w *Worker) checkPayloadKeys(ctx context.Context) {
	if !slices.Contains(w.gateways, payment.Paydia) {
		return
	}
	if problem, err := findUndecryptable(ctx, w.ledger, w.cipher); err == nil && problem != "" {
		w.log.Error(problem)
	}
}
