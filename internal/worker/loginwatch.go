package worker

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"terbayar/internal/clients"
	"terbayar/internal/payment"
)

// loginReminder is how often failing logins to one gateway are logged.
const loginReminder = time.Minute

// loginWatch logs when logins to a gateway begin to fail, once a minute while they fail,
// and when they work again.
type loginWatch struct {
	log    *slog.Logger
	now    func() time.Time
	metric func(g payment.Gateway, failed bool)

	mu      sync.Mutex
	outages map[payment.Gateway]*loginOutage
}

// loginOutage is a period in which all logins to a gateway fail.
type loginOutage struct {
	since        time.Time
	logged       time.Time // when it was last logged
	failedLogins int
	latest       error // of the latest login; every request until the next login gets the same error
}

func newLoginWatch(log *slog.Logger, now func() time.Time, metric func(payment.Gateway, bool)) *loginWatch {
	return &loginWatch{log: log, now: now, metric: metric, outages: map[payment.Gateway]*loginOutage{}}
}

// report is called before every request to a gateway; err is nil when the worker is
// logged in.
func (w *loginWatch) report(g payment.Gateway, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, outage := w.now(), w.outages[g]
	if err == nil {
		if outage != nil {
			delete(w.outages, g)
			w.metric(g, false)
			w.log.Info("gateway login works again", "gateway", g,
				"failed_logins", outage.failedLogins, "after", now.Sub(outage.since).Round(time.Second).String())
		}
		return
	}
	if outage == nil {
		outage = &loginOutage{since: now}
		w.outages[g] = outage
		w.metric(g, true)
	}
	if !errors.Is(err, outage.latest) {
		outage.failedLogins++
		outage.latest = err
	}
	if outage.logged.IsZero() || now.Sub(outage.logged) >= loginReminder {
		outage.logged = now
		w.log.Error("gateway login failed: payments wait, no attempt is counted", "gateway", g,
			"error", err, "failed_logins", outage.failedLogins, "since", outage.since.UTC().Format(time.RFC3339))
	}
}

// dropReported returns a poll's error, or nil if it is a failed login that report has
// already logged: the gateway is polled again at the next tick.
func (w *loginWatch) dropReported(err error) error {
	failure, ok := errors.AsType[*clients.Error](err)
	if !ok {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if outage := w.outages[failure.Gateway]; outage != nil && errors.Is(failure, outage.latest) {
		return nil
	}
	return err
}
