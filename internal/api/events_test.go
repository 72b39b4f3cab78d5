package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"github.com/tmaxmax/go-sse"

	"terbayar/internal/api"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// happen submits payments, so that each has an event.
func (e *env) happen(ids ...string) {
	e.t.Helper()
	for _, id := range ids {
		e.Create(testenv.AMOrder(id))
		e.Submit(payment.Key{Gateway: payment.AMDigiPay, TransactionID: id})
	}
}

// list returns the subjects of an answer of /v1/events, and next.
func (e *env) list(query string) (subjects []string, next string) {
	e.t.Helper()
	a := e.do("GET", "/v1/events?"+query, "")
	var list struct {
		Events []struct{ Subject string }
		Next   string
	}
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.StatusCode != 200 {
		e.t.Fatal(a.StatusCode, a.body, err)
	}
	for _, event := range list.Events {
		subjects = append(subjects, event.Subject)
	}
	return subjects, url.QueryEscape(list.Next)
}

// TestEvents: events in pages, with wait, and within a scope, of one partition and of two.
func TestEvents(t *testing.T) {
	for _, partitions := range []int{1, 2} {
		redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
			var scoped string
			e := newEnv(t, client, usePartitions(partitions), func(e *env) {
				var keys []api.Key
				e.key = e.addKey(&keys, "all", api.Scope{}, "")
				scoped = e.addKey(&keys, "b", api.Scope{Prefix: "B-"}, "")
				e.keys = api.NewKeys(keys)
			})
			got, start := e.list("")
			if len(got) > 0 || start == "" {
				t.Fatal(got, start)
			}
			var want []string
			for i := range 12 {
				want = append(want, fmt.Sprintf("%c-%d", 'A'+i%2, i))
				e.happen(want[i])
			}
			for limit := 1; limit < 14; limit += 4 {
				all, at := []string(nil), start
				for {
					got, next := e.list(fmt.Sprintf("limit=%d&after=%s", limit, at))
					if len(got) == 0 {
						break
					}
					all, at = append(all, got...), next
				}
				if len(all) != len(want) {
					t.Errorf("limit %d: %v", limit, all)
				}
			}
			_, end := e.list("limit=1000")
			if got, next := e.list("wait=50ms&after=" + end); len(got) > 0 || next != end {
				t.Errorf("at the end: %v, %s, want %s", got, next, end)
			}
			waiting := make(chan []string)
			go func() {
				got, _ := e.list("wait=30s&after=" + end)
				waiting <- got
			}()
			e.happen("B-new")
			if got := <-waiting; len(got) != 1 || got[0] != "B-new" {
				t.Errorf("waited for %v", got)
			}
			e.key = scoped
			if got, _ := e.list(""); len(got) != 7 || strings.Contains(fmt.Sprint(got), "A-") {
				t.Errorf("in scope: %v", got)
			}
		})
	}
}

// stream returns the server-sent events after an id.
func (e *env) stream(lastID string) (next func() (id, subject string), stop func()) {
	e.t.Helper()
	r, err := http.NewRequestWithContext(e.t.Context(), "GET", "http://"+e.addr+"/v1/events", nil)
	if err != nil {
		e.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+e.key)
	r.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	res, err := e.client.Do(r) //nolint:bodyclose // the context of the test closes it
	if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		e.t.Fatal(res, err)
	}
	received := make(chan sse.Event)
	go func() {
		defer close(received)
		for event, err := range sse.Read(res.Body, nil) {
			if err != nil {
				return
			}
			select {
			case received <- event:
			case <-e.t.Context().Done():
				return
			}
		}
	}()
	return func() (id, subject string) {
		e.t.Helper()
		select {
		case event, ok := <-received:
			if !ok {
				return "", "end"
			}
			var cloud struct{ Subject string }
			if err := json.Unmarshal([]byte(event.Data), &cloud); err != nil {
				e.t.Fatal(err)
			}
			return event.LastEventID, cloud.Subject
		case <-time.After(20 * time.Second):
			e.t.Fatal("no event")
			return "", ""
		}
	}, func() { res.Body.Close() }
}

// TestStream: a stream that breaks after any event continues there by Last-Event-ID: no event is
// missing or repeated. Streams end at shutdown.
func TestStream(t *testing.T) {
	for _, partitions := range []int{1, 2} {
		redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
			e := newEnv(t, client, usePartitions(partitions))
			var want []string
			for i := range 10 {
				want = append(want, fmt.Sprint("INV-", i))
			}
			e.happen(want[:6]...)
			var got []string
			lastID := ""
			for range 3 {
				next, stop := e.stream(lastID)
				for range 2 {
					id, subject := next()
					lastID, got = id, append(got, subject)
				}
				stop()
			}
			next, stop := e.stream(lastID)
			defer stop()
			for _, id := range want[6:] {
				e.happen(id)
				_, subject := next()
				got = append(got, subject)
			}
			sortable := map[string]bool{}
			for _, s := range got {
				sortable[s] = true
			}
			if len(got) != len(want) || len(sortable) != len(want) {
				t.Error(cmp.Diff(want, got))
			}
			e.stop()
			if _, subject := next(); subject != "end" {
				t.Errorf("after the shutdown: %s", subject)
			}
		})
	}
}

// TestStreamOfRevokedKey: a stream ends when its key is revoked.
func TestStreamOfRevokedKey(t *testing.T) {
	e := newEnv(t, redistest.Mini(t))
	next, stop := e.stream("")
	defer stop()
	e.happen("INV-1")
	if _, subject := next(); subject != "INV-1" {
		t.Fatal(subject)
	}
	e.keys.Set(nil)
	e.happen("INV-2")
	if _, subject := next(); subject != "end" {
		t.Errorf("after the key was revoked: %s", subject)
	}
}
