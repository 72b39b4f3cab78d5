package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// TestCancel: a queued payment is cancelled, once and again; any other is 409 with the payment.
func TestCancel(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		e.Create(testenv.AMOrder("INV-1"), testenv.AMOrder("INV-2"), testenv.AMOrder("INV-3"), testenv.PaydiaOrder("ORD/1"))
		const path = "/v1/payments/amdigipay/INV-1"
		a := e.do("DELETE", path, "")
		got := a.json(t)
		if a.StatusCode != 200 || got["status"] != "cancelled" || got["reason"] != ledger.ReasonCancelled {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
		if diff := cmp.Diff(got, e.do("GET", path, "").json(t)); diff != "" {
			t.Errorf("DELETE -, GET +\n%s", diff)
		}
		if again := e.do("DELETE", path, ""); again.StatusCode != 200 || again.body != a.body {
			t.Errorf("again: %d %s", again.StatusCode, again.body)
		}
		if a := e.do("POST", "/v1/payments", am("INV-1")); a.StatusCode != 200 || !strings.Contains(a.body, `"result":"duplicate","status":"cancelled"`) {
			t.Errorf("submitted again: %d %s", a.StatusCode, a.body)
		}
		for _, path := range []string{"/v1/payments/paydia/ORD%2F1", "/v1/payments?gateway=paydia&id=ORD%2F1"} {
			if a := e.do("DELETE", path, ""); a.StatusCode != 200 || a.json(t)["transaction_id"] != "ORD/1" {
				t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
			}
		}
		// Its task ends without an attempt, and without a request.
		if next := e.Submit(payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"}); next.In != 0 || len(e.Attempts) != 0 || len(e.Sim.Rows()) != 0 {
			t.Errorf("%+v %v", next, e.Attempts)
		}
		events := e.do("GET", "/v1/events", "")
		if n := strings.Count(events.body, `"type":"terbayar.payment.cancelled"`); n != 2 {
			t.Errorf("%d events: %s", n, events.body)
		}

		claimed := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-2"}
		if _, result, err := e.Ledger.Claim(t.Context(), claimed, ledger.Claim{
			Attempt: payment.Attempt{At: e.Now(), Kind: payment.KindSubmit}, Lease: time.Minute, Timeout: time.Second,
		}); err != nil || result != ledger.Claimed {
			t.Fatal(result, err)
		}
		e.Submit(payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-3"})
		for id, status := range map[string]string{"INV-2": "submitting", "INV-3": "on_processing"} {
			a := e.do("DELETE", "/v1/payments/amdigipay/"+id, "")
			object, _ := a.json(t)["payment"].(map[string]any)
			if a.StatusCode != 409 || a.json(t)["payment_status"] != status || !strings.Contains(a.body, "it cannot be cancelled: ") {
				t.Errorf("%s: %d %s", id, a.StatusCode, a.body)
			}
			if diff := cmp.Diff(object, e.do("GET", "/v1/payments/amdigipay/"+id, "").json(t)); diff != "" {
				t.Errorf("%s: 409 -, GET +\n%s", id, diff)
			}
		}
		for path, status := range map[string]int{
			"/v1/payments/amdigipay/X": 404, "/v1/payments/x/INV-1": 404, "/v1/payments/amdigipay/INV-1?force=1": 400,
			"/v1/payments": 400, "/v1/payments?gateway=paydia": 400, "/v1/payments/batch": 405,
		} {
			if a := e.do("DELETE", path, ""); a.StatusCode != status {
				t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
			}
		}
	})
}

// TestCancelRedisDown: while Redis is down a cancel is 503, and again 200 when it is back.
func TestCancelRedisDown(t *testing.T) {
	if testing.Short() {
		t.Skip("the ledger tries for 6 s")
	}
	server := redistest.Server(t)
	e := newEnv(t, server.Client(t))
	if a := e.do("POST", "/v1/payments", am("INV-1")); a.StatusCode != 202 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	server.Kill()
	if a := e.do("DELETE", "/v1/payments/amdigipay/INV-1", ""); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || strings.Contains(a.body, "127.0.0.1") || !strings.Contains(a.body, "Send the same request again") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	server.Start(t)
	if a := e.do("DELETE", "/v1/payments/amdigipay/INV-1", ""); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}
