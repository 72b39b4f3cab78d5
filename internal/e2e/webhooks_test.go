package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"terbayar/internal/testenv/verify"
)

// webhookReceiver is what an order system has: it verifies the signature, and fails sometimes.
type webhookReceiver struct {
	*httptest.Server
	mu        sync.Mutex
	delivered map[string]string   // webhook-id to the event, of requests that were answered 204
	order     map[string][]string // payment to the types that were answered 204, without repetitions
	failed    int
	hanging   chan struct{} // closed: no request hangs any more
}

// webhookSecret is base64 of 32 bytes.
var webhookSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))

// newWebhookReceiver starts a receiver that fails every fourth request and makes some hang, and
// sets WEBHOOK_URL to it.
func (e *env) newWebhookReceiver() *webhookReceiver {
	e.Helper()
	r := &webhookReceiver{delivered: map[string]string{}, order: map[string][]string{}, hanging: make(chan struct{})}
	verifier, err := standardwebhooks.NewWebhook(webhookSecret)
	if err != nil {
		e.Fatal(err)
	}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // the worker was killed
		}
		if err := verifier.Verify(body, req.Header); err != nil {
			e.Errorf("signature: %v", err)
		}
		switch rand.IntN(8) {
		case 0, 1:
			r.mu.Lock()
			r.failed++
			r.mu.Unlock()
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case 2:
			select {
			case <-r.hanging:
			case <-req.Context().Done():
				return
			case <-time.After(time.Second):
			}
		}
		var event verify.Event
		if err := json.Unmarshal(body, &event); err != nil {
			e.Errorf("%s: %v", body, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		id := req.Header.Get("webhook-id")
		if before, again := r.delivered[id]; again && before != string(body) {
			e.Errorf("%s was %s, and is %s", id, before, body)
		}
		r.delivered[id] = string(body)
		if key := event.Source + "/" + event.Subject; !slices.Contains(r.order[key], event.ID) {
			r.order[key] = append(r.order[key], event.ID)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	e.t.Cleanup(r.Close)
	maps.Copy(e.Settings, map[string]string{
		"WEBHOOK_URL": r.URL + "/hook", "WEBHOOK_SECRET": webhookSecret, "WEBHOOK_ALLOW": "127.0.0.0/8", "WEBHOOK_SCHEDULE": strings.Repeat("100ms,", 40) + "1s",
	})
	return r
}

func (r *webhookReceiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.delivered)
}

// TestWebhooks: workers are killed and Redis is restarted while the receiver fails and hangs.
// Every event of the stream arrives, each payment's in order.
func TestWebhooks(t *testing.T) {
	slow(t)
	e := newEnv(t)
	r := e.newWebhookReceiver()
	victim := e.Worker()
	e.Worker()
	const n = 60
	all := orReview(samples(n, "PAY")) // a kill between claim and request leaves an unknown outcome
	for i := 0; i < n; i += n / 4 {
		e.create(all[i:i+n/4], "enqueued")
		e.Eventually("some events were delivered", func() bool { return r.count() >= i/2+1 })
		victim.Kill()
		victim = e.Worker()
		if i == n/2 {
			e.server.Kill()
			e.server.Start(t)
		}
	}
	e.finish()
	close(r.hanging)
	stream := e.Stream()
	e.Eventually("all events were delivered", func() bool { return r.count() >= len(stream) })
	r.mu.Lock()
	defer r.mu.Unlock()
	want := map[string][]string{}
	for _, event := range stream {
		key := event.Source + "/" + event.Subject
		want[key] = append(want[key], event.ID)
	}
	for key, ids := range want {
		if !slices.Equal(ids, r.order[key]) {
			t.Errorf("%s: the stream has %v, the receiver got %v", key, ids, r.order[key])
		}
	}
	if len(r.delivered) != len(stream) || r.failed == 0 {
		t.Errorf("%d events delivered, %d in the stream, %d requests failed", len(r.delivered), len(stream), r.failed)
	}
	list := e.enqueue("", "webhooks", "list", "--json")
	if list.Code != 0 || list.Stdout != "" {
		t.Errorf("enqueue webhooks list: %+v", list)
	}
}

// TestWebhookSettings: a wrong setting ends the worker with exit code 2 and names the variable.
func TestWebhookSettings(t *testing.T) {
	slow(t)
	e := newEnv(t)
	good := []string{"WEBHOOK_URL=https://shop.example/", "WEBHOOK_SECRET=" + webhookSecret}
	for _, row := range []struct{ edit, want string }{
		{"WEBHOOK_URL=shop.example", "WEBHOOK_URL: must be a URL"},
		{"WEBHOOK_URL=https://user:hunter2@shop.example/", "WEBHOOK_URL: must not have a user"},
		{"WEBHOOK_SECRET=", "WEBHOOK_SECRET: missing, although WEBHOOK_URL is set"},
		{"WEBHOOK_SECRET=hunter2", "WEBHOOK_SECRET: secret 1 of 1 does not begin with whsec_"},
		{"WEBHOOK_SECRET=WEBHOOK_SECRET=" + webhookSecret, "WEBHOOK_SECRET: secret 1 of 1 does not begin with whsec_"},
		{"WEBHOOK_ALLOW=localhost", "WEBHOOK_ALLOW: \"localhost\" is neither an address nor a CIDR"},
		{"WEBHOOK_SCHEDULE=5s,never", "WEBHOOK_SCHEDULE: \"never\" is not a duration"},
		{"WEBHOOKS_FILE=/no/such/file", "WEBHOOK_URL: and WEBHOOKS_FILE are both set"},
	} {
		r := e.Run("worker", nil, "", append(slices.Clone(good), row.edit)...)
		if r.Code != 2 || !strings.Contains(r.Stderr, row.want) || strings.Count(r.Stderr, "\n") != 1 || strings.Contains(r.Stderr, "hunter2") {
			t.Errorf("%s: exit code %d, %s", row.edit, r.Code, r.Stderr)
		}
	}
	r := e.Run("worker", nil, "", "WEBHOOKS_FILE="+e.File("webhooks.yaml", "endpoints:\n  - name: Shop\n"))
	if r.Code != 2 || !strings.Contains(r.Stderr, "WEBHOOKS_FILE: ") || !strings.Contains(r.Stderr, "webhooks.yaml:2: endpoints[0].name: must be") {
		t.Errorf("exit code %d, %s", r.Code, r.Stderr)
	}
}
