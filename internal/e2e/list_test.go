package e2e_test

import (
	"strings"
	"testing"
)

// TestListCommand lists payments as a table and as JSON.
func TestListCommand(t *testing.T) {
	slow(t)
	e := newEnv(t)
	all := samples(6, "PAY")
	e.create(all, "enqueued")
	r := e.enqueue("", "list", "--status", "queued", "--limit", "4")
	if r.Code != 0 || strings.Count(r.Stdout, "\n") != 5 || !strings.Contains(r.Stderr, "--limit 0 lists all") {
		t.Errorf("%+v", r)
	}
	e.Worker()
	e.finish()
	r = e.enqueue("", "list", "--status", "paid", "--since", "1h", "--json")
	if r.Code != 0 || strings.Count(r.Stdout, `"status":"paid"`) != 6 || r.Stderr != "" {
		t.Errorf("%+v", r)
	}
	for _, c := range []struct{ args, want string }{
		{"--status=paidd", "queued submitting verifying"}, {"--gateway=x", "amdigipay or paydia"}, {"--since=x", "RFC 3339"}, {"--limit=-1", "--limit"},
	} {
		if r := e.enqueue("", "list", c.args); r.Code != 2 || !strings.Contains(r.Stderr, c.want) || strings.Count(r.Stderr, "\n") != 1 {
			t.Errorf("%s: %+v", c.args, r)
		}
	}
}
