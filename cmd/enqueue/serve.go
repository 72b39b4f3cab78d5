package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/api"
	"terbayar/internal/callbacks"
	"terbayar/internal/config"
	"terbayar/internal/events"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/redishealth"
	"terbayar/internal/tasks"
	"terbayar/internal/telemetry"
	"terbayar/internal/version"
)

type serveCmd struct {
	config.Serve

	Log        config.Log     `embed:""`
	Archive    config.Archive `embed:""`
	MerchantID string         `name:"paydia-merchant-id" env:"PAYDIA_MERCHANT_ID" help:"Used for Paydia payments without merchantId."`
}

// Help is shown below the one-line help.
func (c *serveCmd) Help() string {
	return `The page /docs of the server describes all requests; /openapi.json is for programs that generate clients.

SIGTERM ends it: /readyz is 503 at once, requests are accepted for SERVE_SHUTDOWN_DELAY, and those in flight finish
within SERVE_SHUTDOWN_TIMEOUT. A second SIGTERM ends it at once.

Examples:

  enqueue keys new shop > /tmp/shop       # line 1 is the key, line 2 is for API_KEYS_FILE
  sed -n 2p /tmp/shop >> api-keys
  enqueue serve --api-keys-file api-keys`
}

// run serves the API until the context ends.
func (c *serveCmd) run(ctx context.Context, all *cli, client redis.UniversalClient, logTo io.Writer) error {
	log, err := telemetry.NewLogger(logTo, c.Log.Level, c.Log.Format)
	if err != nil {
		return err
	}
	cipher, err := all.Payload.Cipher()
	if err != nil {
		return err
	}
	records, writes, closeRecords, err := openLedger(ctx, all, client, log)
	if err != nil {
		return err
	}
	defer closeRecords()
	var other *ledger.PartitionsError
	if err := records.CheckPartitions(ctx); errors.As(err, &other) {
		return config.OtherPartitions(other)
	}

	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	health := redishealth.New(client, time.Now, log)
	metrics := telemetry.NewAPI(health)
	keys, err := c.keys(background, &group, metrics, log)
	if err != nil {
		return err
	}
	callbackHandler, err := c.callbacks(records, health, metrics, log)
	if err != nil {
		return err
	}
	var limit *api.RateLimit
	if c.RateLimit.Per > 0 {
		limit = api.NewRateLimit(client, c.RateLimit.Requests, c.RateLimit.Per)
	}
	certificate, err := c.certificate(background, &group, metrics, log)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.HTTPAddr)
	if err != nil {
		return config.Wrong("SERVE_HTTP_ADDR", err)
	}
	defer listener.Close()
	var metricsListener net.Listener
	if c.MetricsAddr != "" {
		if metricsListener, err = net.Listen("tcp", c.MetricsAddr); err != nil {
			return config.Wrong("SERVE_METRICS_ADDR", err)
		}
		defer metricsListener.Close()
		log.Info("serving /metrics, /healthz and /readyz", "addr", metricsListener.Addr().String())
	}
	server := api.New(api.Options{
		Intake: &intake.Intake{
			Ledger: records, Cipher: cipher, Defaults: order.Defaults{MerchantID: c.MerchantID},
			Enqueue: tasks.NewEnqueuer(client, time.Now).Submit,
		},
		Ledger: records, Streams: events.NewStreams(client, ledger.StreamNames(all.Events.Stream, all.Ledger.Partitions)),
		Redis: health, Keys: keys, RateLimit: limit, Callbacks: callbackHandler, ArchiveDir: c.Archive.Dir, Metrics: metrics, Now: time.Now, Log: log,
		MetricsListener: metricsListener, ShutdownDelay: c.ShutdownDelay, ShutdownTimeout: c.ShutdownTimeout,
	})
	group.Go(func() { writes.Watch(background) })
	group.Go(func() { health.Run(background) })
	log.Info("serving the HTTP API", "addr", listener.Addr().String(), "tls", certificate != nil, "version", version.String())
	if certificate == nil {
		return server.Serve(ctx, listener, nil)
	}
	return server.Serve(ctx, listener, certificate.TLS())
}

