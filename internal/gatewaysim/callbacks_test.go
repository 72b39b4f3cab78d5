package gatewaysim

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestCallbacks: each gateway sends what docs/gateways.md 1.9 and 2.9 say, once for each change of
// state, with the faults that are switched on.
func TestCallbacks(t *testing.T) {
	t.Parallel()
	for _, form := range []bool{false, true} {
		t.Run(fmt.Sprint("form=", form), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var got []string
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mu.Lock()
				defer mu.Unlock()
				got = append(got, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+string(body))
				if r.URL.Path == "/paydia" && (len(r.Header.Get("X-Timestamp")) != 25 || r.Header.Get("X-Signature") == "" || r.Header.Get("Authorization") != "") {
					t.Errorf("%v", r.Header)
				}
				fmt.Fprint(w, "1")
			}))
			defer receiver.Close()
			now := time.Date(2036, 5, 21, 3, 0, 0, 0, time.UTC)
			clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
			config := DefaultConfig()
			config.Customers = []CustomerRule{{Customer: Customer{Behaviour: PaysLate, After: time.Hour}}}
			config.Callbacks = CallbackConfig{AM: receiver.URL + "/am", Paydia: receiver.URL + "/paydia", Form: form, Faults: CallbackFaults()}
			s, err := NewServer(config, ServerOptions{Now: clock})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.mu.Lock()
			s.insertAM(&amRow{lifecycle: lifecycle{customer: config.Customers[0].Customer, created: now, visible: now, expires: now}, method: methodQRIS, reference: "INV-1", amount: 13_000})
			row := &paydiaRow{lifecycle: lifecycle{customer: config.Customers[0].Customer, created: now, visible: now}, reference: "ORD-1", referenceNo: "77"}
			s.paydia.rows, s.paydia.byReference["ORD-1"] = append(s.paydia.rows, row), row
			s.mu.Unlock()
			await := func(n int) {
				t.Helper()
				for deadline := time.Now().Add(time.Minute); len(s.Callbacks()) < n; time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("%+v", s.Callbacks())
					}
				}
			}
			await(2) // forged
			mu.Lock()
			now = now.Add(time.Hour)
			mu.Unlock()
			await(2 + 4 + 3)
			signature, wrong := sha256Signature("SIMULATED1", "INV-1"), sha256Signature("forger", "INV-1")
			am := func(id string, status int, total, signature string) string {
				if form {
					return fmt.Sprintf("POST /am application/x-www-form-urlencoded payment=QRIS&signature=%s&status_id=%d&transaction_id=%s&transaction_total=%s", signature, status, id, total)
				}
				return fmt.Sprintf(`POST /am application/json {"transaction_id":%q,"status_id":%d,"transaction_total":%q,"signature":%q,"payment":"QRIS"}`, id, status, total, signature)
			}
			paydia := func(status string) string {
				return `POST /paydia application/json {"originalPartnerReferenceNo":"ORD-1","originalReferenceNo":"77","originalExternalId":"1","merchantId":"240327001000000","latestTransactionStatus":"` + status + `"}`
			}
			of := func(path string) (some []string) {
				mu.Lock()
				defer mu.Unlock()
				for _, one := range got {
					if strings.HasPrefix(one, "POST "+path) {
						some = append(some, one)
					}
				}
				return some
			}
			paid := am("INV-1", 3, "13000", signature)
			if diff := cmp.Diff([]string{am("INV-1", 3, "13001", wrong), am("TEST-INV-1", 3, "10000", "testing"), paid, paid, am("INV-1", 2, "13000", signature)}, of("/am")); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{paydia("00"), paydia("00"), paydia("00"), paydia("03")}, of("/paydia")); diff != "" {
				t.Error(diff)
			}
			for _, c := range s.Callbacks() {
				if c.Answer != "200 1" {
					t.Errorf("%+v", c)
				}
			}

			// By the admin endpoint, any callback.
			res, err := http.Post(s.URL+"/admin/callbacks", "application/json", strings.NewReader(`{"gateway":"paydia","reference":"ORD-1","status":"06"}`))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			await(10)
			if all := of("/paydia"); res.StatusCode != http.StatusNoContent || all[len(all)-1] != paydia("06") {
				t.Errorf("%s %v", res.Status, all)
			}
		})
	}
}

func TestCallbackConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []CallbackConfig{{AM: "secret"}, {Paydia: "http://"}, {Faults: []CallbackFault{"twice"}}} {
		if err := c.Check(); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
