package webhooks

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/secret"
)

// TestDelivered: the request is the event as it is in the stream, signed with every secret.
func TestDelivered(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		e.publish(nil, "before", 1, payment.Paid)
		r := newReceiver(t, status(http.StatusNoContent))
		endpoint := e.endpoint("shop", r.URL+"/hook?token=x")
		if err := endpoint.setSecrets(secret.NewText(newSecret("b") + "," + newSecret("a"))); err != nil {
			t.Fatal(err)
		}
		d, _ := e.start(fast, endpoint)
		e.publish(d, "INV-1", 1, payment.Paid)
		request := r.await(t, 1)[0]
		verify(t, request, newSecret("a"))
		verify(t, request, newSecret("b"))
		if got := request.header.Get("Content-Type"); got != "application/cloudevents+json" {
			t.Errorf("Content-Type: %s", got)
		}
		if request.id != WebhookID("paydia:INV-1:1:paid") || !strings.HasPrefix(request.id, "evt_") {
			t.Errorf("webhook-id: %s", request.id)
		}
		if in := client.XRevRangeN(t.Context(), e.streams[0], "+", "-", 1).Val()[0].Values["event"]; in != request.body {
			t.Errorf("body %s, want %s", request.body, in)
		}
		eventually(t, func() bool { return e.counts.get("shop delivered") == 1 })
		if state := e.state("shop"); state.Pending != 0 || state.GivenUp != 0 || state.Oldest != 0 || state.FailingSince != nil {
			t.Errorf("%+v", state)
		}
		if all := r.all(); len(all) != 1 { // an endpoint that is new gets no event from before
			t.Errorf("%d requests", len(all))
		}
	})
}

// TestOrder: a payment's events arrive in order, the later one only after the earlier one was
// delivered. Other payments do not wait.
func TestOrder(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		r := newReceiver(t, status(http.StatusOK))
		broken := make(chan struct{})
		r.setAnswer(func(w http.ResponseWriter, req *http.Request) {
			select {
			case <-broken:
			default:
				if req.Header.Get("webhook-id") == WebhookID("paydia:A:1:on_processing") {
					w.WriteHeader(http.StatusInternalServerError)
				}
			}
		})
		d, _ := e.start(slices.Repeat(Schedule{20 * time.Millisecond}, 40), e.endpoint("shop", r.URL))
		e.publish(d, "A", 1, payment.OnProcessing)
		e.publish(d, "A", 2, payment.Paid)
		for i := range 30 {
			e.publish(d, fmt.Sprintf("other-%d", i), 1, payment.Paid)
		}
		eventually(t, func() bool { return e.counts.get("shop delivered") == 30 && e.counts.get("shop failed") >= 3 })
		if all := e.pending("shop"); len(all) != 2 || all[0].EventID != "paydia:A:1:on_processing" || all[0].Tries == 0 || all[0].Result != "http:500" ||
			all[1].EventID != "paydia:A:2:paid" || all[1].State != StateWaiting {
			t.Errorf("pending: %+v", all)
		}
		close(broken)
		eventually(t, func() bool { return e.counts.get("shop delivered") == 32 })
		var order []string
		for _, request := range r.all() {
			if request.event.Subject == "A" {
				order = append(order, request.event.ID)
			}
		}
		if n := len(order); n < 4 || order[n-1] != "paydia:A:2:paid" || slices.Contains(order[:n-1], "paydia:A:2:paid") {
			t.Errorf("order: %v", order)
		}
	})
}

