package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/callbacks"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

const (
	callbackSecret = "0123456789abcdef0123456789abcdef"
	oldSecret      = "an-earlier-one_0123456789"
	amPath         = "/callbacks/amdigipay/" + callbackSecret
	paydiaPath     = "/callbacks/paydia/" + callbackSecret
	amJSON         = `{"transaction_id":%q,"status_id":3,"transaction_total":"13000","signature":"00","payment":"Nyonya Rahasia"}`
	paydiaJSON     = `{"originalPartnerReferenceNo":%q,"originalReferenceNo":"1","merchantId":"Nyonya Rahasia","latestTransactionStatus":"00"}`
	paydiaOK       = `{"responseCode":"2005600","responseMessage":"Successful"}`
)

// outcomes are the outcomes of callbacks so far.
type outcomes struct {
	mu  sync.Mutex
	all []string
}

func (o *outcomes) take() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.all
	o.all = nil
	return all
}

// useCallbacks switches callbacks on.
func useCallbacks(got *outcomes, edits ...func(*callbacks.Options)) func(*env) {
	return func(e *env) {
		o := callbacks.Options{
			Secrets: []string{callbackSecret, oldSecret}, Ask: e.Ledger.Ask, RedisIsUp: func() bool { return e.state.State().Up },
			OnOutcome: func(g payment.Gateway, outcome callbacks.Outcome) {
				got.mu.Lock()
				defer got.mu.Unlock()
				got.all = append(got.all, string(g)+" "+string(outcome))
			},
			Now: e.Now, Log: slog.New(slog.NewTextHandler(e.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		}
		for _, edit := range edits {
			edit(&o)
		}
		e.options.Callbacks = callbacks.New(o)
	}
}

// callback sends a callback and compares the answer.
func (e *env) callback(path, body string, status int, want string, headers ...string) answer {
	e.t.Helper()
	a := e.do("POST", path, body, headers...)
	if a.StatusCode != status || a.body != want {
		e.t.Errorf("%s %s: %d %s, want %d %s", path, body, a.StatusCode, a.body, status, want)
	}
	return a
}

// TestCallbacks: what each callback is answered, and what is done.
func TestCallbacks(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		var got outcomes
		e := newEnv(t, client, useCallbacks(&got))
		e.key = ""
		inv, ord := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV/1 é"}, payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-1"}
		e.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultPending, Operation: gatewaysim.PaydiaPayment, Count: 1})
		e.Create([]byte(am(inv.TransactionID)), []byte(paydia(ord.TransactionID)))
		amBody, paydiaBody := fmt.Sprintf(amJSON, inv.TransactionID), fmt.Sprintf(paydiaJSON, ord.TransactionID)

		e.callback(amPath, amBody, 200, "1") // queued: nothing to look up
		e.callback(paydiaPath, paydiaBody, 200, paydiaOK)
		if diff := cmp.Diff([]string{"amdigipay not open", "paydia not open"}, got.take()); diff != "" {
			t.Error(diff)
		}
		e.Submit(inv)
		e.Submit(ord)
		before := e.Read(inv)
		e.callback(amPath, amBody, 200, "1")
		e.callback(amPath, "transaction_id=INV%2F1+%C3%A9&status_id=14&transaction_total=1", 200, "1", "Content-Type", "application/x-www-form-urlencoded")
		a := e.callback(paydiaPath, paydiaBody, 200, paydiaOK)
		if a.Header.Get("Content-Type") != "application/json" || len(a.Header.Get("X-Timestamp")) != 25 {
			t.Errorf("%v", a.Header)
		}
		e.callback("/callbacks/paydia/"+oldSecret, paydiaBody, 200, paydiaOK)
		if diff := cmp.Diff([]string{"amdigipay now", "amdigipay already", "paydia now", "paydia already"}, got.take()); diff != "" {
			t.Error(diff)
		}
		if after := e.Read(inv); after.Status != before.Status || !after.NextAt.Equal(before.NextAt) || len(after.Attempts) != len(before.Attempts) {
			t.Errorf("a callback has changed a payment: %+v, %+v", before.Payment, after.Payment)
		}
		if _, asked, err := e.Ledger.Due(t.Context(), payment.Gateways()); err != nil || len(asked) != 2 {
			t.Errorf("asked: %v, %v", asked, err)
		}
		// AM says that it is still open, whatever the callbacks said.
		if err := e.Poller.LookUpAsked(t.Context(), payment.AMDigiPay); err != nil || e.Read(inv).Status != payment.OnProcessing {
			t.Errorf("%v: %s", err, e.Read(inv).Status)
		}

		e.callback(amPath, fmt.Sprintf(amJSON, "UNKNOWN"), 200, "1")
		e.callback(amPath, `{"transaction_id":"TEST-77","signature":"testing"}`, 200, "1")
		e.callback(amPath, "", 200, "1")
		e.callback(amPath, `{"reff_id":"D-1","status_id":3}`, 200, "1")
		e.callback(amPath, `{"status_id":3}`, 400, "0")
		e.callback(amPath, strings.Repeat("x", 65<<10), 400, "0")
		e.callback(paydiaPath, `{}`, 400, `{"responseCode":"4005600","responseMessage":"Bad Request"}`)
		if diff := cmp.Diff([]string{
			"amdigipay missing", "amdigipay test", "amdigipay test", "amdigipay other", "amdigipay malformed", "amdigipay malformed", "paydia malformed",
		}, got.take()); diff != "" {
			t.Error(diff)
		}
		if a := e.do("GET", amPath, ""); a.StatusCode != 405 || a.body != "0" || a.Header.Get("Allow") != "POST" {
			t.Errorf("GET: %d %s", a.StatusCode, a.body)
		}
		if log := e.log.String(); strings.Contains(log, "Rahasia") || strings.Contains(log, callbackSecret) || !strings.Contains(log, `transaction_id="INV/1 é" outcome=now`) {
			t.Error(log)
		}
		if text := e.do("GET", "/metrics", "").body; strings.Contains(text, callbackSecret) || !strings.Contains(text, `route="/callbacks/amdigipay/{secret}"`) {
			t.Error("the metrics have the secret, or not the route")
		}
	})
}

