package webhooks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	secrets := write(t, "secrets", newSecret("b")+"\n"+newSecret("c")+"\n")
	all, err := Load(write(t, "webhooks.yaml", `
endpoints:
  - name: shop
    url: https://shop.example/hook?token=t
    secrets: [`+newSecret("a")+`]
    gateways: [paydia]
    types: [paid, terbayar.payment.expired]
    prefix: INV-
  - name: books
    url: http://10.0.0.1:8080/
    secrets_file: `+secrets+`
    disabled: true
`))
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	shop, books := all[0], all[1]
	if shop.Name != "shop" || shop.URL.String() != "https://shop.example/hook?token=t" || len(shop.signers) != 1 || shop.Disabled {
		t.Errorf("%+v", shop)
	}
	if books.Name != "books" || len(books.signers) != 2 || !books.Disabled {
		t.Errorf("%+v", books)
	}
	for _, row := range []struct {
		source, kind, subject string
		shop                  bool
	}{
		{"terbayar/paydia", "paid", "INV-1", true},
		{"terbayar/paydia", "expired", "INV-1", true},
		{"terbayar/paydia", "failed", "INV-1", false},
		{"terbayar/amdigipay", "paid", "INV-1", false},
		{"terbayar/paydia", "paid", "ORD-1", false},
	} {
		e := event{Source: row.source, Type: "terbayar.payment." + row.kind, Subject: row.subject}
		if shop.wants(e) != row.shop || !books.wants(e) {
			t.Errorf("%+v: shop %t, books %t", row, shop.wants(e), books.wants(e))
		}
	}
}

// TestLoadErrors: each error names the file, the line and the field, and shows no secret.
func TestLoadErrors(t *testing.T) {
	good := "secrets: [" + newSecret("a") + "]"
	for _, row := range []struct{ yaml, want string }{
		{"", ": is empty"},
		{"endpoints:", ":1: endpoints: must be a list"},
		{"endpoints: []", ":1: endpoints: must be a list"},
		{"endpoints: {}", ":1: endpoints: must be a list"},
		{"endpoint: []", ":1: unknown field (want endpoints)"},
		{"endpoints:\n - hook", ":2: endpoints[0]: must be a mapping"},
		{"endpoints:\n - {name: shop, link: x}", ":2: endpoints[0]: unknown field (want name, url"},
		{"endpoints:\n - {name: shop, name: x}", ":2: endpoints[0]: name is set twice"},
		{"endpoints:\n - {name: Shop, url: 'https://x', " + good + "}", ":2: endpoints[0].name: must be 1 to 40 of a-z"},
		{"endpoints:\n - {url: 'https://x', " + good + "}", ":2: endpoints[0].name: must be"},
		{"endpoints:\n - name: a\n   url: ftp://x\n   " + good, ":3: endpoints[0].url: must be a URL"},
		{"endpoints:\n - name: a\n   url: https://user:hunter2@x\n   " + good, ":3: endpoints[0].url: must not have a user"},
		{"endpoints:\n - name: a\n   url: 'https://x/%zz'\n   " + good, ":3: endpoints[0].url: is not a URL"},
		{"endpoints:\n - name: a\n   " + good, ":2: endpoints[0].url: must be a URL"},
		{"endpoints:\n - name: a\n   url: https://x", ":2: endpoints[0]: needs either secrets or secrets_file"},
		{"endpoints:\n - name: a\n   url: https://x\n   " + good + "\n   secrets_file: x", ":2: endpoints[0]: needs either secrets or secrets_file"},
		{"endpoints:\n - name: a\n   url: https://x\n   secrets_file: none", ":4: endpoints[0].secrets_file: open "},
		{"endpoints:\n - name: a\n   url: https://x\n   secrets: []", ":4: endpoints[0].secrets: want 1 to 3 secrets, got 0"},
		{"endpoints:\n - name: a\n   url: https://x\n   secrets: hunter2", ":4: endpoints[0].secrets: must be a list of strings"},
		{"endpoints:\n - name: a\n   url: https://x\n   secrets: [hunter2]", ":4: endpoints[0].secrets: secret 1 of 1 does not begin with whsec_"},
		{"endpoints:\n - name: a\n   url: https://x\n   " + good + "\n   gateways: [paypal]", `:5: endpoints[0].gateways: unknown gateway "paypal"`},
		{"endpoints:\n - name: a\n   url: https://x\n   " + good + "\n   types: [queued]", `:5: endpoints[0].types: there are no events of type "queued"`},
		{"endpoints:\n - name: a\n   url: https://x\n   " + good + "\n   disabled: 7", `:5: endpoints[0].disabled: has the wrong type`},
		{"endpoints:\n - {name: a, url: 'https://x', " + good + "}\n - {name: a, url: 'https://y', " + good + "}", `:3: endpoints[1].name: "a" is used twice`},
		{"endpoints: [}", "did not find expected"},
		{"endpoints:\n - {name: a, url: 'https://x', " + good + "}\n---\na: b", "want one YAML document"},
	} {
		path := write(t, "webhooks.yaml", row.yaml)
		_, err := Load(path)
		if err == nil || !strings.HasPrefix(err.Error(), path) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: %v, want %s", row.yaml, err, row.want)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), newSecret("a"))) {
			t.Errorf("%q: the error shows a secret: %v", row.yaml, err)
		}
	}
	if _, err := Load("/no/such/file"); err == nil || !strings.Contains(err.Error(), "/no/such/file") {
		t.Errorf("no file: %v", err)
	}
}