// TestAnswers: what each answer leads to.
func TestAnswers(t *testing.T) {
	elsewhere := newReceiver(t, status(http.StatusOK))
	rows := []struct {
		name    string
		answer  http.HandlerFunc
		outcome string
		result  string
	}{
		{"200", status(http.StatusOK), outcomeDelivered, ""},
		{"202", status(http.StatusAccepted), outcomeDelivered, ""},
		{"endless answer", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, endless{})
		}, outcomeDelivered, ""},
		{"302", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, outcomeFailed, "http:302"},
		{"308", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusPermanentRedirect)
		}, outcomeFailed, "http:308"},
		{"400", status(http.StatusBadRequest), outcomeFailed, "http:400"},
		{"500", status(http.StatusInternalServerError), outcomeFailed, "http:500"},
		{"reset", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, outcomeFailed, "net:reset"},
		{"many headers", func(w http.ResponseWriter, _ *http.Request) {
			for i := range 100 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
			}
		}, outcomeFailed, "net:error"},
	}
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		r := newReceiver(t, nil)
		d, _ := e.start(Schedule{time.Hour}, e.endpoint("shop", r.URL))
		for i, row := range rows {
			r.setAnswer(row.answer)
			before := e.counts.get("shop " + row.outcome)
			e.publish(d, fmt.Sprint(i), 1, payment.Paid)
			eventually(t, func() bool { return e.counts.get("shop "+row.outcome) == before+1 })
			result := ""
			for _, p := range e.pending("shop") {
				if p.TransactionID == fmt.Sprint(i) {
					result = p.Result
					if next := time.Until(*p.NextAt); next < 50*time.Minute || next > 70*time.Minute {
						t.Errorf("%s: next try in %s", row.name, next)
					}
				}
			}
			if result != row.result {
				t.Errorf("%s: %q, want %q", row.name, result, row.result)
			}
		}
		if n := len(elsewhere.all()); n != 0 {
			t.Errorf("%d redirects were followed", n)
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestUnreachable: without an answer a delivery is tried again, after an error of DNS too.
func TestUnreachable(t *testing.T) {
	closed := newReceiver(t, nil)
	closed.Close()
	tls := httptest.NewTLSServer(status(http.StatusOK)) // with a certificate of an unknown authority
	t.Cleanup(tls.Close)
	for _, row := range []struct{ address, result string }{
		{closed.URL, "net:refused"},
		{"https://no-such-name.invalid/", "net:dns"},
		{tls.URL, "net:tls"},
	} {
		e := newEnv(t, redistest.Mini(t))
		d, _ := e.start(Schedule{time.Hour}, e.endpoint("shop", row.address))
		e.publish(d, "INV-1", 1, payment.Paid)
		eventually(t, func() bool { return e.counts.get("shop failed") == 1 })
		if all := e.pending("shop"); len(all) != 1 || all[0].Result != row.result {
			t.Errorf("%s: %+v", row.address, all)
		}
	}
}

// TestRetryAfter: it is obeyed if it is longer than the schedule's pause.
func TestRetryAfter(t *testing.T) {
	for _, row := range []struct {
		header   string
		min, max time.Duration
	}{
		{"600", 10 * time.Minute, 10 * time.Minute},
		{"1", time.Minute, 67 * time.Second},
		{"999999999999", 24 * time.Hour, 24 * time.Hour},
		{"99999999", 24 * time.Hour, 24 * time.Hour},
		{"-5", time.Minute, 67 * time.Second},
		{"soon", time.Minute, 67 * time.Second},
		{time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), 59 * time.Minute, time.Hour},
	} {
		e := newEnv(t, redistest.Mini(t))
		r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", row.header)
			w.WriteHeader(http.StatusTooManyRequests)
		})
		d, _ := e.start(Schedule{time.Minute}, e.endpoint("shop", r.URL))
		e.publish(d, "INV-1", 1, payment.Paid)
		eventually(t, func() bool { return e.counts.get("shop failed") == 1 })
		if next := time.Until(*e.pending("shop")[0].NextAt); next < row.min-10*time.Second || next > row.max {
			t.Errorf("Retry-After: %s: next try in %s", row.header, next)
		}
	}
}

