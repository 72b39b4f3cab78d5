// Command demo runs all of Terbayar in one process: an embedded Redis, both simulated
// gateways and a worker. It submits 14 payments, waits for their results, and prints what
// happened to each.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/durable"
	"terbayar/internal/events"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/redisconn"
	"terbayar/internal/secret"
	"terbayar/internal/tasks"
	"terbayar/internal/telemetry"
	"terbayar/internal/worker"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err == nil || errors.Is(err, config.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	stop()
	if errors.As(err, new(*config.Error)) {
		os.Exit(2)
	}
	os.Exit(1)
}

type cli struct {
	Serve   bool   `help:"Keep running afterwards, with the web pages."`
	Addr    string `help:"Address of the web pages, with --serve." default:"127.0.0.1:8080"`
	Verbose bool   `short:"v" help:"Show the worker's log."`
}

// deadline is the longest time that the demo waits for all payments.
const deadline = 28 * time.Second

func run(ctx context.Context, args []string, out, logOut io.Writer) error {
	var c cli
	if _, err := config.Parse("demo", "All of Terbayar in one process, with an embedded Redis and simulated gateways.", &c, args, out); err != nil {
		return err
	}

	embedded := miniredis.NewMiniRedis()
	if err := embedded.Start(); err != nil {
		return fmt.Errorf("embedded redis: %w", err)
	}
	defer embedded.Close()
	client := redis.NewClient(&redis.Options{Addr: embedded.Addr()})
	defer client.Close()

	start := time.Now()
	scenarios := Scenarios(start)
	gateways, err := simulate(scenarios)
	if err != nil {
		return err
	}
	defer gateways.Close()
	policyFile, err := writePolicy()
	if err != nil {
		return err
	}
	defer os.Remove(policyFile)
	cfg, err := workerConfig(gateways, policyFile, c)
	if err != nil {
		return err
	}
	logger := slog.New(slog.DiscardHandler)
	if c.Verbose {
		if logger, err = telemetry.NewLogger(logOut, "info", "auto"); err != nil {
			return err
		}
		logger.Info("the demo's Redis is embedded and keeps nothing: REDIS_DURABILITY is none")
	}
	writes := durable.NewWriters(durable.Options{Client: client, Mode: durable.None, Now: time.Now, Log: logger}, ledger.DurabilityKeys(client, 1))
	warnings, err := redisconn.Check(ctx, client)
	if err != nil {
		return err
	}
	// The worker's warnings about Redis are left out: the demo chose this Redis.
	workerLog := slog.New(filter{logger.Handler(), append(warnings, writes.Warnings()...)})
	w, err := worker.New(cfg, client, writes, workerLog)
	if err != nil {
		return err
	}
	workerCtx, stopWorker := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- w.Run(workerCtx) }()
	defer func() {
		stopWorker()
		_ = <-stopped // the results are printed: an error of the shutdown changes nothing
	}()

	fmt.Fprintf(out, "Submitting %d payments to two simulated gateways, with an embedded Redis.\n\n", len(scenarios))
	cipher, err := cfg.Payload.Cipher()
	if err != nil {
		return err
	}
	records := ledger.New(ledger.Options{Redis: client, Writes: writes, Stream: ledger.DefaultStream, Now: time.Now, Log: logger})
	waiting, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	err = submitAll(waiting, records, cipher, tasks.NewEnqueuer(client, time.Now), scenarios)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	expected, err := printResults(ctx, out, records, events.NewStreams(client, []string{ledger.DefaultStream}), scenarios)
	if err != nil {
		return err
	}
	summary := gateways.Summary()
	fmt.Fprintf(out, "\n%d of %d payments ended as expected, in %s. The gateways received %d duplicate charges and %d malformed requests.\n",
		expected, len(scenarios), time.Since(start).Round(100*time.Millisecond), len(summary.Duplicates), summary.Violations)
	if c.Serve {
		printServed(out, w.Addr().String(), gateways.URL, embedded.Addr(), cfg.Payload.Keys)
		select {
		case <-ctx.Done():
		case err := <-stopped:
			stopped <- nil
			return err
		}
	}
	if expected != len(scenarios) || len(summary.Duplicates) > 0 || summary.Violations > 0 {
		return errors.New("a payment did not end as expected, or a gateway received a wrong request")
	}
	return nil
}

// filter drops the log lines whose message ends with one of the texts.
type filter struct {
	slog.Handler

	texts []string
}

func (f filter) Handle(ctx context.Context, r slog.Record) error {
	if slices.ContainsFunc(f.texts, func(text string) bool { return strings.HasSuffix(r.Message, text) }) {
		return nil
	}
	return f.Handler.Handle(ctx, r)
}

