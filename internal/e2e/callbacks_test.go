package e2e_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
)

const callbackSecret = "e2e-callback-secret-0123456789"

// TestCallbacks: payments end by callbacks alone, long before the first poll, although callbacks are
// also forged, duplicated, reordered and mixed with tests.
func TestCallbacks(t *testing.T) {
	slow(t)
	var target atomic.Pointer[url.URL] // of enqueue serve
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httputil.NewSingleHostReverseProxy(target.Load()).ServeHTTP(w, r)
	}))
	defer proxy.Close()
	e := newEnv(t, func(c *gatewaysim.Config) {
		c.Callbacks = gatewaysim.CallbackConfig{
			AM: proxy.URL + "/callbacks/amdigipay/" + callbackSecret, Paydia: proxy.URL + "/callbacks/paydia/" + callbackSecret,
			Form: true, Faults: gatewaysim.CallbackFaults(),
		}
	})
	e.Settings["STATUS_POLL_INTERVAL"] = "10m"
	api := e.Start("enqueue", []string{"serve"}, "SERVE_HTTP_ADDR=127.0.0.1:0", "CALLBACK_SECRET="+callbackSecret,
		"SERVE_TRUSTED_PROXIES=127.0.0.1", "SERVE_SHUTDOWN_DELAY=0s")
	e.Eventually("enqueue serve listens", func() bool { return api.URL() != "" })
	address, err := url.Parse(api.URL())
	if err != nil {
		t.Fatal(err)
	}
	target.Store(address)
	w := e.Worker()

	e.create(samples(60, "PAY", "LATE", "CANCEL", "FAIL", "NEVER"), "enqueued")
	var ends []string
	for _, p := range e.finish() {
		if ends = append(ends, string(p.Status)); p.Gateway == payment.AMDigiPay && p.Status == payment.Paid && p.GatewayStatus != "Terbayar" {
			t.Errorf("%s: %s", p.Key(), p.GatewayStatus)
		}
		for _, a := range p.Attempts {
			if a.Kind == payment.KindLookup && a.Action != "accept" {
				t.Errorf("%s: a callback has used up an attempt: %+v", p.Key(), a)
			}
		}
	}
	for _, want := range []payment.Status{payment.Paid, payment.Cancelled, payment.Failed, payment.OnProcessing} {
		if !slices.Contains(ends, string(want)) {
			t.Errorf("no payment is %s: %v", want, ends)
		}
	}
	e.Eventually("all callbacks are answered", func() bool { return len(e.Sim.Callbacks()) >= 60 })
	for _, c := range e.Sim.Callbacks() {
		if want := map[gatewaysim.Gateway]string{gatewaysim.AM: "200 1", gatewaysim.Paydia: `200 {"responseCode":"2005600","responseMessage":"Successful"}`}[c.Gateway]; c.Answer != want {
			t.Errorf("%+v", c)
		}
	}
	status, metrics := e.page("GET", api.URL()+"/metrics")
	for _, outcome := range []string{"now", "later", "already", "test"} {
		if line := `terbayar_callbacks_total{gateway="amdigipay",outcome="` + outcome + `"} `; status != 200 || !strings.Contains(metrics, line) || strings.Contains(metrics, line+"0\n") {
			t.Errorf("%d: no callback was answered with the outcome %q", status, outcome)
		}
	}
	for _, program := range []string{api.Stderr.String(), w.Stderr.String(), metrics} {
		if strings.Contains(program, callbackSecret) {
			t.Error("a log or the metrics have the secret of the callbacks")
		}
	}
	e.noSecrets()
	w.Stop()
}
