package api_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redishealth"
	"terbayar/internal/redistest"
	"terbayar/internal/secret"
	"terbayar/internal/testenv"
)

// TestPost: the status of every kind of body, on one server. What is not accepted is not recorded,
// and no answer has a value that was sent.
func TestPost(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		order := paydia("ORD-1")
		replace := func(old, by string) string { return strings.Replace(order, old, by, 1) }
		for _, c := range []struct {
			name, body string
			headers    []string
			status     int
			want       string // part of the answer
		}{
			{"new", order, nil, 202, `{"gateway":"paydia","transaction_id":"ORD-1","result":"enqueued","status":"queued"}`},
			{"again", order, nil, 200, `"result":"duplicate","status":"queued"`},
			{"newer token", replace("eyJ.customer.ORD-1", "newer"), nil, 200, `"duplicate"`},
			{"own Idempotency-Key", order, []string{"Idempotency-Key", "ORD-1"}, 200, `"duplicate"`},
			{"own Idempotency-Key in quotes", order, []string{"Idempotency-Key", `"ORD-1"`}, 200, `"duplicate"`},
			{"other Idempotency-Key", paydia("NO-1"), []string{"Idempotency-Key", "ORD-1"}, 422, "differs from the transaction id"},
			{"two Idempotency-Keys", paydia("NO-1"), []string{"Idempotency-Key", "NO-1", "Idempotency-Key", "x"}, 422, "differs"},
			{"other content", replace("10000.00", "20000.00"), nil, 409, `"result":"conflict","payment_status":"queued"`},
			{"with a byte order mark", "\ufeff" + order, nil, 200, `"duplicate"`},
			{"over several lines", strings.ReplaceAll(order, `,"`, ",\n\""), nil, 200, `"duplicate"`},
			{"unknown field", replace(`"title"`, `"titel":"SECRET-1","title"`), nil, 422, `{"field":"payment.titel","detail":"unknown field"}`},
			{"name in another case", replace(`"title"`, `"Title"`), nil, 422, `"payment.Title"`},
			{"duplicate key", replace(`"title"`, `"title":"SECRET-1","title"`), nil, 422, `"given twice"`},
			{"duplicate gateway", replace(`"gateway"`, `"gateway":"amdigipay","gateway"`), nil, 422, `"given twice"`},
			{"duplicate key, escaped", replace(`"title"`, `"t\u0069tle":"SECRET-1","title"`), nil, 422, `"given twice"`},
			{"unknown field with token", replace(`"customer_token"`, `"customerToken"`), nil, 422, `"customerToken"`},
			{"every wrong field", replace("10000.00", "1.5"), nil, 422, `"payment.amount.value"`},
			{"late", strings.Replace(am("NO-1"), "2036", "2026", 1), nil, 422, `"payment.expired_date"`},
			{"unknown gateway", replace(`"gateway":"paydia"`, `"gateway":"SECRET-1"`), nil, 422, `"unknown gateway (want amdigipay or paydia)"`},
			{"array", "[" + order + "]", nil, 422, "must be a JSON object, not an array"},
			{"number", "1", nil, 422, "must be a JSON object"},
			{"null", "null", nil, 422, "must be a JSON object"},
			{"no body", "", nil, 400, "not one JSON value"},
			{"white space", " \n", nil, 400, "not one JSON value"},
			{"cut off", order[:len(order)-2], nil, 400, "unexpected end"},
			{"two values", order + order, nil, 400, "more than one JSON value"},
			{"not UTF-8", replace("ORD-1", "ORD-\xff"), nil, 400, "not valid UTF-8"},
			{"form", "gateway=paydia&SECRET-1", nil, 400, "broken JSON"},
			{"too large", `{"x":"` + strings.Repeat("SECRET-1", intake.MaxLine/8) + `"}`, nil, 413, "longer than"},
			{"deep", strings.Repeat("[", 100_000), nil, 400, "not one JSON value"},
			{"compressed", order, []string{"Content-Encoding", "gzip"}, 415, "must not be compressed"},
		} {
			a := e.do("POST", "/v1/payments", c.body, c.headers...)
			if a.StatusCode != c.status || !strings.Contains(a.body, c.want) {
				t.Errorf("%s: %d %s", c.name, a.StatusCode, a.body)
			}
			for _, sent := range []string{"SECRET-1", "eyJ.customer", "newer"} {
				if strings.Contains(a.body, sent) {
					t.Errorf("%s: the answer repeats %s: %s", c.name, sent, a.body)
				}
			}
			if location := a.Header.Get("Location"); (location == "/v1/payments/paydia/ORD-1") != (c.status < 300) {
				t.Errorf("%s: Location %q", c.name, location)
			}
		}
		if a := e.do("GET", "/v1/payments/paydia/NO-1", ""); a.StatusCode != 404 {
			t.Errorf("a refused payment is recorded: %d %s", a.StatusCode, a.body)
		}
		if q := e.Queue(); len(q) == 0 || q[0].TransactionID != "ORD-1" {
			t.Errorf("queue: %v", q)
		}
		if strings.Contains(e.log.String(), "SECRET-1") {
			t.Error("the log has what was sent")
		}
	})
}