// TestGivenUpAndReplayed: after the last try the next event of the payment is delivered. Every
// replay has the same webhook-id, and a new signature.
func TestGivenUpAndReplayed(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		r := newReceiver(t, nil)
		r.setAnswer(func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("webhook-id") == WebhookID("paydia:A:1:on_processing") {
				w.WriteHeader(http.StatusTeapot)
			}
		})
		d, _ := e.start(fast, e.endpoint("shop", r.URL))
		e.publish(d, "A", 1, payment.OnProcessing)
		e.publish(d, "A", 2, payment.Paid)
		eventually(t, func() bool { return e.counts.get("shop gave_up") == 1 && e.counts.get("shop delivered") == 1 })
		if failed := e.counts.get("shop failed"); failed != len(fast) {
			t.Errorf("%d tries, want %d", failed+1, fast.Tries())
		}
		all := e.pending("shop")
		if len(all) != 1 || all[0].State != StateGivenUp || all[0].EventID != "paydia:A:1:on_processing" || e.state("shop").GivenUp != 1 {
			t.Fatalf("pending: %+v", all)
		}
		r.setAnswer(status(http.StatusOK))
		for i, selection := range []Selection{
			{GivenUp: true},
			{EventIDs: []string{"paydia:A:1:on_processing"}},
			{Payment: &payment.Key{Gateway: payment.Paydia, TransactionID: "A"}, Statuses: []payment.Status{payment.OnProcessing}},
		} {
			before := len(r.all())
			if n, err := e.admin().Replay(t.Context(), "shop", selection); n != 1 || err != nil {
				t.Fatalf("replay %d: %d, %v", i, n, err)
			}
			d.Wake()
			last := r.await(t, before+1)[before]
			verify(t, last, newSecret("a"))
			if last.event.ID != "paydia:A:1:on_processing" || last.id != WebhookID(last.event.ID) {
				t.Errorf("replay %d: %s %s", i, last.event.ID, last.id)
			}
			eventually(t, func() bool { return e.counts.get("shop delivered") == i+2 })
		}
		if n, err := e.admin().Replay(t.Context(), "shop", Selection{GivenUp: true}); n != 0 || err != nil {
			t.Errorf("nothing is given up: %d, %v", n, err)
		}
		if _, err := e.admin().Replay(t.Context(), "shpo", Selection{}); err == nil || !strings.Contains(err.Error(), "shpo") {
			t.Errorf("replay to an unknown endpoint: %v", err)
		}
	})
}

// TestReplayOfWaiting: a replay of an event that waits for its next try makes it due at once.
func TestReplayOfWaiting(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		r := newReceiver(t, status(http.StatusBadGateway))
		d, _ := e.start(Schedule{time.Hour}, e.endpoint("shop", r.URL))
		e.publish(d, "A", 1, payment.Paid)
		eventually(t, func() bool { return e.counts.get("shop failed") == 1 })
		r.setAnswer(status(http.StatusOK))
		if n, err := e.admin().Replay(t.Context(), "shop", Selection{EventIDs: []string{"paydia:A:1:paid"}}); n != 1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		d.Wake()
		eventually(t, func() bool { return e.counts.get("shop delivered") == 1 })
		if n := len(r.all()); n != 2 {
			t.Errorf("%d requests", n)
		}
	})
}

// TestHangingEndpoint: an endpoint that does not answer delays no other one.
func TestHangingEndpoint(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		release := make(chan struct{})
		hangs := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-release })
		works := newReceiver(t, status(http.StatusOK))
		d, _ := e.start(fast, e.endpoint("hangs", hangs.URL), e.endpoint("works", works.URL))
		for i := range 5 * slots {
			e.publish(d, fmt.Sprint(i), 1, payment.Paid)
		}
		works.await(t, 5*slots)
		if n := len(hangs.await(t, slots)); n != slots {
			t.Errorf("%d requests are open at the endpoint that hangs", n)
		}
		close(release)
		eventually(t, func() bool { return e.counts.get("hangs delivered") == 5*slots })
	})
}

// TestCrashedWorker: what a worker had taken when it crashed is sent after its lease.
func TestCrashedWorker(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		r := newReceiver(t, status(http.StatusOK))
		q := &queue{redis: client, stream: e.streams[0], endpoint: "shop"}
		if err := q.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.publish(nil, "A", 1, payment.Paid)
		if _, err := q.create(t.Context(), func(event) bool { return true }); err != nil {
			t.Fatal(err)
		}
		taken, _, err := q.take(t.Context(), 1, 300*time.Millisecond)
		if err != nil || len(taken) != 1 {
			t.Fatalf("%v, %v", taken, err)
		}
		if again, _, err := q.take(t.Context(), 1, lease); len(again) != 0 || err != nil {
			t.Fatalf("taken twice: %v, %v", again, err)
		}
		e.start(fast, e.endpoint("shop", r.URL))
		r.await(t, 1)
		eventually(t, func() bool { return e.counts.get("shop delivered") == 1 })
		// The worker was not dead but slow. Its failure no longer counts.
		if err := taken[0].finish(t.Context(), outcomeGaveUp, "net:timeout", 0); err != nil {
			t.Fatal(err)
		}
		if all := e.pending("shop"); len(all) != 0 {
			t.Errorf("pending: %+v", all)
		}
	})
}