// simulate starts both gateways with the scenarios' customers, faults and refusals.
func simulate(scenarios []Scenario) (*gatewaysim.Server, error) {
	cfg := gatewaysim.DefaultConfig()
	for _, s := range scenarios {
		if s.Refusal != nil {
			cfg.Refusals = append(cfg.Refusals, *s.Refusal)
		}
		if s.Fault != nil {
			cfg.Faults = append(cfg.Faults, *s.Fault)
		}
	}
	server, err := gatewaysim.NewServer(cfg, gatewaysim.ServerOptions{})
	if err != nil {
		return nil, err
	}
	for _, s := range scenarios {
		server.SetCustomer(gatewaysim.Gateway(s.Key.Gateway), s.Key.TransactionID, s.Customer)
	}
	return server, nil
}

// printServed prints the addresses of the running demo, and commands that show its payments.
func printServed(out io.Writer, web, gateways, redisAddr string, keys secret.Text) {
	fmt.Fprintf(out, `
The worker keeps running; Ctrl-C ends it.

  web pages                     http://%[1]s/monitoring/
  metrics                       http://%[1]s/metrics
  what the gateways received    %[2]s/admin/summary

From another terminal, in this directory:

  export REDIS_URL=redis://%[3]s/0 REDIS_DURABILITY=none PAYLOAD_KEYS=%[4]s
  go run ./cmd/enqueue status amdigipay INV-2
  go run ./cmd/enqueue status paydia ORD-6 --json
  go run ./cmd/enqueue events
`, web, gateways, redisAddr, keys.Reveal())
}

// policy retries after seconds, the built-in policy after minutes.
const policy = `gateways:
  amdigipay:
    verify: {settle: 4s, lookups: 2, then: review}
    rules:
      - {code: "net:unknown", action: verify, backoff: {type: constant, base: 2s}, max_attempts: 10}
  paydia:
    verify: {settle: 4s, lookups: 2, then: review}
    rules:
      - {code: "net:unknown", action: verify, backoff: {type: constant, base: 2s}, max_attempts: 10}
      - {code: "5xx6301", action: verify, backoff: {type: constant, base: 2s}, max_attempts: 10}
`

// writePolicy writes the policy to a temporary file and returns its name.
func writePolicy() (string, error) {
	f, err := os.CreateTemp("", "terbayar-demo-*.yaml")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(policy)
	return f.Name(), errors.Join(err, f.Close())
}

// workerConfig parses the worker's settings as cmd/worker does.
func workerConfig(gateways *gatewaysim.Server, policyFile string, c cli) (worker.Config, error) {
	addr := "127.0.0.1:0"
	if c.Serve {
		addr = c.Addr
	}
	args := []string{
		"--payload-keys", secret.NewKey().Reveal(),
		"--status-poll-interval", "1s", "--expiry-grace", "1s", "--gateway-timeout", "5s",
		"--worker-http-addr", addr, "--retry-policy-file", policyFile,
	}
	for _, setting := range gateways.Settings() {
		args = append(args, setting.Flag())
	}
	var cfg struct {
		worker.Config
	}
	_, err := config.Parse("demo", "", &cfg, args, io.Discard)
	return cfg.Config, err
}

// submitAll submits the payments and waits for their results. Payments that lose the access
// token are submitted after the others: the loss affects all requests to the gateway, also those
// of the other scenarios.
func submitAll(ctx context.Context, records *ledger.Ledger, cipher *secret.Cipher, enqueuer *tasks.Enqueuer, scenarios []Scenario) error {
	answered := func(r *ledger.Record, _ Scenario) bool { return len(r.Attempts) > 0 && r.Attempts[0].Code != "" }
	ended := func(r *ledger.Record, s Scenario) bool { return r.Status == s.final() }
	var rounds [2][]Scenario
	for _, s := range scenarios {
		round := 0
		if s.Fault != nil && s.Fault.Fault == gatewaysim.FaultTokenLost {
			round = 1
		}
		rounds[round] = append(rounds[round], s)
	}
	for _, round := range rounds {
		if err := enqueue(ctx, records, cipher, enqueuer, round); err != nil {
			return err
		}
		if err := waitFor(ctx, records, round, answered); err != nil {
			return err
		}
	}
	return waitFor(ctx, records, scenarios, ended)
}

// enqueue submits payments as "enqueue create" does.
func enqueue(ctx context.Context, records *ledger.Ledger, cipher *secret.Cipher, enqueuer *tasks.Enqueuer, scenarios []Scenario) error {
	lines := make([]intake.Line, len(scenarios))
	for i, s := range scenarios {
		lines[i] = intake.Line{Number: i + 1, Text: s.Order}
	}
	in := &intake.Intake{Ledger: records, Cipher: cipher, Enqueue: enqueuer.Submit}
	for _, a := range in.Create(ctx, lines) {
		if a.Result != intake.Enqueued {
			return fmt.Errorf("%s: %s: %s", a.TransactionID, a.Result, a.Error)
		}
	}
	return nil
}

// waitFor returns when the condition holds for the record of every scenario.
func waitFor(ctx context.Context, records *ledger.Ledger, scenarios []Scenario, condition func(*ledger.Record, Scenario) bool) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for _, s := range scenarios {
		for {
			r, err := records.Read(ctx, s.Key)
			if err != nil {
				return err
			}
			if condition(r, s) {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	}
	return nil
}