// TestEveryWrongField: an answer lists all errors of a payment.
func TestEveryWrongField(t *testing.T) {
	e := newEnv(t, redistest.Mini(t))
	a := e.do("POST", "/v1/payments", `{"gateway":"paydia","x":1,"payment":{"amount":{"value":"1.5","currency":"USD"},"title":""}}`)
	errors, _ := a.json(t)["errors"].([]any)
	if a.StatusCode != 422 || len(errors) < 6 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// TestIDs: ids with slashes, spaces, dots and letters of all scripts are found at their Location
// and by query.
func TestIDs(t *testing.T) {
	e := newEnv(t, redistest.Mini(t))
	for i, id := range []string{"INV/2026/1", "INV 1", "发票-1", "é&id=2?#%2F+", ".", "..", "a//b", `a\b`, "batch", "/", "a;b"} {
		key := payment.Key{Gateway: payment.Paydia, TransactionID: id}
		order := testenv.NewOrder(key)
		order.Token = "token"
		a := e.do("POST", "/v1/payments", string(order.Line()))
		location := a.Header.Get("Location")
		if a.StatusCode != 202 {
			t.Errorf("%q: %d %s", id, a.StatusCode, a.body)
			continue
		}
		for _, path := range []string{location, "/v1/payments?gateway=paydia&id=" + url.QueryEscape(id)} {
			if a := e.do("GET", path, ""); a.StatusCode != 200 || a.json(t)["transaction_id"] != id {
				t.Errorf("%q: %s: %d %s", id, path, a.StatusCode, a.body)
			}
		}
		if i == 0 {
			if a := e.do("GET", "/v1/payments/paydia/INV%2F2026%2F1", ""); a.StatusCode != 200 {
				t.Errorf("with encoded slashes: %d %s", a.StatusCode, a.body)
			}
		}
	}
}

// TestGet: status, entity tags and wrong requests.
func TestGet(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		e.Create(testenv.AMOrder("INV-1"))
		const path = "/v1/payments/amdigipay/INV-1"
		a := e.do("GET", path, "")
		etag := a.Header.Get("ETag")
		if a.StatusCode != 200 || a.json(t)["status"] != "queued" || etag == "" || a.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("%d %s %q", a.StatusCode, a.body, etag)
		}
		for _, match := range []string{etag, `"x", ` + etag, "*", strings.TrimPrefix(etag, "W/")} {
			if a := e.do("GET", path, "", "If-None-Match", match); a.StatusCode != 304 || a.body != "" || a.Header.Get("ETag") != etag {
				t.Errorf("If-None-Match %s: %d %s", match, a.StatusCode, a.body)
			}
		}
		if a := e.do("GET", path+"?wait=100ms", "", "If-None-Match", etag); a.StatusCode != 304 {
			t.Errorf("wait without a change: %d %s", a.StatusCode, a.body)
		}
		if a := e.do("GET", path+"?wait=100ms", ""); a.StatusCode != 200 {
			t.Errorf("wait without a change and tag: %d %s", a.StatusCode, a.body)
		}
		e.Submit(payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"})
		if a := e.do("GET", path+"?wait=30s", "", "If-None-Match", etag); a.StatusCode != 200 || a.json(t)["status"] != "on_processing" || a.Header.Get("ETag") == etag {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
		if a := e.do("HEAD", path, ""); a.StatusCode != 200 || a.body != "" {
			t.Errorf("HEAD: %d", a.StatusCode)
		}
		for path, status := range map[string]int{
			"/v1/payments/amdigipay/INV-2":                      404,
			"/v1/payments/paydia/INV-1":                         404,
			"/v1/payments/other/INV-1":                          404,
			"/v1/payments?gateway=other&id=INV-1":               404,
			"/v1/payments?id=INV-1":                             400,
			path + "?wait=x":                                    400,
			path + "?wait=61s":                                  400,
			path + "?wait=-1s":                                  400,
			path + "?wiat=1s":                                   400,
			path + "?wait=1s&wait=2s":                           400,
			"/v1/payments?gateway=amdigipay&id=INV-1;wait=1s":   400,
			"/v1/payments/amdigipay/INV-1/x":                    404,
			"/v2/payments":                                      404,
			"/":                                                 404,
			"/v1/events?after=x":                                400,
			"/v1/events?limit=0":                                400,
			"/v1/events?limit=1001":                             400,
			"/v1/events?limit=x":                                400,
			"/v1/events?follow=1":                               400,
			"/v1/payments?gateway=amdigipay&id=INV-1&gateway=x": 400,
			"/v1/payments?gateway=amdigipay&id=" + strings.Repeat("x", 1000): 404,
		} {
			if a := e.do("GET", path, ""); a.StatusCode != status {
				t.Errorf("GET %s: %d %s, want %d", path, a.StatusCode, a.body, status)
			}
		}
		for _, c := range []struct{ method, path, allow string }{
			{"PATCH", path, "DELETE, GET, HEAD"},
			{"GET", "/v1/payments/batch", "POST"},
			{"PUT", "/v1/payments", "DELETE, GET, HEAD, POST"},
			{"POST", "/v1/events", "GET, HEAD"},
		} {
			if a := e.do(c.method, c.path, ""); a.StatusCode != 405 || a.Header.Get("Allow") != c.allow || a.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s %s: %d %q", c.method, c.path, a.StatusCode, a.Header.Get("Allow"))
			}
		}
	})
}