// TestStaleFailure: the failure of a worker whose lease has ended changes nothing; its success
// counts.
func TestStaleFailure(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		q := &queue{redis: client, stream: e.streams[0], endpoint: "shop"}
		ctx := t.Context()
		if err := q.start(ctx); err != nil {
			t.Fatal(err)
		}
		e.publish(nil, "A", 1, payment.OnProcessing)
		e.publish(nil, "A", 2, payment.Paid)
		if _, err := q.create(ctx, func(event) bool { return true }); err != nil {
			t.Fatal(err)
		}
		take := func(lease time.Duration) (d delivery) {
			t.Helper()
			eventually(t, func() bool {
				taken, _, err := q.take(ctx, 1, lease)
				if err != nil {
					t.Fatal(err)
				}
				if len(taken) == 0 {
					return false
				}
				d = taken[0]
				return true
			})
			return d
		}
		entries := func() (n int) {
			return len(strings.Fields(client.HGet(ctx, q.payments(), "paydia:A").Val())) - 4
		}
		slow := take(time.Millisecond)
		second := take(time.Hour)
		for _, outcome := range []string{outcomeFailed, outcomeGaveUp} {
			if err := slow.finish(ctx, outcome, "net:timeout", time.Hour); err != nil || entries() != 2 {
				t.Fatalf("%s: %v, %d entries", outcome, err, entries())
			}
		}
		if err := slow.finish(ctx, outcomeDelivered, "http:200", 0); err != nil || entries() != 1 {
			t.Fatalf("%v, %d entries", err, entries())
		}
		// The first event is over. What the other worker reports of it must not end the second.
		if err := second.finish(ctx, outcomeDelivered, "http:200", 0); err != nil || entries() != 1 {
			t.Fatalf("%v, %d entries", err, entries())
		}
		if next := take(time.Hour); next.event.ID != "paydia:A:2:paid" {
			t.Errorf("next: %s", next.event.ID)
		}
	})
}

// TestSeveralWorkers: each event is delivered once.
func TestSeveralWorkers(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client, "terbayar:events", "terbayar:events:1", "terbayar:events:2")
		r := newReceiver(t, status(http.StatusOK))
		d, _ := e.start(fast, e.endpoint("shop", r.URL))
		for range 2 {
			e.start(fast, e.endpoint("shop", r.URL))
		}
		const payments = 150
		for i := range payments {
			id := strings.Repeat("x", i%3) + fmt.Sprint(i)
			e.publish(d, id, 1, payment.OnProcessing)
			e.publish(d, id, 2, payment.Paid)
		}
		eventually(t, func() bool { return e.counts.get("shop delivered") == 2*payments })
		last := map[string]string{}
		for _, request := range r.all() {
			if was := last[request.event.Subject]; was == request.event.Type || was > request.event.Type {
				t.Errorf("%s: %s after %s", request.event.Subject, request.event.Type, was)
			}
			last[request.event.Subject] = request.event.Type
		}
		if n := len(r.all()); n != 2*payments {
			t.Errorf("%d requests, want %d", n, 2*payments)
		}
	})
}

// TestSelection: an endpoint gets what it selects, also if it no longer selects what waits.
func TestSelection(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		r := newReceiver(t, status(http.StatusServiceUnavailable))
		endpoint := e.endpoint("shop", r.URL)
		endpoint.Gateways, endpoint.Statuses, endpoint.Prefix = []payment.Gateway{payment.Paydia}, []payment.Status{payment.Paid, payment.Expired}, "INV-"
		d, stop := e.start(slices.Repeat(Schedule{10 * time.Millisecond}, 40), endpoint)
		e.publish(d, "INV-1", 1, payment.OnProcessing)
		e.publish(d, "INV-1", 2, payment.Paid)
		e.publish(d, "ORD-1", 1, payment.Paid)
		e.publish(d, "INV-2", 1, payment.Expired)
		eventually(t, func() bool { return e.counts.get("shop failed") >= 4 })
		for _, request := range r.all() {
			if id := request.event.ID; id != "paydia:INV-1:2:paid" && id != "paydia:INV-2:1:expired" {
				t.Errorf("not selected: %s", id)
			}
		}
		stop()
		endpoint.Statuses = []payment.Status{payment.Expired}
		r.setAnswer(status(http.StatusOK))
		e.start(fast, endpoint)
		eventually(t, func() bool { return e.counts.get("shop skipped") == 1 && e.counts.get("shop delivered") == 1 })
		if all := e.pending("shop"); len(all) != 0 {
			t.Errorf("pending: %+v", all)
		}
	})
}

