package e2e_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv/programs"
)

// edited returns a line with one thing changed.
func edited(t *testing.T, line, old, replacement string) string {
	t.Helper()
	if strings.Count(line, old) != 1 {
		t.Fatalf("%q is not contained once in %s", old, line)
	}
	return strings.Replace(line, old, replacement, 1)
}

// TestBadInputs submits ten lines of which one is wrong. Nine are enqueued; the answer to the
// wrong one contains its line number and the error.
func TestBadInputs(t *testing.T) {
	slow(t)
	e := newEnv(t)
	am := func(id, old, replacement string) string {
		line := `{"gateway":"amdigipay","payment":{"payment_id":33,"expired_date":"2099-05-21 18:23:10","nominal":10000,"admin_fee":3000,` +
			`"transaction_id":"` + id + `","transaction_total":13000,"transaction_name":"t","transaction_desc":"t","customer_number":"0",` +
			`"customer_name":"n","item_details":[{"item_id":"a","item_price":10000,"item_total_price":10000,"item_quantity":1,"item_name":"a"},` +
			`{"item_id":"fee","item_price":3000,"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}}`
		return edited(t, line, old, replacement)
	}
	paydia := func(id, old, replacement string) string {
		line := `{"gateway":"paydia","customer_token":"` + tokenMark + `","payment":{"partnerReferenceNo":"` + id +
			`","amount":{"value":"10000.00","currency":"IDR"},"title":"t"}}`
		return edited(t, line, old, replacement)
	}
	for i, c := range []struct {
		name, line    string
		result, wrong string // wrong is part of the error
	}{
		{"broken JSON", `{"gateway":"amdigipay","payment":{`, "invalid", "broken JSON"},
		{"not an object", `[1]`, "invalid", "JSON object"},
		{"two objects", am("X", `"n"`, `"n"`) + `{}`, "invalid", "more than one JSON value"},
		{"unknown field", am("X", `"nominal"`, `"colour":"red","nominal"`), "invalid", "payment.colour: unknown field"},
		{"unknown field outside", paydia("X", `"customer_token"`, `"token":"","customer_token"`), "invalid", "token: unknown field"},
		{"field in another case", paydia("X", `"title"`, `"Title"`), "invalid", "payment.Title: unknown field"},
		{"field given twice", am("X", `"nominal":10000`, `"nominal":10000,"nominal":10000`), "invalid", "payment.nominal: given twice"},
		{"wrong total", am("X", `"transaction_total":13000`, `"transaction_total":13001`), "invalid", "payment.transaction_total"},
		{"wrong sum of items", am("X", `"item_price":3000,"item_total_price":3000`, `"item_price":2000,"item_total_price":2000`), "invalid", "payment.item_details"},
		{"wrong item", am("X", `"item_total_price":10000`, `"item_total_price":9999`), "invalid", "payment.item_details[0].item_total_price"},
		{"float rupiah", am("X", `"nominal":10000`, `"nominal":10000.5`), "invalid", "payment.nominal: must be a whole number"},
		{"rupiah as a string", am("X", `"nominal":10000`, `"nominal":"10000"`), "invalid", "payment.nominal"},
		{"negative rupiah", am("X", `"admin_fee":3000`, `"admin_fee":-3000`), "invalid", "payment.admin_fee"},
		{"sen", paydia("X", `10000.00`, `10000.50`), "invalid", "payment.amount.value"},
		{"no decimals", paydia("X", `10000.00`, `10000`), "invalid", "payment.amount.value"},
		{"dollars", paydia("X", `IDR`, `USD`), "invalid", "payment.amount.currency"},
		{"reference too long", paydia(strings.Repeat("é", 65), `"t"`, `"t"`), "invalid", "payment.partnerReferenceNo: is longer than 64"},
		{"title too long", paydia("X", `"t"`, `"`+strings.Repeat("é", 257)+`"`), "invalid", "payment.title: is longer than 256"},
		{"no date", am("X", `2099-05-21 18:23:10`, `tomorrow`), "invalid", "payment.expired_date"},
		{"control character in the id", paydia("X\\n", `"t"`, `"t"`), "invalid", "payment.partnerReferenceNo"},
		{"invisible character in the id", am(`X\u200b`, `"n"`, `"n"`), "invalid", "payment.transaction_id"},
		{"override in a name", am("X", `"n"`, `"n\u202e"`), "invalid", "payment.customer_name"},
		{"fraction of a second", am("X", `18:23:10`, `18:23:10.5`), "invalid", "payment.expired_date"},
		{"one digit for the hour", am("X", `18:23:10`, `8:23:10`), "invalid", "payment.expired_date"},
		{"date has passed", am("X", `2099-`, `2025-`), "invalid", "payment.expired_date"},
		{"leading zero", paydia("X", `10000.00`, `010000.00`), "invalid", "payment.amount.value"},
		{"unknown gateway", paydia("X", `"gateway":"paydia"`, `"gateway":"paypal"`), "invalid", "gateway: unknown gateway"},
		{"missing gateway", paydia("X", `"gateway":"paydia",`, ``), "invalid", "gateway: is missing"},
		{"missing payment", `{"gateway":"paydia","customer_token":"x"}`, "invalid", "payment"},
		{"missing customer token", paydia("X", `"customer_token":"`+tokenMark+`",`, ``), "invalid", "customer_token"},
		{"conflict", paydia("same-0", `10000.00`, `20000.00`), "conflict", "other content"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var in []string
			for n := range 10 {
				id := fmt.Sprintf("%d-%d", i, n)
				switch {
				case n == 6:
					in = append(in, c.line)
				case n == 0:
					in = append(in, paydia("same-0", `"t"`, `"t"`)) // enqueued in the first case, duplicate later
				case n%2 == 0:
					in = append(in, paydia(id, `"t"`, `"t"`))
				default:
					in = append(in, am(id, `"n"`, `"n"`))
				}
			}
			r := e.enqueue(strings.Join(in, "\n")+"\n", "create")
			if r.Code != 1 || strings.Count(r.Stderr, "\n") != 1 {
				t.Errorf("exit %d, stderr %q", r.Code, r.Stderr)
			}
			answers := lines[answer](e, r.Stdout)
			if len(answers) != 10 {
				t.Fatalf("%d answers: %s", len(answers), r.Stdout)
			}
			for n, a := range answers {
				switch {
				case a.Line != n+1:
					t.Errorf("answer %d is of line %d", n+1, a.Line)
				case n == 6:
					if (a.Result == "invalid") != (len(a.Errors) > 0) || (a.Result == "conflict") != (a.Status != "") {
						t.Errorf("%+v", a)
					}
					if a.Result != c.result || !strings.Contains(a.Error, c.wrong) {
						t.Errorf("%+v, want %s: %s", a, c.result, c.wrong)
					}
				case a.Result != "enqueued" && (n != 0 || i == 0 || a.Result != "duplicate"):
					t.Errorf("%+v", a)
				}
			}
		})
	}
	for name, c := range map[string]struct {
		in    string
		lines []int // of the payments that are enqueued
		wrong string
	}{
		"one object over many lines":   {strings.ReplaceAll(paydia("multi-1", `"t"`, `"t"`), ",", ",\n  "), []int{1}, ""},
		"behind blank lines":           {"\n\n" + strings.ReplaceAll(paydia("multi-2", `"t"`, `"t"`), ",", ",\n  "), []int{3}, ""},
		"array over lines":             {"[\n" + paydia("array-1", `"t"`, `"t"`) + ",\n" + paydia("array-2", `"t"`, `"t"`) + "\n]\n", nil, "a JSON array"},
		"compressed":                   {"\x28\xb5\x2f\xfd" + paydia("zstd", `"t"`, `"t"`) + "\n" + paydia("zstd", `"t"`, `"t"`), nil, "zstdcat"},
		"UTF-16":                       {"\xff\xfe{\x00\n\x00" + paydia("utf-16", `"t"`, `"t"`), nil, "iconv"},
		"cut off, and a payment":       {`{"gateway":` + "\n" + paydia("cut", `"t"`, `"t"`), []int{2}, "no end before the next payment"},
		"every wrong field of several": {am("X ", `"nominal":10000`, `"colour":"red","nominal":10001`), nil, "payment.colour: unknown field; payment.transaction_id"},
	} {
		t.Run(name, func(t *testing.T) {
			r := e.enqueue(c.in, "create")
			var enqueued []int
			wrong := ""
			for _, a := range lines[answer](e, r.Stdout) {
				if a.Result == "enqueued" {
					enqueued = append(enqueued, a.Line)
				} else {
					wrong += a.Error
				}
			}
			if !slices.Equal(enqueued, c.lines) || !strings.Contains(wrong, c.wrong) || (c.wrong == "") != (wrong == "") || (r.Code == 0) != (wrong == "") {
				t.Errorf("%d %s%s", r.Code, r.Stdout, r.Stderr)
			}
		})
	}
	t.Run("from a file", func(t *testing.T) {
		path := e.File("payments.ndjson", paydia("from a file", `"t"`, `"t"`))
		if r := e.enqueue("", "create", path); r.Code != 0 || !strings.Contains(r.Stdout, `"transaction_id":"from a file","result":"enqueued"`) {
			t.Errorf("%d %s%s", r.Code, r.Stdout, r.Stderr)
		}
	})
	e.noSecrets()
}

