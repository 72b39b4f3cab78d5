package main

import (
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"terbayar/internal/config"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/testenv"
	"terbayar/internal/testenv/programs"
	"terbayar/internal/testenv/verify"
)

// What takes minutes in production takes seconds here.
const (
	gatewayTimeout  = 2 * time.Second
	settleTime      = 6 * time.Second
	shutdownTimeout = 10 * time.Second
	shutdownGrace   = shutdownTimeout + 20*time.Second // leaves room for a busy machine
)

// claimLease is the lease of a claim that follows from the gateway timeout.
var claimLease = (&config.Worker{GatewayTimeout: gatewayTimeout}).ClaimLease((&config.Redis{}).LongestWait())

// chaosRun is one run: its environment, and what was done to it.
type chaosRun struct {
	*programs.Env
	f flags

	t        *testenv.ProgramTB
	redis    *deployment
	payments []programs.Payment
	orders   *programs.OrderSystem
	consumer *programs.EventConsumer

	mu      sync.Mutex
	workers []*programs.Process // that run

	kills, terms   int
	sameMoment     int    // of these, at the moment at which Redis failed
	outages        []span // when Redis was down
	latePromotions int    // of these, promotions of a replica that lagged
	down           span   // when the gateway was down
	settled        time.Duration

	result *verify.Run
	report *verify.Report
}

// span is a period of time; zero if there was none.
type span struct{ from, to time.Time }

// overlap returns how long both spans overlap.
func (s span) overlap(o span) time.Duration {
	from, to := s.from, s.to
	if o.from.After(from) {
		from = o.from
	}
	if o.to.Before(to) {
		to = o.to
	}
	return max(to.Sub(from), 0)
}

// newRun starts Redis, the simulators and the workers.
func newRun(t *testenv.ProgramTB, f flags) *chaosRun {
	r := &chaosRun{t: t, f: f, redis: deploy(t, f)}
	r.Env = programs.New(t, r.redis.url, programs.Options{
		Simulators: []func(*gatewaysim.Config){programs.UseKinds, f.gateways},
		Middleware: distant, Settle: settleTime, LogDir: t.Dir(), Partitions: f.Partitions,
	})
	for name, value := range map[string]string{
		"WORKER_SHUTDOWN_TIMEOUT": shutdownTimeout.String(), "GATEWAY_TIMEOUT": gatewayTimeout.String(), "GATEWAY_BREAKER_PAUSE": "1s",
		"REDIS_DURABILITY": f.Durability, "REDIS_WAIT_REPLICAS": f.WaitReplicas, "EXPIRY_GRACE": "",
	} {
		r.Settings[name] = value
	}
	if f.Retention > 0 {
		r.Settings["RETENTION"], r.Settings["ARCHIVE_DIR"] = f.Retention.String(), filepath.Join(t.Dir(), "archive")
		if err := os.Mkdir(r.Settings["ARCHIVE_DIR"], 0o750); err != nil {
			t.Fatal(err)
		}
	}
	r.payments = f.newPayments()
	r.orders = r.NewOrderSystem()
	r.consumer = r.NewEventConsumer()
	for range f.Workers {
		r.workers = append(r.workers, r.StartWorker())
	}
	return r
}

// gateways sets how the simulated gateways misbehave.
func (f flags) gateways(c *gatewaysim.Config) {
	c.Seed = f.Seed
	c.AM.Duplicates = gatewaysim.DuplicateSecond // a second request is a second payment
	c.Faults = gatewaysim.EvenFaults(f.FaultRate)
	for i, rule := range c.Faults {
		switch rule.Fault {
		case gatewaysim.FaultLateLost, gatewaysim.FaultLate500:
			c.Faults[i].Delay = settleTime / 2 // a row that appears later than settle cannot be found
		case gatewaysim.FaultSlow:
			c.Faults[i].Delay = gatewayTimeout * 3 / 2
		default:
		}
	}
}

// newPayments returns the payments of the run: all kinds but those that take longer than a
// run. Each of them may end in manual review, because a fault can lose its request.
func (f flags) newPayments() []programs.Payment {
	kinds := slices.DeleteFunc(programs.KindsWith(), func(k programs.Kind) bool {
		return k.Expires != 0 || k.Ends == payment.Refunded
	})
	all := programs.NewMix(f.Payments, kinds, func(_ int, o *testenv.Order) { o.Title = "chaos" })
	for i := range all {
		all[i].MayNeedReview = true
	}
	return all
}

// distant makes every request and every answer take up to 250 ms, so that a kill meets
// requests on their way to a gateway and answers on their way back.
func distant(next http.Handler) http.Handler {
	travel := func() { time.Sleep(rand.N(250 * time.Millisecond)) } //nolint:gosec // not a secret
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		travel()
		next.ServeHTTP(w, r) // it panics when a fault loses the connection
		travel()             // the answer is short: it is sent when the handler returns
	})
}

// verify collects what is known about the run and verifies it.
func (r *chaosRun) verify() {
	r.result = r.Collect(r.orders.Submitted(), r.consumer)
	r.result.Failover = r.f.Redis != "standalone" && len(r.outages) > 0
	if r.f.GatewayDown != "" {
		r.result.Outage = &verify.Outage{Gateway: r.f.GatewayDown, From: r.down.from, To: r.down.to}
	}
	r.report = r.result.Verify()
}