// TestGone: 410 disables the endpoint. Its events wait until it is enabled.
func TestGone(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		r := newReceiver(t, status(http.StatusGone))
		d, _ := e.start(fast, e.endpoint("shop", r.URL))
		e.publish(d, "A", 1, payment.Paid)
		eventually(t, func() bool { return e.state("shop").DisabledAt != nil })
		if state := e.state("shop"); !strings.Contains(state.Reason, "410") || d.Hold(e.streams[0]) != nil {
			t.Errorf("%+v, holds %v", state, d.Hold(e.streams[0]))
		}
		e.publish(d, "B", 1, payment.Paid)
		e.awaitCheck(d)
		requests := len(r.all())
		e.awaitCheck(d)
		if n := len(r.all()); n != requests || e.counts.disabled["shop"] != true {
			t.Errorf("%d requests after the endpoint was disabled", n-requests)
		}
		r.setAnswer(status(http.StatusOK))
		if err := e.admin().Enable(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return e.counts.get("shop delivered") == 2 })
	})
}

// awaitCheck waits until the Deliverer has looked for work again.
func (e *env) awaitCheck(d *Deliverer) {
	e.Helper()
	if err := d.check(e.Context()); err != nil {
		e.Fatal(err)
	}
}

// TestFailingForDays: an endpoint that has failed for five days is disabled with the next
// failure, and not before.
func TestFailingForDays(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		r := newReceiver(t, status(http.StatusInternalServerError))
		d, _ := e.start(slices.Repeat(Schedule{10 * time.Millisecond}, 49), e.endpoint("shop", r.URL))
		e.publish(d, "A", 1, payment.Paid)
		eventually(t, func() bool { d.Wake(); return e.counts.get("shop failed") >= 3 })
		if state := e.state("shop"); state.FailingSince == nil || state.DisabledAt != nil {
			t.Fatalf("%+v", state)
		}
		setFailing := func(since time.Duration) {
			at := time.Now().Add(-since).UnixMilli()
			if err := client.HSet(t.Context(), healthKey(e.streams), "shop", fmt.Sprintf("%d 0 -", at)).Err(); err != nil {
				t.Fatal(err)
			}
		}
		setFailing(disableAfter - time.Hour)
		tries := len(r.all())
		eventually(t, func() bool { d.Wake(); return len(r.all()) >= tries+3 })
		if state := e.state("shop"); state.DisabledAt != nil {
			t.Fatalf("too early: %+v", state)
		}
		setFailing(disableAfter + time.Second)
		eventually(t, func() bool { d.Wake(); return e.state("shop").DisabledAt != nil })
		// A success in between begins a new count.
		if err := e.admin().Enable(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
		r.setAnswer(status(http.StatusOK))
		eventually(t, func() bool { return e.counts.get("shop delivered") == 1 })
		eventually(t, func() bool { state := e.state("shop"); return state.FailingSince == nil && state.DisabledAt == nil })
	})
}

// TestRedisDataLost: after Redis has lost all its data, later events are delivered.
func TestRedisDataLost(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		r := newReceiver(t, status(http.StatusOK))
		d, _ := e.start(fast, e.endpoint("shop", r.URL))
		e.publish(d, "A", 1, payment.Paid)
		r.await(t, 1)
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		e.publish(d, "B", 1, payment.Paid)
		if all := r.await(t, 2); all[1].event.Subject != "B" {
			t.Errorf("%+v", all)
		}
		eventually(t, func() bool { // operators see the endpoint again
			all, err := e.admin().Endpoints(t.Context())
			return err == nil && len(all) == 1 && all[0].Pending == 0
		})
	})
}

// TestDeletedEvents: what somebody has deleted from the stream is dropped, and the payment's
// next event is delivered.
func TestDeletedEvents(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		r := newReceiver(t, status(http.StatusInternalServerError))
		d, stop := e.start(slices.Repeat(Schedule{10 * time.Millisecond}, 40), e.endpoint("shop", r.URL))
		e.publish(d, "A", 1, payment.OnProcessing)
		e.publish(d, "A", 2, payment.Paid)
		e.publish(d, "B", 1, payment.Paid)
		eventually(t, func() bool { return e.counts.get("shop failed") >= 2 && len(e.pending("shop")) == 3 })
		stop()
		for _, entry := range client.XRange(t.Context(), e.streams[0], "-", "+").Val() {
			if ev, _ := parseEvent(entry.Values); ev.ID != "paydia:A:2:paid" {
				client.XDel(t.Context(), e.streams[0], entry.ID)
			}
		}
		r.setAnswer(status(http.StatusOK))
		e.start(fast, e.endpoint("shop", r.URL))
		eventually(t, func() bool { return e.counts.get("shop delivered") == 1 && len(e.pending("shop")) == 0 })
		if all := r.all(); all[len(all)-1].event.ID != "paydia:A:2:paid" {
			t.Errorf("last: %s", all[len(all)-1].event.ID)
		}
	})
}

