// Command demo shows all of Terbayar in one process: an embedded Redis, both
// gateways simulated, a worker, and payments of every kind, followed until each
// has ended as it should.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
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
	"terbayar/internal/payment"
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
	Serve   bool   `help:"Keep running afterwards, with the web pages up."`
	Addr    string `help:"Where the web pages are." default:"127.0.0.1:8080"`
	Verbose bool   `short:"v" help:"Show the worker's log."`
}

// deadline is how long all payments together may take.
const deadline = 28 * time.Second

func run(ctx context.Context, args []string, out, log io.Writer) error {
	var c cli
	if _, err := config.Parse("demo", "All of Terbayar in one process, on an embedded Redis and simulated gateways.", &c, args, out); err != nil {
		return err
	}
	logger := slog.New(slog.DiscardHandler)
	if c.Verbose {
		var err error
		if logger, err = telemetry.NewLogger(log, "info", "auto"); err != nil {
			return err
		}
	}

	embedded := miniredis.NewMiniRedis()
	if err := embedded.Start(); err != nil {
		return fmt.Errorf("embedded redis: %w", err)
	}
	defer embedded.Close()
	client := redis.NewClient(&redis.Options{Addr: embedded.Addr()})
	defer client.Close()

	start := time.Now()
	stories := Stories(start)
	sim, simURL, privateKey, stopSim, err := simulate(stories)
	if err != nil {
		return err
	}
	defer stopSim()

	dir, err := os.MkdirTemp("", "terbayar-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cfg, err := settings(simURL, privateKey, dir, c)
	if err != nil {
		return err
	}
	writes := durable.New(durable.Options{Client: client, Mode: durable.None, Key: ledger.DurabilityKey, Now: time.Now, Log: logger})
	house, err := worker.New(cfg, client, writes, logger)
	if err != nil {
		return err
	}
	working, stopWorking := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- house.Run(working) }()
	defer func() {
		stopWorking()
		_ = <-stopped // the story is told; how the house closed is not part of it
	}()

	fmt.Fprintf(out, "%d payments to two simulated gateways, on an embedded Redis\n", len(stories))
	sealer, err := cfg.Payload.Sealer()
	if err != nil {
		return err
	}
	book := ledger.New(ledger.Options{Redis: client, Writes: writes, Stream: ledger.DefaultStream, Now: time.Now, Log: logger})
	following, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	err = perform(following, book, sealer, tasks.NewEnqueuer(client, time.Now), stories)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	told, err := tell(ctx, out, book, events.NewStream(client, ledger.DefaultStream), stories)
	if err != nil {
		return err
	}
	summary := sim.Summary()
	fmt.Fprintf(out, "\n%d of %d payments ended as they should, in %s. The gateways saw %d doubles and %d malformed requests.\n",
		told, len(stories), time.Since(start).Round(100*time.Millisecond), len(summary.Duplicates), summary.Violations)
	if c.Serve {
		fmt.Fprintf(out, "\nhttp://%[1]s/monitoring/  http://%[1]s/metrics  (end with Ctrl-C)\n", house.Addr())
		select {
		case <-ctx.Done():
		case err := <-stopped:
			stopped <- nil
			return err
		}
	}
	if told != len(stories) || len(summary.Duplicates) > 0 || summary.Violations > 0 {
		return errors.New("something did not end as it should")
	}
	return nil
}

