package gatewaysim

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// TestSpelling: a spelling replaces the fields in every answer about its payment, and in no
// other.
func TestSpelling(t *testing.T) {
	c := newCaller(t, func(c *Config) {
		c.Customers = []CustomerRule{{Customer: Customer{Behaviour: NeverPays}, Gateway: AM}, {Customer: Customer{Behaviour: Pays}}}
	})
	odd := map[string]jsontext.Value{"transaction_total": jsontext.Value(`13000.0`), "status": nil}
	c.sim.Spell(Spelling{Gateway: AM, Reference: "T-1", Fields: odd})
	c.sim.Spell(Spelling{Gateway: AM, Fields: map[string]jsontext.Value{"total_found": jsontext.Value(`"2.0"`)}})
	if r := c.do("POST", "/admin/spelling", `{"gateway":"paydia","reference":"P-1","fields":{"amount":[]}}`, nil); r.status != 204 {
		t.Error(r)
	}
	for _, row := range []struct {
		name, text string
		want       []string
		not        string
	}{
		{"create", c.create("T-1", nil).text, []string{`"transaction_total":13000.0`}, `"status":"`},
		{"create another", c.create("T-2", nil).text, []string{`"transaction_total":"13000"`, `"status":"On processing"`}, `13000.0`},
		{"list", c.list("").text, []string{`"transaction_total":13000.0`, `"transaction_total":"13000"`, `"total_found":"2.0"`, `"total_page":1`}, `"total_found":2`},
		{"pay", c.pay("P-1").text, []string{`"amount":[]`, `"2006300"`}, `"value"`},
		{"query", c.query("P-1").text, []string{`"amount":[]`, `"2006400"`}, `"value"`},
	} {
		for _, want := range row.want {
			if !strings.Contains(row.text, want) {
				t.Errorf("%s: no %s in %s", row.name, want, row.text)
			}
		}
		if strings.Contains(row.text, row.not) {
			t.Errorf("%s: %s in %s", row.name, row.not, row.text)
		}
	}
	c.sim.Spell(Spelling{Gateway: AM, Reference: "T-1"})
	if text := c.list("").text; strings.Contains(text, `13000.0`) {
		t.Errorf("still replaced: %s", text)
	}
	for _, wrong := range []string{`{"gateway":"x","fields":{}}`, `{"gateway":"amdigipay","fields":{"a":}}`} {
		if r := c.do("POST", "/admin/spelling", wrong, nil); r.status != 400 {
			t.Errorf("%s: %d", wrong, r.status)
		}
	}
}