// TestWait: a waiting request is answered when the payment changes, also by a change without an
// event, and one that submits a payment when the gateway has answered.
func TestWait(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		key := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"}
		answers := make(chan answer)
		go func() { answers <- e.do("POST", "/v1/payments?wait=30s", am("INV-1")) }()
		for len(e.Queue()) == 0 {
			time.Sleep(time.Millisecond) // until it is recorded: nothing reports that
		}
		begin := time.Now()
		e.Submit(key)
		a := <-answers
		got := a.json(t)
		if links, _ := got["payment_links"].(string); a.StatusCode != 202 || got["result"] != "enqueued" || got["status"] != "on_processing" || links == "" && got["qr_code"] == nil {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
		t.Logf("answered %v after the submit began", time.Since(begin))
		if a := e.do("POST", "/v1/payments?wait=30s", am("INV-1")); a.StatusCode != 200 || a.json(t)["qr_code"] != got["qr_code"] || a.json(t)["payment_links"] != got["payment_links"] {
			t.Errorf("again: %d %s", a.StatusCode, a.body)
		}
		if a := e.do("POST", "/v1/payments?wait=50ms", am("INV-2")); a.StatusCode != 202 || a.json(t)["status"] != "queued" {
			t.Errorf("no worker: %d %s", a.StatusCode, a.body)
		}

		waiting := key
		waiting.TransactionID = "INV-2"
		first := e.do("GET", "/v1/payments/amdigipay/INV-2", "").Header.Get("ETag")
		go func() { answers <- e.do("GET", "/v1/payments/amdigipay/INV-2?wait=30s", "", "If-None-Match", first) }()
		if _, claimed, err := e.Ledger.Claim(t.Context(), waiting, ledger.Claim{
			Attempt: payment.Attempt{At: e.Now(), Kind: payment.KindSubmit}, Lease: time.Minute, Timeout: time.Second,
		}); err != nil || claimed != ledger.Claimed {
			t.Fatal(claimed, err)
		}
		if a := <-answers; a.StatusCode != 200 || a.json(t)["status"] != "submitting" {
			t.Errorf("a change without an event: %d %s", a.StatusCode, a.body)
		}
	})
}

// TestRedisDown: while Redis is down a payment is answered 503, and the same again is accepted or
// a duplicate when it is back.
func TestRedisDown(t *testing.T) {
	if testing.Short() {
		t.Skip("the ledger tries for 6 s")
	}
	server := redistest.Server(t)
	e := newEnv(t, server.Client(t))
	if a := e.do("POST", "/v1/payments", paydia("ORD-1")); a.StatusCode != 202 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	server.Kill()
	check := func(a answer) {
		t.Helper()
		if a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || strings.Contains(a.body, "127.0.0.1") {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}
	a := e.do("POST", "/v1/payments", paydia("ORD-2"))
	check(a)
	if a.json(t)["result"] != "failed" || !strings.Contains(a.body, "under the same id, never under a new one") {
		t.Error(a.body)
	}
	check(e.do("GET", "/v1/payments/paydia/ORD-1", ""))
	check(e.do("GET", "/v1/events", ""))
	lines := e.do("POST", "/v1/payments/batch", paydia("ORD-3")+"\n{}\n"+paydia("ORD-4")+"\n")
	if lines.StatusCode != 200 || strings.Count(lines.body, `"result":"failed"`) != 2 || strings.Count(lines.body, `"result":"invalid"`) != 1 || strings.Contains(lines.body, "127.0.0.1") {
		t.Errorf("%d %s", lines.StatusCode, lines.body)
	}

	e.state.set(false, "does not answer") // as the monitor reports it a second later
	begin := time.Now()
	check(e.do("POST", "/v1/payments", paydia("ORD-2")))
	check(e.do("POST", "/v1/payments/batch", paydia("ORD-2")))
	check(e.do("GET", "/v1/payments/paydia/ORD-1", ""))
	check(e.do("GET", "/v1/events", "", "Accept", "text/event-stream"))
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("4 answers took %v", took)
	}
	if a := e.do("GET", "/healthz", ""); a.StatusCode != 200 {
		t.Errorf("/healthz: %d", a.StatusCode)
	}
	if a := e.do("GET", "/readyz", ""); a.StatusCode != 200 || !strings.Contains(a.body, "redis does not answer") {
		t.Errorf("/readyz: %d %s", a.StatusCode, a.body)
	}

	server.Start(t)
	e.state.set(true, "")
	for _, id := range []string{"ORD-2", "ORD-3", "ORD-4"} {
		if a := e.do("POST", "/v1/payments", paydia(id)); a.StatusCode != 202 && a.StatusCode != 200 {
			t.Errorf("%s: %d %s", id, a.StatusCode, a.body)
		}
	}
}

