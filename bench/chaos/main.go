// Command chaos shows that no payment is made twice, lost or guessed at, whatever
// breaks. It hands payments in with the real enqueue, to real workers on real
// redis-servers, at simulated gateways that misbehave; it kills workers and Redis, or
// promotes replicas that lag, all the while and sometimes in the same moment, then lets
// everything settle, and judges by what the gateways and a consumer of the events have
// seen. It needs redis-server, redis-sentinel and redis-cli on the PATH and a checkout
// to build from.
//
// The exit code is 0 when the judgement is clean, 1 when it is not, and 2 when
// none could be passed.
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
)

type flags struct {
	Seed            uint64          `default:"1" help:"Decides the payments, the faults and the victims; how processes interleave is the machine's doing."`
	Duration        time.Duration   `default:"20s" help:"How long faults and kills go on."`
	Payments        int             `default:"300" help:"Payments handed in meanwhile, half to each gateway."`
	Workers         int             `default:"2" help:"Workers at any time."`
	FaultRate       float64         `default:"0.3" help:"Share of the requests to the gateways that meet a fault, 0 to 1."`
	GatewayDown     payment.Gateway `default:"" enum:",amdigipay,paydia" help:"The only trouble is that this gateway loses every connection: no other faults, no kills. The other one must not suffer, and no attempt be spent (${enum})."`
	KillEvery       time.Duration   `default:"3s" help:"A worker is killed about so often; one time in four it is told to end instead. 0: never."`
	Redis           string          `default:"standalone" enum:"standalone,sentinel1,sentinel2,cluster" help:"One redis-server, a Sentinel with one or two replicas, or a Cluster with a replica each (${enum})."`
	RedisFailsEvery time.Duration   `default:"8s" help:"Redis fails about so often; 0: never. A standalone one is killed and comes back with its AOF. Elsewhere a replica is made to lag and then promoted, the primary being killed, frozen or well; one time in two a worker is killed or told to end in the same moment."`
	RedisAway       time.Duration   `default:"0s" help:"How long a standalone Redis then stays away; 0: up to 4 s, by chance."`
	Durability      string          `default:"" help:"REDIS_DURABILITY of every program."`
	WaitReplicas    string          `default:"" help:"REDIS_WAIT_REPLICAS of every program. Less than there are loses payments, which shows that a loss would be seen."`
	Settle          time.Duration   `default:"5m" help:"How long everything may take to settle afterwards."`
	Quiet           bool            `help:"Print the figures and the verdict only."`
}

// AfterApply is kong's hook for what one flag cannot know of another.
func (f *flags) AfterApply() error {
	if f.GatewayDown != "" {
		f.FaultRate, f.KillEvery, f.RedisFailsEvery = 0, 0, 0
	}
	switch {
	case f.Duration <= 0 || f.Payments < 1 || f.Workers < 1:
		return errors.New("--duration, --payments and --workers must be positive")
	case f.FaultRate < 0 || f.FaultRate > 1:
		return errors.New("--fault-rate must be between 0 and 1")
	case f.KillEvery < 0 || f.RedisFailsEvery < 0 || f.RedisAway < 0 || f.Settle < 0:
		return errors.New("--kill-every, --redis-fails-every, --redis-away and --settle cannot be negative")
	}
	return nil
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("chaos"), kong.Description("Kills workers and Redis under misbehaving gateways, and judges what became of the payments."))
	logging.Disable() // that Redis is away we know
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	clean, err := run(ctx, f, os.Stdout)
	stop()
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "chaos: seed %d: %v\n", f.Seed, err)
		os.Exit(2)
	case !clean:
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags, out io.Writer) (clean bool, err error) {
	s, err := newStage(ctx, f)
	if err != nil {
		return false, err
	}
	defer func() { s.close(clean) }()

	c := newCase(f)
	heard := s.follow(ctx)
	if err := s.storm(ctx, c); err != nil {
		return false, err
	}
	s.sim.ClearFaults()
	s.say("the storm is over: no more kills and faults")
	if c.settled, err = s.settle(ctx, c.payments); err != nil {
		return false, err
	}
	c.crashes = append(c.crashes, s.dismiss()...)
	if err := c.gather(ctx, s, heard); err != nil {
		return false, err
	}
	fmt.Fprintln(out, c.figures())
	return c.verdict(out), nil
}
