package worker

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/clients"
	"terbayar/internal/payment"
)

// TestLoginWatch: failing logins are logged once a minute, with their number, and their
// end is logged once.
func TestLoginWatch(t *testing.T) {
	var log bytes.Buffer
	now := time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)
	var metric []string
	w := newLoginWatch(slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now },
		func(g payment.Gateway, failed bool) { metric = append(metric, fmt.Sprintf("%s %v", g, failed)) })
	w.report(payment.AMDigiPay, nil)
	for second := range 150 {
		now = now.Add(time.Second)
		failure := error(&clients.Error{Gateway: payment.AMDigiPay, Code: "http:401"})
		for range 10 {
			w.report(payment.AMDigiPay, failure)
		}
		if err := w.dropReported(fmt.Errorf("poll: %w", failure)); err != nil {
			t.Errorf("second %d: the poll returns %v, which is already logged", second, err)
		}
	}
	w.report(payment.Paydia, nil)
	w.report(payment.AMDigiPay, nil)
	w.report(payment.AMDigiPay, nil)
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	for i, want := range []string{"failed_logins=1 ", "failed_logins=61 ", "failed_logins=121 ", "failed_logins=150 after=2m29s"} {
		if i >= len(lines) || !strings.Contains(lines[i]+" ", want) {
			t.Errorf("line %d does not contain %s", i, want)
		}
	}
	if len(lines) != 4 || strings.Count(log.String(), "level=ERROR") != 3 {
		t.Errorf("log:\n%s", log.String())
	}
	if diff := cmp.Diff([]string{"amdigipay true", "amdigipay false"}, metric); diff != "" {
		t.Error(diff)
	}
	other := errors.New("redis is down")
	if err := w.dropReported(other); !errors.Is(err, other) {
		t.Error("another error is dropped")
	}
	if w.dropReported(&clients.Error{Gateway: payment.Paydia}) == nil {
		t.Error("a failed login that is not logged is dropped")
	}
}
