// Command chaos shows that no payment is made twice, lost or guessed at, whatever
// breaks. It hands payments in with the real enqueue, to real workers on a real
// redis-server, at simulated gateways that misbehave; it kills workers and Redis
// all the while, then lets everything settle, and judges by what the gateways have
// seen. It needs a redis-server on the PATH and a checkout to build from.
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
)

type flags struct {
	Seed              uint64        `default:"1" help:"Decides the payments, the faults and the victims; how processes interleave is the machine's doing."`
	Duration          time.Duration `default:"20s" help:"How long faults and kills go on."`
	Payments          int           `default:"300" help:"Payments handed in meanwhile, half to each gateway."`
	Workers           int           `default:"2" help:"Workers at any time."`
	FaultRate         float64       `default:"0.3" help:"Share of the requests to the gateways that meet a fault, 0 to 1."`
	KillEvery         time.Duration `default:"3s" help:"A worker is killed about so often; one time in four it is told to end instead."`
	RedisRestartEvery time.Duration `default:"8s" help:"Redis is killed about so often and comes back with its AOF; 0: never."`
	Settle            time.Duration `default:"180s" help:"How long everything may take to settle afterwards; asynq brings a killed worker's tasks back after one to two minutes."`
	Quiet             bool          `help:"Print the figures and the verdict only."`
}

// Validate implements kong's check.
func (f *flags) Validate() error {
	switch {
	case f.Duration <= 0 || f.KillEvery <= 0 || f.Payments < 1 || f.Workers < 1:
		return errors.New("--duration, --kill-every, --payments and --workers must be positive")
	case f.FaultRate < 0 || f.FaultRate > 1:
		return errors.New("--fault-rate must be between 0 and 1")
	case f.RedisRestartEvery < 0 || f.Settle < 0:
		return errors.New("--redis-restart-every and --settle cannot be negative")
	}
	return nil
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("chaos"), kong.Description("Kills workers and Redis under misbehaving gateways, and judges what became of the payments."))
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
	if err := s.storm(ctx, c); err != nil {
		return false, err
	}
	s.sim.ClearFaults()
	s.say("the storm is over: no more kills and faults")
	if c.settled, err = s.settle(ctx, c.payments); err != nil {
		return false, err
	}
	c.crashes = append(c.crashes, s.dismiss()...)
	if err := c.gather(ctx, s); err != nil {
		return false, err
	}
	fmt.Fprintln(out, c.figures())
	return c.verdict(out), nil
}
