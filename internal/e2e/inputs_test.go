package e2e_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// edited is a line with one thing changed.
func edited(t *testing.T, line, old, replacement string) string {
	t.Helper()
	if strings.Count(line, old) != 1 {
		t.Fatalf("%q is not once in %s", old, line)
	}
	return strings.Replace(line, old, replacement, 1)
}

// TestBadInputs: one bad line in ten. Nine are taken, the bad one is told with
// its line and what is wrong.
func TestBadInputs(t *testing.T) {
	t.Parallel()
	s := newStage(t)
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
		{"rupiah as a text", am("X", `"nominal":10000`, `"nominal":"10000"`), "invalid", "payment.nominal"},
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
					in = append(in, paydia("same-0", `"t"`, `"t"`)) // taken by the first case, duplicate from then on
				case n%2 == 0:
					in = append(in, paydia(id, `"t"`, `"t"`))
				default:
					in = append(in, am(id, `"n"`, `"n"`))
				}
			}
			r := s.enqueue(strings.Join(in, "\n")+"\n", "create")
			if r.code != 1 || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("exit %d, stderr %q", r.code, r.stderr)
			}
			answers := lines[answer](s, r.stdout)
			if len(answers) != 10 {
				t.Fatalf("%d answers: %s", len(answers), r.stdout)
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
		lines []int // of the payments that are taken
		wrong string
	}{
		"one object over many lines":   {strings.ReplaceAll(paydia("multi-1", `"t"`, `"t"`), ",", ",\n  "), []int{1}, ""},
		"behind blank lines":           {"\n\n" + strings.ReplaceAll(paydia("multi-2", `"t"`, `"t"`), ",", ",\n  "), []int{3}, ""},
		"array over lines":             {"[\n" + paydia("array-1", `"t"`, `"t"`) + ",\n" + paydia("array-2", `"t"`, `"t"`) + "\n]\n", nil, "a JSON array"},
		"compressed":                   {"\x1f\x8b\x08" + paydia("gzip", `"t"`, `"t"`) + "\n" + paydia("gzip", `"t"`, `"t"`), nil, "zcat"},
		"UTF-16":                       {"\xff\xfe{\x00\n\x00" + paydia("utf-16", `"t"`, `"t"`), nil, "iconv"},
		"cut off, and a payment":       {`{"gateway":` + "\n" + paydia("cut", `"t"`, `"t"`), []int{2}, "no end before the next payment"},
		"every wrong field of several": {am("X ", `"nominal":10000`, `"colour":"red","nominal":10001`), nil, "payment.colour: unknown field; payment.transaction_id"},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.enqueue(c.in, "create")
			var taken []int
			wrong := ""
			for _, a := range lines[answer](s, r.stdout) {
				if a.Result == "enqueued" {
					taken = append(taken, a.Line)
				} else {
					wrong += a.Error
				}
			}
			if !slices.Equal(taken, c.lines) || !strings.Contains(wrong, c.wrong) || (c.wrong == "") != (wrong == "") || (r.code == 0) != (wrong == "") {
				t.Errorf("%d %s%s", r.code, r.stdout, r.stderr)
			}
		})
	}
	t.Run("from a file", func(t *testing.T) {
		path := s.file("payments.ndjson", paydia("from a file", `"t"`, `"t"`))
		if r := s.enqueue("", "create", path); r.code != 0 || !strings.Contains(r.stdout, `"transaction_id":"from a file","result":"enqueued"`) {
			t.Errorf("%d %s%s", r.code, r.stdout, r.stderr)
		}
	})
	s.noSecrets()
}

