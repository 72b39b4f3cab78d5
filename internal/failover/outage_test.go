package failover_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"terbayar/internal/redistest"
)

// TestOutage: under load Redis is away for a while: killed, and back with its
// append-only file; or deaf, and then it does all that it was asked meanwhile.
func TestOutage(t *testing.T) {
	t.Parallel()
	kill := func(p *redistest.Process, _ redistest.TB) { p.Kill() }
	for _, row := range []struct {
		name       string
		begin, end func(*redistest.Process, redistest.TB)
		lasts      time.Duration
	}{
		{"killed 1 s", kill, (*redistest.Process).Start, time.Second},
		{"killed 5 s", kill, (*redistest.Process).Start, 5 * time.Second},
		{"killed 60 s", kill, (*redistest.Process).Start, time.Minute}, // asynq's leases run out meanwhile
		{"deaf 5 s", (*redistest.Process).Pause, (*redistest.Process).Resume, 5 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Server(t)
			s := newStage(t, server.URL())
			w := s.worker()
			s.handIn(t.Context(), 60, time.Millisecond)
			s.eventually("the load is on", 10*time.Second, func() bool { return s.sent() >= 15 })

			row.begin(server, t)
			calls, dials, lines := w.meter.calls.Load(), w.meter.dials.Load(), w.log.lines()
			outage := time.NewTimer(row.lasts)
			if code := get(t, w.site+"/readyz"); code != http.StatusServiceUnavailable {
				t.Errorf("/readyz answers %d", code)
			}
			if code := get(t, w.site+"/healthz"); code != http.StatusOK {
				t.Errorf("/healthz answers %d", code)
			}
			<-outage.C
			calls, dials, lines = w.meter.calls.Load()-calls, w.meter.dials.Load()-dials, w.log.lines()-lines
			t.Logf("%s without Redis: %d calls, %d dials, %d lines logged", row.lasts, calls, dials, lines)
			if seconds := int64(row.lasts.Seconds()); calls > 100*seconds || dials > 500*seconds || lines > 20*int(seconds) {
				t.Error("that is a hot loop")
			}
			row.end(server, t)
			s.endsWell(45 * time.Second) // a claim whose reply was lost in the outage may have to expire
		})
	}
}

// get asks a worker's site.
func get(t *testing.T, url string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}