// TestShutdown: requests in flight end and are recorded.
func TestShutdown(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		release := make(chan struct{})
		r := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-release })
		d, stop := e.start(fast, e.endpoint("shop", r.URL))
		e.publish(d, "A", 1, payment.Paid)
		r.await(t, 1)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			stop()
		}()
		close(release)
		<-stopped
		if all := e.pending("shop"); len(all) != 0 || e.counts.get("shop delivered") != 1 {
			t.Errorf("pending: %+v", all)
		}
	})
}

// TestAddresses: addresses that are not public are refused when they are dialed, whatever name
// they had, and so is a public address without TLS.
func TestAddresses(t *testing.T) {
	r := newReceiver(t, status(http.StatusOK))
	_, port, _ := strings.Cut(strings.TrimPrefix(r.URL, "http://"), ":")
	paid, _ := parseEvent(map[string]any{"event": `{"id":"paydia:A:1:paid","source":"terbayar/paydia","type":"terbayar.payment.paid","subject":"A"}`})
	for _, row := range []struct {
		address, allow string
		refused        bool
	}{
		{"http://127.0.0.1:" + port, "", true},
		{"http://localhost:" + port, "", true},
		{"http://localhost:" + port, "127.0.0.0/8,::1", false},
		{"http://127.0.0.1:" + port, "127.0.0.1", false},
		{"http://127.0.0.1:" + port, "10.0.0.0/8", true},
		{"https://127.0.0.1:" + port, "", true},
		{"https://[::1]:" + port, "", true},
		{"https://[::ffff:127.0.0.1]:" + port, "", true},
		{"https://[64:ff9b::7f00:1]", "", true},
		{"https://10.0.0.1", "", true},
		{"https://172.16.0.1", "", true},
		{"https://192.168.0.1", "", true},
		{"https://100.64.0.1", "", true},
		{"https://169.254.169.254/latest/meta-data", "", true},
		{"https://[fe80::1]", "", true},
		{"https://[fd00::1]", "", true},
		{"https://0.0.0.0:" + port, "", true},
		{"https://0:" + port, "", true},
		{"http://93.184.215.14", "", true}, // public, but without TLS
	} {
		t.Run(row.address+" "+row.allow, func(t *testing.T) {
			prefixes, err := ParseAllow(row.allow)
			if err != nil {
				t.Fatal(err)
			}
			e := newEnv(t, nil)
			d := New(Options{Allow: prefixes, Now: time.Now})
			a := d.send(t.Context(), e.endpoint("x", row.address), paid)
			if refused := a.result == "net:not-allowed" || a.result == "net:dns"; refused != row.refused {
				t.Errorf("%+v", a)
			}
		})
	}
}

// TestProxiesAreNotUsed: a proxy would hide the address that is dialed.
func TestProxiesAreNotUsed(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	transport := newClient(nil).Transport.(*http.Transport)
	if transport.Proxy != nil {
		t.Error("the client uses proxies")
	}
}

// TestIdle: a worker without work sends few commands to Redis.
func TestIdle(t *testing.T) {
	client := redistest.Server(t).Client(t)
	e := newEnv(t, client)
	r := newReceiver(t, status(http.StatusOK))
	d := New(Options{Redis: client, Streams: e.streams, Endpoints: []*Endpoint{e.endpoint("shop", r.URL), e.endpoint("other", r.URL)}, Schedule: fast, Now: time.Now, Metrics: e.counts})
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.check(t.Context()); err != nil { // it opens connections
		t.Fatal(err)
	}
	hook := &counter{}
	client.AddHook(hook)
	if err := d.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if hook.commands != 2 || hook.trips != 1 {
		t.Errorf("a check has %d commands in %d round trips, want 2 in 1", hook.commands, hook.trips)
	}
}

type counter struct{ commands, trips int }

func (c *counter) DialHook(next redis.DialHook) redis.DialHook { return next }
func (c *counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.commands, c.trips = c.commands+1, c.trips+1
		return next(ctx, cmd)
	}
}

func (c *counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.commands, c.trips = c.commands+len(cmds), c.trips+1
		return next(ctx, cmds)
	}
}