// TestWrongUse: settings and arguments that cannot work end the programs with
// the exit codes of interface.md and exactly one line that names the culprit.
func TestWrongUse(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	one := samples(t, 2)[1] // Paydia's
	oneWord := base64.StdEncoding.EncodeToString([]byte("hunter2-hunter2-hunter2"))
	bad := s.file("bad-policy.yaml", "gateways:\n  paydia:\n    rules:\n      - code: \"5006301\"\n        action: explode\n")
	worse := s.file("worse-policy.yaml", "gateways:\n  paydia:\n    verify: {settle: soonish}\n")
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
		{"unknown payment", enqueue("status", "paydia", "nobody/1"), "", 4, "nobody/1"},
		{"unknown payment as JSON", enqueue("status", "paydia", "nobody/1", "--json"), "", 4, "nobody/1"},
		{"unknown event", enqueue("events", "--from", "paydia:nobody:1"), "", 1, "paydia:nobody:1"},
		{"no PAYLOAD_KEYS", enqueue("create"), "PAYLOAD_KEYS=", 2, "PAYLOAD_KEYS"},
		{"PAYLOAD_KEYS is no base64", enqueue("create"), "PAYLOAD_KEYS=hunter2", 2, "PAYLOAD_KEYS"},
		{"PAYLOAD_KEYS is too short", enqueue("create"), "PAYLOAD_KEYS=" + oneWord, 2, "PAYLOAD_KEYS"},
		{"PAYLOAD_KEYS_FILE is not there", enqueue("create"), "PAYLOAD_KEYS_FILE=/nowhere/hunter2", 2, "PAYLOAD_KEYS_FILE"},
		{"REDIS_URL is none", enqueue("create"), "REDIS_URL=http://:hunter2@localhost", 2, "REDIS_URL"},
		{"Redis wants a password", enqueue("create"), "REDIS_URL=" + locked.URL(), 2, "REDIS_URL: redis refuses the login"},
		{"Redis wants another password", enqueue("status", "paydia", "X"), "REDIS_URL=redis://:hunter2@" + locked.Addr + "/0", 2, "REDIS_URL: redis refuses the login"},
		{"EVENTS_STREAM", enqueue("events", "--events-stream="), "", 2, "EVENTS_STREAM"},
		{"Redis is not there: create", enqueue("create"), "REDIS_URL=" + nowhere, 3, "line 1, 0 taken"},
		{"Redis is not there: status", enqueue("status", "paydia", "X"), "REDIS_URL=" + nowhere, 3, "redis"},
		{"Redis is not there: events", enqueue("events"), "REDIS_URL=" + nowhere, 3, "redis"},

		{"private key is no PEM", worker, "PAYDIA_PRIVATE_KEY=hunter2", 2, "PAYDIA_PRIVATE_KEY"},
		{"private key is damaged", worker, "PAYDIA_PRIVATE_KEY=-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n", 2, "PAYDIA_PRIVATE_KEY"},
		{"half of AM's credentials", worker, "AMDIGIPAY_PASSWORD=", 2, "AMDIGIPAY_PASSWORD"},
		{"half of Paydia's credentials", worker, "PAYDIA_CLIENT_SECRET=", 2, "PAYDIA_CLIENT_SECRET"},
		{"duration without a unit", worker, "GATEWAY_TIMEOUT=15", 2, "GATEWAY_TIMEOUT"},
		{"negative duration", worker, "STATUS_POLL_INTERVAL=-1s", 2, "STATUS_POLL_INTERVAL"},
		{"time-outs contradict each other", worker, "WORKER_SHUTDOWN_TIMEOUT=4s", 2, "GATEWAY_TIMEOUT (5s) must be less than WORKER_SHUTDOWN_TIMEOUT (4s)"},
		{"concurrency", worker, "WORKER_CONCURRENCY=many", 2, "WORKER_CONCURRENCY"},
		{"base URL", worker, "PAYDIA_BASE_URL=https://user:hunter2@api.paydia.id/snap/v1.0", 2, "PAYDIA_BASE_URL"},
		{"users without a hash", worker, "MONITORING_USERS=siti:hunter2", 2, "MONITORING_USERS"},
		{"log level", worker, "LOG_LEVEL=loud", 2, "LOG_LEVEL"},
		{"address", worker, "WORKER_HTTP_ADDR=8080", 2, "WORKER_HTTP_ADDR"},
		{"address is taken", worker, "WORKER_HTTP_ADDR=" + s.server.Addr, 2, "WORKER_HTTP_ADDR"},
		{"policy file is not there", worker, "RETRY_POLICY_FILE=/nowhere.yaml", 2, "RETRY_POLICY_FILE: open /nowhere.yaml"},
		{"policy file: action", worker, "RETRY_POLICY_FILE=" + bad, 2, bad + `:5: gateways.paydia.rules[0].action: unknown action "explode"`},
		{"policy file: duration", worker, "RETRY_POLICY_FILE=" + worse, 2, worse + `:3: gateways.paydia.verify.settle: "soonish"`},
		{"policies: action", []string{"worker", "policies"}, "RETRY_POLICY_FILE=" + bad, 2, bad + ":5:"},
		{"unknown argument", []string{"worker", "dance"}, "", 2, "dance"},
	} {
		t.Run(c.name, func(t *testing.T) {
			edits := []string{c.edit}
			if strings.HasPrefix(c.edit, "PAYLOAD_KEYS_FILE") {
				edits = append(edits, "PAYLOAD_KEYS=")
			}
			stdin := ""
			if len(c.args) > 1 && c.args[1] == "create" {
				stdin = one.line
			}
			r := s.run(c.args[0], c.args[1:], stdin, edits...)
			if r.code != c.code || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, c.wants) {
				t.Errorf("exit %d, want %d; stderr, want one line with %q:\n%s", r.code, c.code, c.wants, r.stderr)
			}
			for _, text := range append(s.secrets(), "hunter2", oneWord, "aHVudGVyMg") {
				if text == "hunter2" && strings.Contains(c.edit, "_FILE=") {
					continue // a file's name is no secret
				}
				if strings.Contains(r.stdout+r.stderr, text) {
					t.Errorf("a secret is shown: %s", r.stderr)
				}
			}
		})
	}
	t.Run("policies", func(t *testing.T) {
		r := s.run("worker", []string{"policies"}, "", "REDIS_URL="+nowhere)
		if r.code != 0 || !strings.Contains(r.stdout, "4036314") || !strings.Contains(r.stdout, "policy.yaml:5") {
			t.Errorf("%d %s%s", r.code, r.stdout, r.stderr)
		}
	})
}

