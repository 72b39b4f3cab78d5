package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/sync/errgroup"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/intake"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

const (
	others   = 20_000 // paid transactions of other systems, older than all of ours
	limit    = 100    // rows a page
	interval = 30 * time.Second
	fullScan = 15 * time.Minute // between two full scans
)

// pollCost is the number of requests, for lists and for single rows, in one situation.
type pollCost struct {
	name     string
	requests int
}

// pollEnv is a test environment with many transactions of other systems at AM. It counts
// requests and measures no time, so it uses an embedded Redis, whose clock can be moved.
type pollEnv struct{ *testenv.Env }

func newPollEnv(t testenv.TB) pollEnv {
	t.Helper()
	e := testenv.New(t, redistest.Mini(t))
	e.Poller.FullScan = fullScan
	e.Sim.AddOtherTransactions(others, 24*time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	return pollEnv{e}
}

// submit creates the payments with these numbers and sends each once.
func (e pollEnv) submit(ctx context.Context, from, to int) error {
	lines := make([]intake.Line, to-from)
	for i := range lines {
		lines[i] = intake.Line{Number: i + 1, Text: line(from + i)}
	}
	var group errgroup.Group
	group.SetLimit(concurrency)
	for _, a := range e.Intake.Create(ctx, lines) {
		if a.Result != intake.Enqueued {
			return fmt.Errorf("submit: %+v", a)
		}
		group.Go(func() error {
			_, err := e.Submitter.Submit(ctx, payment.Key{Gateway: a.Gateway, TransactionID: a.TransactionID})
			return err
		})
	}
	return group.Wait()
}

// lookups returns the number of lookup requests so far.
func (e pollEnv) lookups() int {
	return e.Sim.Requests(gatewaysim.AMList) + e.Sim.Requests(gatewaysim.AMDetail)
}

// poll lets an interval pass, polls, and returns the number of requests.
func (e pollEnv) poll(ctx context.Context) (int, error) {
	e.Advance(interval)
	before := e.lookups()
	err := e.Poller.Poll(ctx, payment.AMDigiPay)
	return e.lookups() - before, err
}

// pollUntil polls until n payments have a status.
func (e pollEnv) pollUntil(ctx context.Context, status payment.Status, n int64) (requests, polls int, err error) {
	for {
		stats, err := e.Ledger.Stats(ctx, payment.AMDigiPay)
		if err != nil || stats.Counts[status] >= n {
			return requests, polls, err
		}
		if polls == 100 {
			return 0, 0, fmt.Errorf("after %d polls: %v", polls, stats.Counts)
		}
		more, err := e.poll(ctx)
		if err != nil {
			return 0, 0, err
		}
		requests, polls = requests+more, polls+1
	}
}

// polls returns the rows of measurePolls. Bare asynq polls nothing.
func polls(ctx context.Context, _ options) ([]table.Row, error) {
	rows := []table.Row{{fmt.Sprintf("lookup requests at AM with %d paid transactions of other systems, %d a page", others, limit)}}
	err := with(ctx, func(t testenv.TB) {
		costs, err := measurePolls(t)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range costs {
			rows = append(rows, table.Row{"  " + c.name, c.requests})
		}
	})
	return rows, err
}

// measurePolls counts the requests of a poll without open payments, of a poll with 200 open
// payments, until five of them are recorded as paid, and after an outage of the gateway.
func measurePolls(t testenv.TB) ([]pollCost, error) {
	ctx := t.Context()
	costs, err := measureOpen(t)
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
		{"1000 unknown outcomes, all at the gateway, until all are found", gatewaysim.FaultLostAfter, payment.OnProcessing, others + outage},
		{"1000 unknown outcomes, none at the gateway, until all need review", gatewaysim.FaultLostBefore, payment.NeedsReview, others},
	} {
		e := newPollEnv(t)
		// After one answer of AM the ledger has a lowest possible id for later payments.
		if err := e.submit(ctx, outage, outage+1); err != nil {
			return nil, err
		}
		e.Sim.Inject(gatewaysim.FaultRule{Fault: o.fault, Operation: gatewaysim.AMCreate})
		if err := e.submit(ctx, 0, outage); err != nil {
			return nil, err
		}
		requests, polls, err := e.pollUntil(ctx, o.ends, outage)
		if err != nil {
			return nil, err
		}
		costs = append(costs, pollCost{fmt.Sprintf("%s (%d pages, %d polls)", o.name, o.rows/limit, polls), requests})
	}
	return costs, nil
}

func measureOpen(t testenv.TB) ([]pollCost, error) {
	ctx := t.Context()
	e := newPollEnv(t)
	nothing, err := e.poll(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.submit(ctx, 0, 200); err != nil {
		return nil, err
	}
	unchanged, err := e.poll(ctx)
	if err != nil {
		return nil, err
	}
	for i := range 5 {
		e.Sim.SetCustomer(gatewaysim.AM, reference(i*40), gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	}
	changed, polls, err := e.pollUntil(ctx, payment.Paid, 5)
	if err != nil {
		return nil, err
	}
	return []pollCost{
		{"a poll without open payments", nothing},
		{"a poll with 200 open payments, none changed", unchanged},
		{fmt.Sprintf("200 open payments, 5 of them paid, until recorded (%d poll)", polls), changed},
	}, nil
}