// callbacks returns the handler of the gateways' callbacks; nil if they are off.
func (c *serveCmd) callbacks(records *ledger.Ledger, health *redishealth.Monitor, metrics *telemetry.API, log *slog.Logger) (*callbacks.Handler, error) {
	secrets, err := c.CallbackSecrets()
	if err != nil || secrets == nil {
		return nil, err
	}
	var outcomes []string
	for _, o := range callbacks.Outcomes() {
		outcomes = append(outcomes, string(o))
	}
	metrics.Callbacks(outcomes)
	return callbacks.New(callbacks.Options{
		Secrets: secrets, Trusted: c.TrustedProxies, Ask: records.Ask, RedisIsUp: func() bool { return health.State().Up },
		OnOutcome: func(g payment.Gateway, o callbacks.Outcome) { metrics.Callback(g, string(o)) }, Now: time.Now, Log: log,
	}), nil
}

// keys returns the API keys, and reads their file again when it changes.
func (c *serveCmd) keys(ctx context.Context, group *sync.WaitGroup, metrics *telemetry.API, log *slog.Logger) (*api.Keys, error) {
	set := func(keys []api.Key) {
		var names []string
		for _, k := range keys {
			if !slices.Contains(names, k.Name) {
				names = append(names, k.Name)
			}
		}
		metrics.Keys(names)
		log.Info("API keys in force", "count", len(keys), "names", names)
	}
	if c.KeysFile == "" {
		parsed, err := api.ParseKeys(c.Keys.Reveal())
		switch {
		case err != nil:
			return nil, config.Wrong("API_KEYS", err)
		case len(parsed) == 0 && !c.Keys.Empty():
			return nil, config.Wrong("API_KEYS", errNoKey)
		case len(parsed) == 0:
			log.Warn("there are no API keys: only loopback callers are answered")
		default:
			set(parsed)
		}
		return api.NewKeys(parsed), nil
	}
	var keys *api.Keys
	file := &api.Files{
		Paths: []string{c.KeysFile},
		Load: func(contents [][]byte) error {
			parsed, err := api.ParseKeys(string(contents[0]))
			switch {
			case err != nil:
				return err
			case keys != nil: // later, no key means that all are revoked
				keys.Set(parsed)
			case len(parsed) == 0:
				return errNoKey
			default:
				keys = api.NewKeys(parsed)
			}
			set(parsed)
			return nil
		},
		OnReload: api.LogReload(log, "API_KEYS_FILE", func(failed bool) { metrics.ReloadFailed("keys", failed) }),
	}
	if err := file.Read(); err != nil {
		return nil, config.Wrong("API_KEYS_FILE", withoutPath(err))
	}
	metrics.ReloadFailed("keys", false)
	group.Go(func() { file.Watch(ctx, 0) })
	return keys, nil
}

var errNoKey = errors.New("contains no key")

// withoutPath removes the path from an error about a file: a wrong one may be a secret.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return fmt.Errorf("cannot be read: %w", pathErr.Err)
	}
	return err
}

// certificate returns the TLS certificate, nil without TLS, and reads it again when it changes.
func (c *serveCmd) certificate(ctx context.Context, group *sync.WaitGroup, metrics *telemetry.API, log *slog.Logger) (*api.Certificate, error) {
	if c.TLSCertFile == "" {
		return nil, nil
	}
	certificate := &api.Certificate{}
	logged := api.LogReload(log, "SERVE_TLS_CERT_FILE", func(failed bool) { metrics.ReloadFailed("certificate", failed) })
	files := &api.Files{
		Paths: []string{c.TLSCertFile, c.TLSKeyFile}, Load: certificate.Load,
		OnReload: func(err error) {
			metrics.CertificateExpires(certificate.Expires())
			logged(err)
		},
	}
	if err := files.Read(); err != nil {
		return nil, config.Wrong("SERVE_TLS_CERT_FILE, SERVE_TLS_KEY_FILE", withoutPath(err))
	}
	metrics.CertificateExpires(certificate.Expires())
	metrics.ReloadFailed("certificate", false)
	group.Go(func() { files.Watch(ctx, 0) })
	return certificate, nil
}
