package worker

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"terbayar/internal/clients"
	"terbayar/internal/payment"
)

// loginReminder is how often a login that goes on failing is told of.
const loginReminder = time.Minute

// loginWatch tells of a gateway that cannot be logged in to: when that begins, once
// a minute while it lasts, and when it is over.
type loginWatch struct {
	log    *slog.Logger
	now    func() time.Time
	metric func(g payment.Gateway, failed bool)

	mu  sync.Mutex
	out map[payment.Gateway]*loginOutage
}

// loginOutage is a time in which no login succeeds.
type loginOutage struct {
	since  time.Time
	told   time.Time
	logins int   // that failed
	latest error // whoever asks before the next login gets the same
}

func newLoginWatch(log *slog.Logger, now func() time.Time, metric func(payment.Gateway, bool)) *loginWatch {
	return &loginWatch{log: log, now: now, metric: metric, out: map[payment.Gateway]*loginOutage{}}
}

// told is told, before every request, whether a gateway can be logged in to.
func (w *loginWatch) told(g payment.Gateway, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, outage := w.now(), w.out[g]
	if err == nil {
		if outage != nil {
			delete(w.out, g)
			w.metric(g, false)
			w.log.Info("the gateway can be logged in to again", "gateway", g,
				"failed_logins", outage.logins, "after", now.Sub(outage.since).Round(time.Second).String())
		}
		return
	}
	if outage == nil {
		outage = &loginOutage{since: now}
		w.out[g] = outage
		w.metric(g, true)
	}
	if !errors.Is(err, outage.latest) {
		outage.logins++
		outage.latest = err
	}
	if outage.told.IsZero() || now.Sub(outage.told) >= loginReminder {
		outage.told = now
		w.log.Error("the gateway cannot be logged in to: its payments wait, no attempt is spent", "gateway", g,
			"error", err, "failed_logins", outage.logins, "since", outage.since.UTC().Format(time.RFC3339))
	}
}

// knows takes out of a poll's error what the watch has told already: that the
// gateway cannot be logged in to. The next poll comes by itself.
func (w *loginWatch) knows(err error) error {
	failure, ok := errors.AsType[*clients.Error](err)
	if !ok {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if outage := w.out[failure.Gateway]; outage != nil && errors.Is(failure, outage.latest) {
		return nil
	}
	return err
}
