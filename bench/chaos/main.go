// Command chaos shows that no payment is charged twice, lost, or given a wrong status,
// whatever fails. It submits payments with the real enqueue, to real workers on real
// redis-servers, at simulated gateways that misbehave. Meanwhile it kills workers and Redis,
// or promotes replicas that lag, sometimes at the same moment. When every payment has ended,
// the verifier compares the ledger with what the gateways and a consumer of the events have
// seen. chaos needs redis-server, redis-sentinel and redis-cli on the PATH and a checkout to
// build from.
//
// The exit code is 0 if nothing was found, 1 if something was, and 2 if the run failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9/logging"

	"terbayar/internal/payment"
	"terbayar/internal/testenv"
	"terbayar/internal/testenv/programs"
)

type flags struct {
	Seed            uint64          `default:"1" help:"Decides the payments, the faults and which workers are killed; how processes interleave differs from run to run."`
	Duration        time.Duration   `default:"20s" help:"How long faults and kills go on."`
	Payments        int             `default:"300" help:"Payments submitted meanwhile, half to each gateway."`
	Workers         int             `default:"2" help:"Workers at any time."`
	FaultRate       float64         `default:"0.3" help:"Share of the requests to the gateways that meet a fault, 0 to 1."`
	GatewayDown     payment.Gateway `default:"" enum:",amdigipay,paydia" help:"The only failure is that this gateway loses every connection: no other faults, no kills. The other gateway must not be affected, and no attempt be spent (${enum})."`
	KillEvery       time.Duration   `default:"3s" help:"A worker is killed about every ...; one time in four it gets SIGTERM instead. 0: never."`
	Redis           string          `default:"standalone" enum:"standalone,sentinel1,sentinel2,cluster" help:"One redis-server, a Sentinel with one or two replicas, or a Cluster with a replica each (${enum})."`
	Partitions      int             `default:"1" help:"LEDGER_PARTITIONS of every program."`
	RedisFailsEvery time.Duration   `default:"8s" help:"Redis fails about every ...; 0: never. A standalone one is killed and restarted with its append-only file. Otherwise a replica is made to lag and then promoted, with the primary killed, frozen or alive. One time in two a worker is killed or gets SIGTERM at the same moment."`
	RedisDown       time.Duration   `default:"0s" help:"How long a standalone Redis is down; 0: up to 4 s, at random."`
	Retention       time.Duration   `default:"0s" help:"RETENTION of the workers, with an archive: payments become tombstones during the run. 0: never."`
	Durability      string          `default:"" help:"REDIS_DURABILITY of every program."`
	WaitReplicas    string          `default:"" help:"REDIS_WAIT_REPLICAS of every program. Fewer than there are loses payments, which shows that chaos finds a loss."`
	Settle          time.Duration   `default:"5m" help:"How long it may take afterwards until every payment has ended."`
	Quiet           bool            `help:"Print the figures and the result only."`
}

// AfterApply is kong's hook for checks that involve several flags.
func (f *flags) AfterApply() error {
	if f.GatewayDown != "" {
		f.FaultRate, f.KillEvery, f.RedisFailsEvery = 0, 0, 0
	}
	switch {
	case f.Duration <= 0 || f.Payments < 1 || f.Workers < 1 || f.Partitions < 1:
		return errors.New("--duration, --payments, --workers and --partitions must be positive")
	case f.FaultRate < 0 || f.FaultRate > 1:
		return errors.New("--fault-rate must be between 0 and 1")
	case f.KillEvery < 0 || f.RedisFailsEvery < 0 || f.RedisDown < 0 || f.Settle < 0:
		return errors.New("--kill-every, --redis-fails-every, --redis-down and --settle cannot be negative")
	}
	return nil
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("chaos"), kong.Description("Kills workers and Redis while gateways misbehave, and verifies what happened to the payments."))
	logging.Disable() // go-redis logs every failure of Redis
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	clean, err := run(ctx, f, os.Stdout)
	programs.Remove()
	stop()
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "chaos: seed %d: %v\n", f.Seed, err)
		os.Exit(2)
	case !clean:
		os.Exit(1)
	}
}

// run is one run. It keeps the logs unless nothing was found.
func run(ctx context.Context, f flags, out io.Writer) (clean bool, err error) {
	t, err := testenv.NewProgramTB(ctx, f.Quiet)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, t.Close(!clean || err != nil)) }()
	err = t.Try(func() {
		r := newRun(t, f)
		r.submitWhileFailing()
		r.Sim.ClearFaults()
		t.Logf("no more kills and faults")
		begun := time.Now()
		r.AwaitEnd(r.orders.Submitted(), f.Settle)
		r.settled = time.Since(begun)
		r.StopWorkers(shutdownGrace)
		r.verify()
		fmt.Fprintln(out, r.figures())
		r.writeResult(out)
		clean = r.report.Clean()
	})
	return clean, err
}