// TestWrongUse: with wrong settings or arguments the programs end with the exit codes of
// docs/interface.md and exactly one line, which names the setting or argument.
func TestWrongUse(t *testing.T) {
	slow(t)
	e := newEnv(t)
	one := samples(2)[1] // to Paydia
	shortKey := base64.StdEncoding.EncodeToString([]byte("hunter2-hunter2-hunter2"))
	badAction := e.File("bad-action.yaml", "gateways:\n  paydia:\n    rules:\n      - code: \"5006301\"\n        action: explode\n")
	badDuration := e.File("bad-duration.yaml", "gateways:\n  paydia:\n    verify: {settle: soonish}\n")
	const nowhere = "redis://127.0.0.1:1/0"
	locked := lockedRedis(t)
	enqueue := func(args ...string) []string { return append([]string{"enqueue"}, args...) }
	worker := []string{"worker"}
	for _, c := range []struct {
		name  string
		args  []string
		edit  string
		code  int
		wants string // in the one line on stderr
	}{
		{"no command", enqueue(), "", 2, "expected"},
		{"unknown command", enqueue("destroy"), "", 2, "destroy"},
		{"unknown flag", enqueue("create", "--colour"), "", 2, "--colour"},
		{"no such file", enqueue("create", "/nowhere/payments.ndjson"), "", 2, "/nowhere/payments.ndjson"},
		{"a directory", enqueue("create", t.TempDir()), "", 2, "is a directory"},
		{"unknown gateway", enqueue("status", "paypal", "X"), "", 2, "paypal"},
		{"id is missing", enqueue("status", "paydia"), "", 2, "id"},
		{"unknown payment", enqueue("status", "paydia", "unknown/1"), "", 4, "unknown/1"},
		{"unknown payment as JSON", enqueue("status", "paydia", "unknown/1", "--json"), "", 4, "unknown/1"},
		{"cancel: unknown gateway", enqueue("cancel", "paypal", "X"), "", 2, "paypal"},
		{"cancel: unknown payment", enqueue("cancel", "paydia", "unknown/1"), "", 4, "unknown/1"},
		{"cancel: Redis is down", enqueue("cancel", "paydia", "X"), "REDIS_URL=" + nowhere, 3, "redis"},
		{"unknown event", enqueue("events", "--from", "paydia:unknown:1"), "", 1, "paydia:unknown:1"},
		{"no PAYLOAD_KEYS", enqueue("create"), "PAYLOAD_KEYS=", 2, "PAYLOAD_KEYS"},
		{"PAYLOAD_KEYS is no base64", enqueue("create"), "PAYLOAD_KEYS=hunter2", 2, "PAYLOAD_KEYS"},
		{"PAYLOAD_KEYS is too short", enqueue("create"), "PAYLOAD_KEYS=" + shortKey, 2, "PAYLOAD_KEYS"},
		{"PAYLOAD_KEYS_FILE does not exist", enqueue("create"), "PAYLOAD_KEYS_FILE=/nowhere/hunter2", 2, "PAYLOAD_KEYS_FILE"},
		{"REDIS_URL is not a Redis URL", enqueue("create"), "REDIS_URL=http://:hunter2@localhost", 2, "REDIS_URL"},
		{"Redis requires a password", enqueue("create"), "REDIS_URL=" + locked.URL(), 2, "REDIS_URL: redis refuses the login"},
		{"Redis requires another password", enqueue("status", "paydia", "X"), "REDIS_URL=redis://:hunter2@" + locked.Addr + "/0", 2, "REDIS_URL: redis refuses the login"},
		{"EVENTS_STREAM", enqueue("events", "--events-stream="), "", 2, "EVENTS_STREAM"},
		{"Redis is down: create", enqueue("create"), "REDIS_URL=" + nowhere, 3, "line 1, 0 accepted"},
		{"Redis is down: status", enqueue("status", "paydia", "X"), "REDIS_URL=" + nowhere, 3, "redis"},
		{"Redis is down: events", enqueue("events"), "REDIS_URL=" + nowhere, 3, "redis"},

		{"private key is not PEM", worker, "PAYDIA_PRIVATE_KEY=hunter2", 2, "PAYDIA_PRIVATE_KEY"},
		{"private key is damaged", worker, "PAYDIA_PRIVATE_KEY=-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n", 2, "PAYDIA_PRIVATE_KEY"},
		{"half of AM's credentials", worker, "AMDIGIPAY_PASSWORD=", 2, "AMDIGIPAY_PASSWORD"},
		{"half of Paydia's credentials", worker, "PAYDIA_CLIENT_SECRET=", 2, "PAYDIA_CLIENT_SECRET"},
		{"duration without a unit", worker, "GATEWAY_TIMEOUT=15", 2, "GATEWAY_TIMEOUT"},
		{"negative duration", worker, "STATUS_POLL_INTERVAL=-1s", 2, "STATUS_POLL_INTERVAL"},
		{"timeouts contradict each other", worker, "WORKER_SHUTDOWN_TIMEOUT=4s", 2, "GATEWAY_TIMEOUT (5s) must be less than WORKER_SHUTDOWN_TIMEOUT (4s)"},
		{"concurrency", worker, "WORKER_CONCURRENCY=many", 2, "WORKER_CONCURRENCY"},
		{"base URL", worker, "PAYDIA_BASE_URL=https://user:hunter2@api.paydia.id/snap/v1.0", 2, "PAYDIA_BASE_URL"},
		{"users without a hash", worker, "MONITORING_USERS=siti:hunter2", 2, "MONITORING_USERS"},
		{"log level", worker, "LOG_LEVEL=loud", 2, "LOG_LEVEL"},
		{"address", worker, "WORKER_HTTP_ADDR=8080", 2, "WORKER_HTTP_ADDR"},
		{"address is taken", worker, "WORKER_HTTP_ADDR=" + e.server.Addr, 2, "WORKER_HTTP_ADDR"},
		{"policy file does not exist", worker, "RETRY_POLICY_FILE=/nowhere.yaml", 2, "RETRY_POLICY_FILE: open /nowhere.yaml"},
		{"policy file: action", worker, "RETRY_POLICY_FILE=" + badAction, 2, badAction + `:5: gateways.paydia.rules[0].action: unknown action "explode"`},
		{"policy file: duration", worker, "RETRY_POLICY_FILE=" + badDuration, 2, badDuration + `:3: gateways.paydia.verify.settle: "soonish"`},
		{"policies: action", []string{"worker", "policies"}, "RETRY_POLICY_FILE=" + badAction, 2, badAction + ":5:"},
		{"unknown argument", []string{"worker", "dance"}, "", 2, "dance"},
	} {
		t.Run(c.name, func(t *testing.T) {
			edits := []string{c.edit}
			if strings.HasPrefix(c.edit, "PAYLOAD_KEYS_FILE") {
				edits = append(edits, "PAYLOAD_KEYS=")
			}
			stdin := ""
			if len(c.args) > 1 && c.args[1] == "create" {
				stdin = programs.Input([]programs.Payment{one})
			}
			r := e.Run(c.args[0], c.args[1:], stdin, edits...)
			if r.Code != c.code || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, c.wants) {
				t.Errorf("exit %d, want %d; stderr, want one line with %q:\n%s", r.Code, c.code, c.wants, r.Stderr)
			}
			for _, text := range append(e.secrets(), "hunter2", shortKey, "aHVudGVyMg") {
				if text == "hunter2" && strings.Contains(c.edit, "_FILE=") {
					continue // the name of a file is not secret
				}
				if strings.Contains(r.Stdout+r.Stderr, text) {
					t.Errorf("a secret is printed: %s", r.Stderr)
				}
			}
		})
	}
	t.Run("policies", func(t *testing.T) {
		r := e.Run("worker", []string{"policies"}, "", "REDIS_URL="+nowhere)
		if r.Code != 0 || !strings.Contains(r.Stdout, "4036314") || !strings.Contains(r.Stdout, "policy.yaml:5") {
			t.Errorf("%d %s%s", r.Code, r.Stdout, r.Stderr)
		}
	})
}

