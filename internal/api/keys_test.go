package api_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"terbayar/internal/api"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// TestKeys: wrong, ended and replaced keys, and what a scope hides.
func TestKeys(t *testing.T) {
	var keys []api.Key
	var tokens map[string]string
	e := newEnv(t, redistest.Mini(t), func(e *env) {
		day := func(d int) string { return e.Now().AddDate(0, 0, d).In(payment.Jakarta).Format(time.DateOnly) }
		tokens = map[string]string{
			"all":       e.addKey(&keys, "shop", api.Scope{}, ""),
			"second":    e.addKey(&keys, "shop", api.Scope{}, day(0)),
			"ended":     e.addKey(&keys, "shop", api.Scope{}, day(-1)),
			"gateway":   e.addKey(&keys, "am", api.Scope{Gateway: payment.AMDigiPay}, ""),
			"prefix":    e.addKey(&keys, "a", api.Scope{Prefix: "A-"}, ""),
			"read-only": e.addKey(&keys, "reader", api.Scope{ReadOnly: true}, ""),
			"unknown":   e.addKey(&[]api.Key{}, "shop", api.Scope{}, ""),
		}
		e.keys = api.NewKeys(keys)
	})
	e.key = tokens["all"]
	for _, order := range []string{am("A-1"), am("B-1"), paydia("A-1"), paydia("B-1")} {
		if a := e.do("POST", "/v1/payments", order); a.StatusCode != 202 {
			t.Fatal(a.body)
		}
	}
	for _, c := range []struct {
		key, method, path, body string
		status                  int
	}{
		{"second", "POST", "/v1/payments", am("A-1"), 200},
		{"ended", "POST", "/v1/payments", am("A-1"), 401},
		{"unknown", "POST", "/v1/payments", am("A-1"), 401},
		{"gateway", "POST", "/v1/payments", am("B-1"), 200},
		{"gateway", "POST", "/v1/payments", paydia("A-1"), 403}, // not 200 or 409: it does not learn that it exists
		{"gateway", "POST", "/v1/payments", paydia("NEW"), 403},
		{"gateway", "POST", "/v1/payments", strings.Replace(paydia("A-1"), "10000.00", "20000.00", 1), 403},
		{"gateway", "POST", "/v1/payments", strings.Replace(paydia("NEW"), "10000.00", "1", 1), 422},
		{"prefix", "POST", "/v1/payments", am("A-1"), 200},
		{"prefix", "POST", "/v1/payments", am("B-1"), 403},
		{"prefix", "POST", "/v1/payments", strings.Replace(am("B-1"), "2036", "2026", 1), 403},
		{"read-only", "POST", "/v1/payments", am("A-1"), 403},
		{"read-only", "POST", "/v1/payments/batch", am("A-1"), 403},
		{"read-only", "GET", "/v1/payments/amdigipay/A-1", "", 200},
		{"gateway", "GET", "/v1/payments/amdigipay/B-1", "", 200},
		{"gateway", "GET", "/v1/payments/paydia/A-1", "", 404},
		{"prefix", "GET", "/v1/payments/paydia/A-1", "", 200},
		{"prefix", "GET", "/v1/payments/paydia/B-1", "", 404},
		{"read-only", "DELETE", "/v1/payments/amdigipay/A-1", "", 403},
		{"read-only", "DELETE", "/v1/payments/amdigipay/X-1", "", 403},
		{"gateway", "DELETE", "/v1/payments/paydia/A-1", "", 404}, // as one that does not exist
		{"prefix", "DELETE", "/v1/payments/paydia/B-1", "", 404},
		{"prefix", "DELETE", "/v1/payments?gateway=paydia&id=B-1", "", 404},
		{"prefix", "DELETE", "/v1/payments/paydia/A-2", "", 404},
		{"prefix", "GET", "/v1/payments?gateway=paydia&id=B-1", "", 404},
	} {
		e.key = tokens[c.key]
		if a := e.do(c.method, c.path, c.body); a.StatusCode != c.status || a.StatusCode == 401 && a.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %s %s: %d %s, want %d", c.key, c.method, c.path, a.StatusCode, a.body, c.status)
		}
	}
	e.key = tokens["prefix"]
	batch := e.do("POST", "/v1/payments/batch", am("A-1")+"\n"+am("B-1")+"\n")
	if !strings.Contains(batch.body, `"transaction_id":"A-1","result":"duplicate"`) || !strings.Contains(batch.body, `"transaction_id":"B-1","result":"invalid"`) {
		t.Error(batch.body)
	}
	e.key = ""
	for _, header := range []string{"", "Bearer", "Bearer ", "Basic " + tokens["all"], tokens["all"], "Bearer " + tokens["all"] + "x", "Bearer " + strings.Repeat("x", 5000)} {
		if a := e.do("GET", "/v1/events", "", "Authorization", header); a.StatusCode != 401 {
			t.Errorf("%.50q: %d", header, a.StatusCode)
		}
	}
	if a := e.do("GET", "/v1/events", "", "Authorization", "bearer  "+tokens["all"]); a.StatusCode != 200 {
		t.Errorf("bearer in lower case: %d", a.StatusCode)
	}
	e.Advance(24 * time.Hour)
	if a := e.do("GET", "/v1/events", "", "Authorization", "Bearer "+tokens["second"]); a.StatusCode != 401 || !strings.Contains(a.body, "has ended") {
		t.Errorf("a day later: %d %s", a.StatusCode, a.body)
	}
	e.keys.Set(nil) // all are revoked
	if a := e.do("GET", "/v1/events", "", "Authorization", "Bearer "+tokens["all"]); a.StatusCode != 401 {
		t.Errorf("revoked: %d", a.StatusCode)
	}
	for _, token := range tokens {
		if strings.Contains(e.log.String(), token) {
			t.Error("a key is in the log")
		}
	}
}