// TestSecrets: what is not a Standard Webhooks secret is refused, and not shown.
func TestSecrets(t *testing.T) {
	a, b := newSecret("a"), newSecret("b")
	for _, row := range []struct {
		text  string
		count int // 0: refused
	}{
		{a, 1},
		{a + "," + b, 2},
		{a + "\n" + b + "\n", 2},
		{a + "," + b + "," + newSecret("c"), 3},
		{a + "," + b + "," + newSecret("c") + "," + newSecret("d"), 0},
		{"", 0},
		{"whsec_", 0},
		{"whsec_YWJj", 0}, // 3 bytes
		{"whsec_" + strings.Repeat("YWJj", 30), 0},
		{strings.TrimPrefix(a, "whsec_"), 0},
		{"WEBHOOK_SECRET=" + a, 0},
		{"v1 " + a, 0},
		{"Bearer " + a, 0},
		{"whsec_" + a, 0},
		{a + "x", 0},
		{"whsec_" + strings.Repeat("_-_-", 10), 0}, // base64url
	} {
		e := &Endpoint{}
		err := e.setSecrets(secret.NewText(row.text))
		if (err == nil) != (row.count > 0) || err == nil && len(e.signers) != row.count {
			t.Errorf("%q: %d secrets, %v", row.text, len(e.signers), err)
		}
		if err != nil && row.text != "" && strings.Contains(err.Error(), strings.TrimPrefix(a, "whsec_")) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

func TestParseAllow(t *testing.T) {
	for _, row := range []struct {
		text  string
		count int // -1: an error
	}{
		{"", 0},
		{"127.0.0.1", 1},
		{"10.0.0.0/8, fd00::/8", 2},
		{"10.1.2.3/8", 1},
		{"localhost", -1},
		{"10.0.0.0/33", -1},
		{"fe80::1%eth0", -1},
	} {
		prefixes, err := ParseAllow(row.text)
		if (err != nil) != (row.count < 0) || err == nil && len(prefixes) != row.count {
			t.Errorf("%q: %v, %v", row.text, prefixes, err)
		}
	}
}

func TestSchedule(t *testing.T) {
	var s Schedule
	if err := s.UnmarshalText([]byte("5s, 30s,2m")); err != nil || s.Tries() != 4 || s.Total() != 155*time.Second {
		t.Errorf("%v, %v", s, err)
	}
	for _, row := range []struct {
		failed int
		asked  time.Duration
		random float64
		want   time.Duration
		again  bool
	}{
		{1, 0, 0, 5 * time.Second, true},
		{1, 0, 1, 5500 * time.Millisecond, true},
		{3, 0, 0.5, 126 * time.Second, true},
		{1, time.Minute, 1, time.Minute, true},
		{2, time.Second, 0, 30 * time.Second, true},
		{4, 0, 0, 0, false},
		{4, time.Minute, 0, 0, false},
	} {
		if got, again := s.next(row.failed, row.asked, row.random); got != row.want || again != row.again {
			t.Errorf("%+v: %s, %t", row, got, again)
		}
	}
	for _, text := range []string{"", "5", "5s,,1m", "0s", "-1s", "200h", strings.Repeat("1s,", 50) + "1s"} {
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	if got := len(eventStatuses()); got != len(payment.Statuses())-3 {
		t.Errorf("%d statuses have events", got)
	}
}
