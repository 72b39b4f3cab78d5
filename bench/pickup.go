package main

import (
	"math/rand/v2"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/testenv"
)

func pickUpFigures() []figure {
	return []figure{
		{"pick-up by an idle worker, median (ms)", "%.0f", "60", false},
		{"  commands to Redis a second, idle, both gateways (without those in scripts)", "%.0f", "60", false},
		{"  round trips a second, idle", "%.0f", "", false},
	}
}

// pickUp creates payments one by one at random moments, and measures the time from the end of
// each create to its arrival at the gateway. Then it counts what the idle worker sends to
// Redis. Both gateways are configured, because each has its own queues.
func pickUp(t testenv.TB, s side, o options) []float64 {
	e := newEnv(t, 0)
	create := s.creator(e)
	s.work(e, concurrency, paydiaSettings(t)...)
	create(0) // opens connections and loads scripts
	e.gateway.await(1)
	var took []float64
	// The moments are spread evenly over asynq's check interval, in random order.
	for i, place := range rand.Perm(o.pickUps) { //nolint:gosec // not a secret
		pause(t, 100*time.Millisecond+200*time.Millisecond*time.Duration(place)/time.Duration(o.pickUps))
		create(i + 1)
		created := time.Now()
		took = append(took, e.gateway.await(i+2).Last.Sub(created).Seconds()*1000)
	}
	await(t, "all answers are recorded", func() bool { return s.recorded(e, o.pickUps+1) })

	before := e.redis.reads()
	commands := e.redis.commands(o.idle)
	reads := e.redis.reads() - before
	return []float64{median(took), float64(commands) / o.idle.Seconds(), reads / o.idle.Seconds()}
}

// paydiaSettings switch Paydia on. No request is sent to it.
func paydiaSettings(t testenv.TB) []string {
	t.Helper()
	private, _, err := gatewaysim.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	return []string{"PAYDIA_CLIENT_ID=x", "PAYDIA_CLIENT_SECRET=x", "PAYDIA_PRIVATE_KEY=" + string(private)}
}