// TestNoPayloadKey: a payment whose token cannot be encrypted is 503.
func TestNoPayloadKey(t *testing.T) {
	e := newEnv(t, redistest.Mini(t), func(e *env) {
		cipher, err := secret.NewCipher(secret.NewText(""))
		if err != nil {
			t.Fatal(err)
		}
		e.Intake.Cipher = cipher
	})
	if a := e.do("POST", "/v1/payments", paydia("ORD-1")); a.StatusCode != 503 || !strings.Contains(e.log.String(), "key") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// TestClientGone: a payment is recorded although its client does not wait for the answer, and
// bodies that end early record nothing.
func TestClientGone(t *testing.T) {
	e := newEnv(t, redistest.Mini(t))
	body := paydia("ORD-1")
	head := "POST /v1/payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + e.key + "\r\n"
	send := func(text string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", e.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	send(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)).Close()
	for len(e.Queue()) == 0 {
		time.Sleep(time.Millisecond) // nothing reports it
	}
	// A client that closes only its direction is answered.
	for name, text := range map[string]string{
		"whole":      head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body),
		"incomplete": head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body)+1, body),
	} {
		conn := send(text)
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(conn)
		if want := map[string]string{"whole": "HTTP/1.1 200", "incomplete": "HTTP/1.1 400"}[name]; !bytes.HasPrefix(answer, []byte(want)) {
			t.Errorf("%s: %q", name, answer)
		}
	}
	// A chunked body without a length.
	conn := send(head + "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body))
	if answer, _ := io.ReadAll(conn); !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) {
		t.Errorf("chunked: %q", answer)
	}
	// A large header.
	conn = send("GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n")
	if answer, _ := io.ReadAll(conn); len(answer) > 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.1 431")) {
		t.Errorf("large header: %q", answer)
	}
}

// TestMetrics: requests are counted by route, not by path, and the last use of a key is shown.
func TestMetrics(t *testing.T) {
	e := newEnv(t, redistest.Mini(t))
	e.do("POST", "/v1/payments", paydia("ORD-1"))
	e.do("DELETE", "/v1/payments/paydia/X-0", "")
	for i := range 3 {
		e.do("GET", fmt.Sprint("/v1/payments/paydia/X-", i), "")
		e.do("GET", fmt.Sprint("/x/", i), "")
		e.do(fmt.Sprint("METHOD", i), "/v1/payments", "")
	}
	text := e.do("GET", "/metrics", "").body
	for _, want := range []string{
		`terbayar_api_requests_total{method="POST",route="/v1/payments",status="202"} 1`,
		`terbayar_api_requests_total{method="GET",route="/v1/payments/{gateway}/{id}",status="404"} 3`,
		`terbayar_api_requests_total{method="DELETE",route="/v1/payments/{gateway}/{id}",status="404"} 1`,
		`terbayar_api_requests_total{method="GET",route="other",status="404"} 3`,
		`terbayar_api_requests_total{method="other",route="other",status="405"} 3`,
		`terbayar_api_key_last_used_timestamp_seconds{name="all"} 2.0949516e+09`, // e.Now
		`terbayar_redis_up 1`, `terbayar_build_info{`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestPanic: a panic is logged and answered 500, and the server goes on.
func TestPanic(t *testing.T) {
	e := newEnv(t, redistest.Mini(t), func(e *env) { e.options.Redis = panicking{} })
	if a := e.do("POST", "/v1/payments", paydia("ORD-1")); a.StatusCode != 500 || strings.Contains(a.body, "a defect of the test") || !strings.Contains(e.log.String(), "a defect of the test") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := e.do("GET", "/healthz", ""); a.StatusCode != 200 {
		t.Errorf("/healthz: %d", a.StatusCode)
	}
}

type panicking struct{}

func (panicking) State() redishealth.State { panic("a defect of the test") }
