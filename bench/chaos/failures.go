package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"terbayar/internal/gatewaysim"
)

// submitWhileFailing submits the payments while workers, Redis and gateways fail. When it
// returns, every payment is acknowledged, Redis is up, and as many workers run as at first.
func (r *chaosRun) submitWhileFailing() {
	group, ctx := errgroup.WithContext(r.t.Context())
	failing, cancel := context.WithTimeout(ctx, r.f.Duration)
	defer cancel()
	start := func(f func()) { group.Go(func() error { return r.t.Try(f) }) }
	start(func() { r.submit(ctx) })
	if r.f.KillEvery > 0 {
		start(func() { r.killWorkers(failing) })
	}
	if r.f.RedisFailsEvery > 0 {
		start(func() { r.failRedis(failing) })
	}
	if r.f.GatewayDown != "" {
		start(func() { r.failGateway(failing) })
	}
	if err := group.Wait(); err != nil {
		r.t.Fatal(err)
	}
}

// random returns the random source of one stream. Each activity uses its own stream, so that
// its numbers do not depend on the other activities.
func (r *chaosRun) random(stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(r.f.Seed, stream)) //nolint:gosec // a run can be repeated
}

// about returns a random duration between half and one and a half of d.
func about(d time.Duration, random *rand.Rand) time.Duration {
	return d/2 + time.Duration(random.Int64N(int64(d)+1))
}

// sleep waits, and reports false if the context has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// submit submits all payments, a few at a time, over most of the duration.
func (r *chaosRun) submit(ctx context.Context) {
	const largest = 15
	random := r.random(1)
	gap := r.f.Duration * 8 / 10 * (largest + 1) / 2 / time.Duration(len(r.payments))
	for left := r.payments; len(left) > 0; {
		n := min(1+random.IntN(largest), len(left))
		batch, cancel := context.WithTimeout(ctx, r.f.RedisDown+3*time.Minute)
		if failed := r.orders.Submit(batch, left[:n]); failed > 0 {
			r.t.Fatalf("%d payments could not be submitted", failed)
		}
		cancel()
		left = left[n:]
		if !sleep(ctx, about(gap, random)) {
			r.t.Fatal(ctx.Err())
		}
	}
}

// killWorkers kills a worker now and then, or sends it SIGTERM, and starts another one.
func (r *chaosRun) killWorkers(failing context.Context) {
	random := r.random(2)
	for sleep(failing, about(r.f.KillEvery, random)) {
		r.killWorker(random)
	}
}

func (r *chaosRun) killWorker(random *rand.Rand) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := random.IntN(len(r.workers))
	victim := r.workers[i]
	r.workers = slices.Delete(r.workers, i, i+1)
	switch {
	case victim.HasEnded():
		r.t.Logf("%s has ended by itself", victim.Name)
	case random.IntN(4) == 0:
		r.t.Logf("SIGTERM to %s", victim.Name)
		r.terms++
		victim.Signal(syscall.SIGTERM)
	default:
		r.t.Logf("kill -9 %s", victim.Name)
		r.kills++
		victim.Kill()
	}
	r.workers = append(r.workers, r.StartWorker())
}

// failRedis makes Redis fail now and then, half the time at the same moment as a worker.
func (r *chaosRun) failRedis(failing context.Context) {
	random, victims := r.random(3), r.random(4)
	for sleep(failing, about(r.f.RedisFailsEvery, random)) {
		var outage span
		killed := make(chan error, 1)
		late := r.redis.fail(random, func(how string) {
			r.t.Logf("%s", how)
			outage.from = time.Now()
			if r.f.KillEvery == 0 || victims.IntN(2) == 0 {
				killed <- nil
				return
			}
			r.sameMoment++
			go func() { killed <- r.t.Try(func() { r.killWorker(victims) }) }()
		})
		outage.to = time.Now()
		r.outages = append(r.outages, outage)
		if late {
			r.latePromotions++
		}
		if err := <-killed; err != nil {
			r.t.Fatal(err)
		}
	}
}

// failGateway lets a gateway work for a tenth of the duration, so that payments are in flight
// there, and then makes it lose every connection.
func (r *chaosRun) failGateway(failing context.Context) {
	if !sleep(failing, r.f.Duration/10) {
		return
	}
	r.t.Logf("%s is down", r.f.GatewayDown)
	r.down.from = time.Now()
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostBefore, Operation: gatewaysim.Operation(r.f.GatewayDown)})
	<-failing.Done()
	r.down.to = time.Now()
}