// lockedRedis starts a Redis that requires a password.
func lockedRedis(t *testing.T) *redistest.Process {
	t.Helper()
	server := redistest.Server(t)
	if err := server.Client(t).ConfigSet(t.Context(), "requirepass", "hunter3").Err(); err != nil {
		t.Fatal(err)
	}
	return server
}

// TestRedisRefusesTheLogin: a worker with a wrong password ends at once.
func TestRedisRefusesTheLogin(t *testing.T) {
	slow(t)
	e := newEnv(t)
	locked := lockedRedis(t)
	p := e.StartWorker("REDIS_URL="+locked.URL(), "REDIS_PASSWORD=hunter2")
	if code := p.Exit(); code != 2 || !strings.Contains(p.Stderr.String(), "REDIS_URL: redis refuses the login") {
		t.Errorf("exit %d: %s", code, p.Stderr.String())
	}
	if strings.Contains(p.Stderr.String(), "hunter") {
		t.Error("the password is printed")
	}
}

// TestRedisKilledDuringEnqueue: enqueue reports how far it got. A second run with the same
// input enqueues the rest.
func TestRedisKilledDuringEnqueue(t *testing.T) {
	slow(t)
	e := newEnv(t)
	all := samples(10)
	p := e.Start("enqueue", []string{"create"})
	write := func(some []programs.Payment) {
		if _, err := io.WriteString(p.Stdin, programs.Input(some)); err != nil {
			t.Fatal(err)
		}
	}
	write(all[:5])
	e.Eventually("five answers", func() bool { return strings.Count(p.Stdout.String(), "\n") == 5 })
	e.server.Kill()
	write(all[5:])
	if err := p.Stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if code := p.Exit(); code != 3 || !strings.Contains(p.Stderr.String(), "line 6, 5 accepted") {
		t.Errorf("exit %d: %s", code, p.Stderr.String())
	}
	e.server.Start(t)
	r := e.enqueue(programs.Input(all), "create")
	var results []string
	for _, a := range lines[answer](e, r.Stdout) {
		results = append(results, a.Result)
	}
	want := strings.Repeat("duplicate ", 5) + strings.Repeat("enqueued ", 5)
	if r.Code != 0 || strings.Join(results, " ")+" " != want {
		t.Errorf("exit %d, %v", r.Code, results)
	}
}