// TestNoKeys: without keys only loopback callers are answered, and no page of another site.
func TestNoKeys(t *testing.T) {
	e := newEnv(t, redistest.Mini(t), func(e *env) { e.keys = api.NewKeys(nil) })
	e.key = ""
	for _, c := range []struct {
		headers []string
		status  int
	}{
		{nil, 202},
		{[]string{"X-Forwarded-For", "127.0.0.1"}, 403},
		{[]string{"Host", "evil.example"}, 403},
		{[]string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Sec-Fetch-Site", "same-origin"}, 200},
	} {
		if a := e.do("POST", "/v1/payments", string(testenv.PaydiaOrder("ORD-1")), c.headers...); a.StatusCode != c.status {
			t.Errorf("%v: %d %s", c.headers, a.StatusCode, a.body)
		}
	}
	if a := e.do("GET", "/metrics", "", "Host", "pod.example"); a.StatusCode != 200 {
		t.Errorf("/metrics: %d", a.StatusCode)
	}
}

func TestParseKeys(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	for text, want := range map[string]string{
		"":                                 "",
		"# comment\r\n\n":                  "",
		"\ufeffa:" + hash + "\r\n":         "",
		"a:" + hash + "\na:" + hash:        "line 2 has the same key as line 1",
		"a:" + hash + " read-only x":       "unknown option",
		"a:" + hash + " gateway=x":         "must be amdigipay or paydia",
		"a:" + hash + " prefix=":           "unknown option",
		"a:" + hash + " until=1.1.26":      "YYYY-MM-DD",
		"a:" + hash + " prefix=a prefix=b": "given twice",
		"a:" + hash[2:]:                    "name:sha256-hex",
		"a":                                "name:sha256-hex",
		"a b:" + hash:                      "name:sha256-hex",
		"é:" + hash:                        "letters, digits",
		"a:tbr_xxx":                        "the key itself",
	} {
		if _, err := api.ParseKeys(text); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "xxx")) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	_, key, err := api.NewKey("a", api.Scope{Gateway: payment.Paydia, Prefix: "ORD=", ReadOnly: true}, "2027-01-31")
	if err != nil || !strings.HasSuffix(key.String(), " gateway=paydia prefix=ORD= until=2027-01-31 read-only") {
		t.Error(key, err)
	}
	if again, err := api.ParseKeys(key.String()); err != nil || len(again) != 1 || again[0] != key {
		t.Error(again, err)
	}
	for _, wrong := range []api.Scope{{Prefix: "a b"}, {Prefix: " "}} {
		if _, _, err := api.NewKey("a", wrong, ""); err == nil {
			t.Errorf("%+v is accepted", wrong)
		}
	}
}

// TestFiles: a file is read again when it changes, and wrong content is not applied.
func TestFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	line := func() string {
		_, key, err := api.NewKey("a", api.Scope{}, "")
		if err != nil {
			t.Fatal(err)
		}
		return key.String()
	}
	write(line())
	loaded, reloads := make(chan int, 10), make(chan error, 10)
	f := &api.Files{
		Paths: []string{path},
		Load: func(contents [][]byte) error {
			keys, err := api.ParseKeys(string(contents[0]))
			if err == nil {
				loaded <- len(keys)
			}
			return err
		},
		OnReload: func(err error) { reloads <- err },
	}
	if err := f.Read(); err != nil || <-loaded != 1 {
		t.Fatal(err)
	}
	go f.Watch(t.Context(), 10*time.Millisecond)
	write(line() + "\n" + line())
	if n, err := <-loaded, <-reloads; n != 2 || err != nil {
		t.Error(n, err)
	}
	write("wrong")
	if err := <-reloads; err == nil {
		t.Error("a wrong file is applied")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := <-reloads; err == nil {
		t.Error("a missing file is applied")
	}
	write("")
	if n, err := <-loaded, <-reloads; n != 0 || err != nil {
		t.Error(n, err)
	}
}