// TestCallbackSecret: with a wrong secret, and without callbacks, the answer is the same as for a path
// that does not exist, for every method.
func TestCallbackSecret(t *testing.T) {
	var got outcomes
	on, off := newEnv(t, redistest.Mini(t), useCallbacks(&got)), newEnv(t, redistest.Mini(t))
	raw := func(e *env, method, path string) string {
		t.Helper()
		a := e.do(method, path, "")
		a.Header.Del("Date")
		return fmt.Sprint(a.StatusCode, a.Header, a.body)
	}
	for _, method := range []string{"POST", "GET", "HEAD", "PUT", "OPTIONS"} {
		want := raw(off, method, "/nothing/at/all")
		for _, path := range []string{
			"/callbacks/amdigipay/" + callbackSecret[:31] + "0", "/callbacks/amdigipay/x", "/callbacks/other/" + callbackSecret, "/callbacks/amdigipay/",
			"/callbacks/amdigipay", "/callbacks", amPath + "x", amPath + "/", amPath + "/x", "/callbacks/amdigipay/" + callbackSecret[:31],
		} {
			if got := raw(on, method, path); got != want {
				t.Errorf("%s %s: %s, want %s", method, path, got, want)
			}
		}
		if got := raw(off, method, amPath); got != want {
			t.Errorf("off: %s %s, want %s", method, got, want)
		}
	}
	if all := got.take(); len(all) > 0 {
		t.Errorf("%v", all)
	}
}

// TestCallbackLimit: an address that sends too many is refused, and another is not.
func TestCallbackLimit(t *testing.T) {
	var got outcomes
	e := newEnv(t, redistest.Mini(t), useCallbacks(&got, func(o *callbacks.Options) {
		o.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}))
	refused := 0
	for range 300 {
		a := e.do("POST", amPath, fmt.Sprintf(amJSON, "INV-1"), "X-Forwarded-For", "198.51.100.1")
		if a.StatusCode == 200 {
			continue
		}
		if refused++; a.StatusCode != 429 || a.body != "0" || a.Header.Get("Retry-After") != "1" {
			t.Fatalf("%d %s", a.StatusCode, a.body)
		}
	}
	if refused != 100 {
		t.Errorf("%d refused", refused)
	}
	e.callback(amPath, fmt.Sprintf(amJSON, "INV-1"), 200, "1", "X-Forwarded-For", "198.51.100.2")
	e.callback(paydiaPath, fmt.Sprintf(paydiaJSON, "ORD-1"), 429, `{"responseCode":"4295600","responseMessage":"Too Many Requests"}`, "X-Forwarded-For", "198.51.100.1")
	e.Advance(time.Second)
	e.callback(paydiaPath, fmt.Sprintf(paydiaJSON, "ORD-1"), 200, paydiaOK, "X-Forwarded-For", "198.51.100.1")
}

// TestCallbackWithoutRedis: the gateway may send it again.
func TestCallbackWithoutRedis(t *testing.T) {
	var got outcomes
	failure := errors.New("redis is broken")
	e := newEnv(t, redistest.Mini(t), useCallbacks(&got, func(o *callbacks.Options) {
		o.Ask = func(context.Context, payment.Key, time.Duration) (ledger.AskResult, error) { return "", failure }
	}))
	const paydiaFailed = `{"responseCode":"5005601","responseMessage":"Internal Server Error"}`
	a := e.callback(amPath, fmt.Sprintf(amJSON, "INV-1"), 500, "0")
	if a.Header.Get("Retry-After") == "" || !strings.Contains(e.log.String(), "level=ERROR") {
		t.Errorf("%v %s", a.Header, e.log)
	}
	e.state.set(false, "connection refused")
	e.callback(paydiaPath, fmt.Sprintf(paydiaJSON, "ORD-1"), 500, paydiaFailed)
	if n := strings.Count(e.log.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors in the log: redishealth logs that Redis is down", n)
	}
	if diff := cmp.Diff([]string{"amdigipay failed", "paydia failed"}, got.take()); diff != "" {
		t.Error(diff)
	}
}

// TestCallbackSlowBody: a body that does not come ends the request, and a client that does not wait
// for the answer has its callback received all the same.
func TestCallbackSlowBody(t *testing.T) {
	received := make(chan string, 1)
	e := newEnv(t, redistest.Mini(t), useCallbacks(&outcomes{}, func(o *callbacks.Options) {
		o.Ask = func(ctx context.Context, key payment.Key, _ time.Duration) (ledger.AskResult, error) {
			time.Sleep(50 * time.Millisecond) // the connection is closed meanwhile
			received <- fmt.Sprint(key.TransactionID, ctx.Err())
			return ledger.AskedNow, nil
		}
	}))
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(amJSON, "INV-1")
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", amPath, len(body), body)
	conn.Close()
	if got := <-received; got != "INV-1<nil>" {
		t.Error(got)
	}
}