// lockedRedis is a Redis that wants a password.
func lockedRedis(t *testing.T) *redistest.Process {
	t.Helper()
	server := redistest.Server(t)
	if err := server.Client(t).ConfigSet(t.Context(), "requirepass", "hunter3").Err(); err != nil {
		t.Fatal(err)
	}
	return server
}

// TestRedisRefusesTheLogin: a worker does not wait for a password to become right.
func TestRedisRefusesTheLogin(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	locked := lockedRedis(t)
	p := s.start("worker", nil, "REDIS_URL="+locked.URL(), "REDIS_PASSWORD=hunter2")
	if code := s.exit(p, 20*time.Second); code != 2 || !strings.Contains(p.stderr.String(), "REDIS_URL: redis refuses the login") {
		t.Errorf("exit %d: %s", code, p.stderr.String())
	}
	if strings.Contains(p.stderr.String(), "hunter") {
		t.Error("the password is told")
	}
}

// TestRedisGoesAwayUnderEnqueue: it says how far it got, and run again it
// finishes, with duplicates told.
func TestRedisGoesAwayUnderEnqueue(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	all := samples(t, 10)
	p := s.start("enqueue", []string{"create"})
	write := func(some []sample) {
		if _, err := io.WriteString(p.stdin, file(some)); err != nil {
			t.Fatal(err)
		}
	}
	write(all[:5])
	s.eventually("five answers", 10*time.Second, func() bool { return strings.Count(p.stdout.String(), "\n") == 5 })
	s.server.Kill()
	write(all[5:])
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if code := s.exit(p, 30*time.Second); code != 3 || !strings.Contains(p.stderr.String(), "line 6, 5 taken") {
		t.Errorf("exit %d: %s", code, p.stderr.String())
	}
	s.server.Start(t)
	r := s.enqueue(file(all), "create")
	var results []string
	for _, a := range lines[answer](s, r.stdout) {
		results = append(results, a.Result)
	}
	want := strings.Repeat("duplicate ", 5) + strings.Repeat("enqueued ", 5)
	if r.code != 0 || strings.Join(results, " ")+" " != want {
		t.Errorf("exit %d, %v", r.code, results)
	}
}

// TestInterrupted: Ctrl-C is no failure of Redis. What was answered is told, and handing
// everything in again does the rest.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	all := samples(t, 10)
	p := s.start("enqueue", []string{"create"})
	if _, err := io.WriteString(p.stdin, file(all[:4])); err != nil {
		t.Fatal(err)
	}
	s.eventually("four answers", 10*time.Second, func() bool { return strings.Count(p.stdout.String(), "\n") == 4 })
	s.signal(p, os.Interrupt)
	if code := s.exit(p, 10*time.Second); code != 1 ||
		!strings.Contains(p.stderr.String(), "interrupted: 4 answered (4 enqueued), nothing taken from line 5 on") {
		t.Errorf("exit %d: %s", code, p.stderr.String())
	}
	s.create(all[:4], "duplicate")
	s.create(all[4:], "enqueued")
}

// TestGatewayWithoutCredentials: its tasks wait, and none fails, until a worker
// with credentials comes.
func TestGatewayWithoutCredentials(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	without := s.worker("AMDIGIPAY_USERNAME=", "AMDIGIPAY_PASSWORD=")
	if log := without.stderr.String(); !strings.Contains(log, `gateway is off`) || !strings.Contains(log, `"gateway":"amdigipay"`) {
		t.Errorf("the log does not say that a gateway is off: %s", log)
	}
	all := samples(t, 20, "PAY")
	s.create(all, "enqueued")
	s.await(every(all, payment.Paydia), 20*time.Second, sample.ended)
	for _, p := range every(all, payment.AMDigiPay) {
		if r, err := s.book.Read(t.Context(), p.key); err != nil || r.Status != payment.Queued || len(r.Attempts) != 0 {
			t.Errorf("%v: %s", err, s.story(p.key))
		}
	}
	s.checkWaiting(without, every(all, payment.AMDigiPay))
	s.worker()
	s.checkEvents(s.await(all, 20*time.Second, sample.ended))
	s.noDoubles()
}

// every picks the samples of one gateway.
func every(all []sample, g payment.Gateway) []sample {
	var some []sample
	for _, p := range all {
		if p.key.Gateway == g {
			some = append(some, p)
		}
	}
	return some
}
