package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"terbayar/internal/clients"
	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/secret"
	"terbayar/internal/statuspoll"
	"terbayar/internal/submit"
)

const (
	strangers = 20_000 // paid rows of others, older than all of ours
	limit     = 100    // rows a page
	interval  = 30 * time.Second
	sweep     = 15 * time.Minute // between two polls that take no short cut
)

// pollCost is how many requests something took, of lists and of single rows.
type pollCost struct {
	name     string
	requests int
}

// desk is everything that a poll needs, on a clock of its own.
type desk struct {
	sim       *gatewaysim.Sim
	book      *ledger.Ledger
	taker     *intake.Intake
	submitter *submit.Submitter
	poller    *statuspoll.Poller

	mu    sync.Mutex
	now   time.Time
	redis *miniredis.Miniredis
}

func (d *desk) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *desk) forward(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
	d.redis.SetTime(d.now)
}

func newDesk() (*desk, func(), error) {
	// Requests are counted here and no time is taken; an embedded Redis has a clock that
	// can be moved.
	embedded := miniredis.NewMiniRedis()
	if err := embedded.Start(); err != nil {
		return nil, nil, err
	}
	server := redis.NewClient(&redis.Options{Addr: embedded.Addr(), PoolSize: 128})
	d := &desk{now: time.Now(), redis: embedded}
	embedded.SetTime(d.now)
	cfg := gatewaysim.DefaultConfig()
	cfg.Customers = []gatewaysim.CustomerRule{{Customer: gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}}}
	d.sim = gatewaysim.New(cfg, d.clock)
	d.sim.AddOtherTransactions(strangers, 24*time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	site := httptest.NewServer(d.sim.Handler())
	stop := func() {
		site.Close()
		_ = server.Close() // nothing is under way any more
		embedded.Close()
	}
	client, err := amdigipay.New(amdigipay.Options{
		BaseURL: site.URL + "/api", Username: cfg.AM.Username, Password: secret.NewText(cfg.AM.Password), Now: d.clock,
	})
	if err != nil {
		stop()
		return nil, nil, err
	}
	policy := retrypolicy.Builtin()
	d.book = newLedger(server, d.clock)
	enqueue := func(context.Context, payment.Key, payment.Rupiah) error { return nil }
	requeue := func(context.Context, []*payment.Payment) error { return nil }
	unheard := func(*ledger.Record, payment.Attempt, error) {}
	d.taker = &intake.Intake{Ledger: d.book, Enqueue: enqueue}
	d.submitter = &submit.Submitter{
		Ledger: d.book, Gateways: map[payment.Gateway]clients.Gateway{payment.AMDigiPay: client}, Policy: policy,
		Times: submit.Times{Send: 10 * time.Second, Lease: 20 * time.Second}, PollInterval: interval, Now: d.clock,
		OnLogin: func(payment.Gateway, error) {}, OnAttempt: unheard, OnExpired: func(*ledger.Record) {},
	}
	d.poller = &statuspoll.Poller{
		Ledger: d.book, Submitter: d.submitter, Policy: policy, Requeue: requeue,
		Askers:   map[payment.Gateway]statuspoll.Asker{payment.AMDigiPay: &statuspoll.ListAsker{Client: client, Policy: policy, Limit: limit}},
		Interval: interval, FullScan: sweep, ExpiryGrace: time.Minute, LateWindow: 7 * 24 * time.Hour,
		Now: d.clock, OnAttempt: unheard, OnUnreadable: func(payment.Gateway, []string, error) {},
	}
	return d, stop, nil
}

// submit makes the payments from one number to another and sends each once.
func (d *desk) submit(ctx context.Context, from, to int) error {
	lines := make([]intake.Line, to-from)
	for i := range lines {
		lines[i] = intake.Line{Number: i + 1, Text: line(from + i)}
	}
	var group errgroup.Group
	group.SetLimit(concurrency)
	for _, a := range d.taker.Create(ctx, lines) {
		if a.Result != intake.Enqueued {
			return fmt.Errorf("submit: %+v", a)
		}
		group.Go(func() error {
			_, err := d.submitter.Submit(ctx, payment.Key{Gateway: a.Gateway, TransactionID: a.TransactionID})
			return err
		})
	}
	return group.Wait()
}

// asked is how many requests about where payments stand the gateway has had.
func (d *desk) asked() int {
	return d.sim.Requests(gatewaysim.AMList) + d.sim.Requests(gatewaysim.AMDetail)
}

// poll lets an interval pass, polls, and says how many requests that took.
func (d *desk) poll(ctx context.Context) (int, error) {
	d.forward(interval)
	before := d.asked()
	err := d.poller.Poll(ctx, payment.AMDigiPay)
	return d.asked() - before, err
}

// pollUntil polls until so many payments stand in a status.
func (d *desk) pollUntil(ctx context.Context, status payment.Status, n int64) (requests, polls int, err error) {
	for {
		census, err := d.book.Stats(ctx, payment.AMDigiPay)
		if err != nil || census.Counts[status] >= n {
			return requests, polls, err
		}
		if polls == 100 {
			return 0, 0, fmt.Errorf("after %d polls: %v", polls, census.Counts)
		}
		more, err := d.poll(ctx)
		if err != nil {
			return 0, 0, err
		}
		requests, polls = requests+more, polls+1
	}
}

// measurePolls counts requests: what a poll costs with nothing open, with
// 200 open payments, with five of them paid, and what an outage leaves behind.
func measurePolls(ctx context.Context) ([]pollCost, error) {
	costs, err := measureOpen(ctx)
	if err != nil {
		return nil, err
	}
	const outage = 1000
	for _, o := range []struct {
		name  string
		fault gatewaysim.Fault
		ends  payment.Status
		rows  int
	}{
		{"1000 unknown outcomes, all of which exist, until all are found", gatewaysim.FaultLostAfter, payment.OnProcessing, strangers + outage},
		{"1000 unknown outcomes, none of which exists, until all are held", gatewaysim.FaultLostBefore, payment.NeedsReview, strangers},
	} {
		d, stop, err := newDesk()
		if err != nil {
			return nil, err
		}
		defer stop()
		// A ledger that has had an answer from AM before knows which rows are older
		// than what it sends now.
		if err := d.submit(ctx, outage, outage+1); err != nil {
			return nil, err
		}
		d.sim.Inject(gatewaysim.FaultRule{Fault: o.fault, Operation: gatewaysim.AMCreate})
		if err := d.submit(ctx, 0, outage); err != nil {
			return nil, err
		}
		requests, polls, err := d.pollUntil(ctx, o.ends, outage)
		if err != nil {
			return nil, err
		}
		costs = append(costs, pollCost{fmt.Sprintf("%s (%d pages, %d polls)", o.name, o.rows/limit, polls), requests})
	}
	return costs, nil
}

func measureOpen(ctx context.Context) ([]pollCost, error) {
	d, stop, err := newDesk()
	if err != nil {
		return nil, err
	}
	defer stop()
	nothing, err := d.poll(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.submit(ctx, 0, 200); err != nil {
		return nil, err
	}
	still, err := d.poll(ctx)
	if err != nil {
		return nil, err
	}
	for i := range 5 {
		d.sim.SetCustomer(gatewaysim.AM, reference(i*40), gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	}
	moved, polls, err := d.pollUntil(ctx, payment.Paid, 5)
	if err != nil {
		return nil, err
	}
	return []pollCost{
		{"a poll with nothing open", nothing},
		{"a poll with 200 open, nothing moved", still},
		{fmt.Sprintf("200 open, 5 of them paid, until told (%d poll)", polls), moved},
	}, nil
}