// simulate serves both gateways on a loopback port.
func simulate(stories []Story) (sim *gatewaysim.Sim, url string, privateKey secret.Text, stop func(), err error) {
	private, public, err := gatewaysim.NewKeyPair()
	if err != nil {
		return nil, "", secret.Text{}, nil, err
	}
	cfg := gatewaysim.DefaultConfig()
	cfg.Paydia.PublicKey = public
	for _, s := range stories {
		if s.Refusal != nil {
			cfg.Refusals = append(cfg.Refusals, *s.Refusal)
		}
	}
	sim = gatewaysim.New(cfg, time.Now)
	for _, s := range stories {
		sim.SetCustomer(gatewaysim.Gateway(s.Key.Gateway), s.Key.TransactionID, s.Customer)
		if s.Fault != nil {
			sim.Inject(*s.Fault)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", secret.Text{}, nil, err
	}
	server := &http.Server{Handler: sim.Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }() // ends with Close
	return sim, "http://" + listener.Addr().String(), secret.NewText(string(private)), func() { _ = server.Close() }, nil
}

// policy makes minutes into seconds, so that the demo can be watched.
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

// settings are the worker's, read as it reads them itself.
func settings(simURL string, privateKey secret.Text, dir string, c cli) (worker.Config, error) {
	keyFile, policyFile := filepath.Join(dir, "paydia.pem"), filepath.Join(dir, "retry-policy.yaml")
	if err := errors.Join(
		os.WriteFile(keyFile, []byte(privateKey.Reveal()), 0o600),
		os.WriteFile(policyFile, []byte(policy), 0o600),
	); err != nil {
		return worker.Config{}, err
	}
	addr := "127.0.0.1:0"
	if c.Serve {
		addr = c.Addr
	}
	sim := gatewaysim.DefaultConfig()
	var cfg struct {
		worker.Config
	}
	_, err := config.Parse("demo", "", &cfg, []string{
		"--amdigipay-base-url", simURL + "/api",
		"--amdigipay-username", sim.AM.Username, "--amdigipay-password", sim.AM.Password,
		"--paydia-base-url", simURL + "/snap/v1.0",
		"--paydia-client-id", sim.Paydia.ClientID, "--paydia-client-secret", sim.Paydia.ClientSecret,
		"--paydia-private-key-file", keyFile, "--paydia-merchant-id", sim.Paydia.MerchantID,
		"--payload-keys", secret.NewKey().Reveal(),
		"--status-poll-interval", "1s", "--expiry-grace", "1s", "--gateway-timeout", "5s",
		"--worker-http-addr", addr, "--retry-policy-file", policyFile,
	}, io.Discard)
	return cfg.Config, err
}

// perform hands the payments in and follows them to their ends. Those that lose
// the access token come second: it is void for all then, and beside the others
// it would be the lost request of one of those that is refused.
func perform(ctx context.Context, book *ledger.Ledger, sealer *secret.Cipher, enqueuer *tasks.Enqueuer, stories []Story) error {
	answered := func(r *ledger.Record, _ Story) bool { return len(r.Attempts) > 0 && r.Attempts[0].Code != "" }
	ended := func(r *ledger.Record, s Story) bool { return r.Status == s.Ends[len(s.Ends)-1] }
	var rounds [2][]Story
	for _, s := range stories {
		round := 0
		if s.Fault != nil && s.Fault.Fault == gatewaysim.FaultTokenLost {
			round = 1
		}
		rounds[round] = append(rounds[round], s)
	}
	for _, round := range rounds {
		if err := enqueue(ctx, book, sealer, enqueuer, round); err != nil {
			return err
		}
		if err := follow(ctx, book, round, answered); err != nil {
			return err
		}
	}
	return follow(ctx, book, stories, ended)
}

// enqueue hands the stories' payments in, as "enqueue create" does.
func enqueue(ctx context.Context, book *ledger.Ledger, sealer *secret.Cipher, enqueuer *tasks.Enqueuer, stories []Story) error {
	lines := make([]intake.Line, len(stories))
	for i, s := range stories {
		lines[i] = intake.Line{Number: i + 1, Text: s.Order}
	}
	taker := &intake.Intake{Ledger: book, Cipher: sealer, Enqueue: enqueuer.Submit}
	for _, a := range taker.Create(ctx, lines) {
		if a.Result != intake.Enqueued {
			return fmt.Errorf("%s: %s: %s", a.TransactionID, a.Result, a.Error)
		}
	}
	return nil
}

// follow waits until every payment has come as far as asked.
func follow(ctx context.Context, book *ledger.Ledger, stories []Story, far func(*ledger.Record, Story) bool) error {
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for _, s := range stories {
		for {
			r, err := book.Read(ctx, s.Key)
			if err != nil {
				return err
			}
			if far(r, s) {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-look.C:
			}
		}
	}
	return nil
}

// words are the statuses as the events tell them.
func words(ends []payment.Status) []string {
	words := make([]string, len(ends))
	for i, s := range ends {
		words[i] = string(s)
	}
	return words
}