// TestInterrupted: after Ctrl-C enqueue reports how far it got. A second run with the same
// input enqueues the rest.
func TestInterrupted(t *testing.T) {
	slow(t)
	e := newEnv(t)
	all := samples(10)
	p := e.Start("enqueue", []string{"create"})
	if _, err := io.WriteString(p.Stdin, programs.Input(all[:4])); err != nil {
		t.Fatal(err)
	}
	e.Eventually("four answers", func() bool { return strings.Count(p.Stdout.String(), "\n") == 4 })
	p.Signal(os.Interrupt)
	if code := p.Exit(); code != 1 ||
		!strings.Contains(p.Stderr.String(), "interrupted: 4 answered (4 enqueued), nothing submitted from line 5 on") {
		t.Errorf("exit %d: %s", code, p.Stderr.String())
	}
	e.create(all[:4], "duplicate")
	e.create(all[4:], "enqueued")
}

// TestGatewayWithoutCredentials: its tasks wait, and none fails, until there is a worker with
// credentials.
func TestGatewayWithoutCredentials(t *testing.T) {
	slow(t)
	e := newEnv(t)
	without := e.Worker("AMDIGIPAY_USERNAME=", "AMDIGIPAY_PASSWORD=")
	if log := without.Stderr.String(); !strings.Contains(log, `gateway is off`) || !strings.Contains(log, `"gateway":"amdigipay"`) {
		t.Errorf("the log does not report that a gateway is off: %s", log)
	}
	all := samples(20, "PAY")
	e.create(all, "enqueued")
	e.await(of(all, payment.Paydia))
	for _, p := range of(all, payment.AMDigiPay) {
		if r := e.read(p.Key); r.Status != payment.Queued || len(r.Attempts) != 0 {
			t.Error(e.details(p.Key))
		}
	}
	e.checkPendingTasks(without, of(all, payment.AMDigiPay))
	e.Worker()
	e.finish()
}
