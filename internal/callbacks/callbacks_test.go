package callbacks

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"terbayar/internal/payment"
)

const form = "application/x-www-form-urlencoded"

func TestParse(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", maxAMID)
	multipart := "--b\r\nContent-Disposition: form-data; name=\"transaction_id\"\r\n\r\nINV 1\r\n--b--\r\n"
	for _, c := range []struct {
		gateway           payment.Gateway
		contentType, body string
		id                string
		outcome           Outcome
	}{
		{payment.AMDigiPay, "application/json", `{"transaction_id":"INV-1","status_id":3,"transaction_total":"13000","signature":"ab","payment":"QRIS"}`, "INV-1", ""},
		{payment.AMDigiPay, "", `{"transaction_id":"INV-1","data":{"x":[1]},"more":null}`, "INV-1", ""},
		{payment.AMDigiPay, "application/json", ` {"transaction_id":123}` + "\n", "123", ""},
		{payment.AMDigiPay, form, "transaction_id=INV%2F1+%C3%A9&status_id=3&transaction_total=13000", "INV/1 é", ""},
		{payment.AMDigiPay, "text/html", "status_id=3&transaction_id=INV-1", "INV-1", ""},
		{payment.AMDigiPay, "multipart/form-data; boundary=b", multipart, "INV 1", ""},
		{payment.AMDigiPay, form, "transaction_id=" + long, long, ""},
		{payment.AMDigiPay, form, "transaction_id=" + long + "x", "", Malformed},

		{payment.AMDigiPay, "application/json", ``, "", Test},
		{payment.AMDigiPay, "application/json", `{}`, "", Test},
		{payment.AMDigiPay, "application/json", `[]`, "", Test},
		{payment.AMDigiPay, "application/json", `{"transaction_id":"TEST-1","signature":"testing"}`, "", Test},
		{payment.AMDigiPay, form, `transaction_id=TEST-1&signature=testing`, "", Test},
		{payment.AMDigiPay, "application/json", `{"transaction_id":"TEST-1","signature":"23f7"}`, "TEST-1", ""}, // an order system's own id
		{payment.AMDigiPay, "application/json", `{"reff_id":"D-1","status_id":3,"receipt":"x"}`, "", Other},

		{payment.AMDigiPay, "application/json", `{"transaction_id":""}`, "", Malformed},
		{payment.AMDigiPay, "application/json", `{"transaction_id":{"a":1}, "status_id":3}`, "", Malformed},
		{payment.AMDigiPay, "application/json", `{"transaction_id":"a\u0000b"}`, "", Malformed},
		{payment.AMDigiPay, "application/json", `{"transaction_id":"a\nb"}`, "", Malformed},
		{payment.AMDigiPay, "application/json", `{"transaction_id":"INV-1"`, "", Malformed},
		{payment.AMDigiPay, "application/json", `{"transaction_id":"INV-1"}{}`, "", Malformed},
		{payment.AMDigiPay, form, "transaction_id=%zz", "", Malformed},
		{payment.AMDigiPay, form, "transaction_id=%ff", "", Malformed},
		{payment.AMDigiPay, "multipart/form-data; boundary=b", "--b\r\nnothing", "", Malformed},
		{payment.AMDigiPay, "multipart/form-data", multipart, "", Malformed},

		{payment.Paydia, "application/json", `{"originalPartnerReferenceNo":"ORD-1","originalReferenceNo":"2","merchantId":"3","latestTransactionStatus":"00"}`, "ORD-1", ""},
		{payment.Paydia, "application/json", `{"originalpartnerReferenceNo":"ORD-1"}`, "ORD-1", ""},
		{payment.Paydia, "application/json", `{"originalPartnerReferenceNo":1}`, "", Malformed},
		{payment.Paydia, "application/json", `{"transaction_id":"ORD-1"}`, "", Malformed},
		{payment.Paydia, "application/json", `{"originalPartnerReferenceNo":"` + strings.Repeat("x", maxPaydiaID+1) + `"}`, "", Malformed},
		{payment.Paydia, "application/json", ``, "", Malformed},
		{payment.Paydia, form, `originalPartnerReferenceNo=ORD-1`, "", Malformed},
	} {
		if id, outcome := parse(c.gateway, c.contentType, []byte(c.body)); id != c.id || outcome != c.outcome {
			t.Errorf("%s %s %.100s: %q, %q; want %q, %q", c.gateway, c.contentType, c.body, id, outcome, c.id, c.outcome)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("application/json", []byte(`{"transaction_id":"INV-1"}`))
	f.Add("multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; name=\"transaction_id\"\r\n\r\nINV 1\r\n--b--\r\n"))
	f.Add(form, []byte(`transaction_id=1`))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		for _, g := range payment.Gateways() {
			if id, outcome := parse(g, contentType, body); (outcome == "") != (id != "") || id != "" && !isID(id, maxAMID) {
				t.Errorf("%q, %q", id, outcome)
			}
		}
	})
}

func TestClientAddr(t *testing.T) {
	t.Parallel()
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		remote    string
		forwarded []string
		want      string
	}{
		{"203.0.113.7:1234", nil, "203.0.113.7"},
		{"203.0.113.7:1234", []string{"198.51.100.1"}, "203.0.113.7"}, // not from a trusted proxy
		{"10.0.0.1:1234", nil, "10.0.0.1"},
		{"10.0.0.1:1234", []string{"198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:1234", []string{"1.2.3.4, 198.51.100.1"}, "198.51.100.1"}, // what the client itself has written is ignored
		{"10.0.0.1:1234", []string{"1.2.3.4", "198.51.100.1, 10.9.9.9"}, "198.51.100.1"},
		{"10.0.0.1:1234", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"10.0.0.1:1234", []string{"1.2.3.4, unknown"}, "10.0.0.1"},
		{"10.0.0.1:1234", []string{""}, "10.0.0.1"},
		{"[fd00::1]:1234", []string{"[2001:db8::1]:99"}, "2001:db8::1"},
		{"[::ffff:10.0.0.1]:1234", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
	} {
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		if got := clientAddr(r, trusted); got.String() != c.want {
			t.Errorf("%s %q: %s, want %s", c.remote, c.forwarded, got, c.want)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLimits(1, 2, 100)
	count := func(addr string, n int) (allowed int) {
		for range n {
			if l.allow(netip.MustParseAddr(addr), now) {
				allowed++
			}
		}
		return allowed
	}
	if n := count("192.0.2.1", 5); n != 2 {
		t.Errorf("%d at once", n)
	}
	if n := count("2001:db8::1", 5) + count("2001:db8::2", 5); n != 2 {
		t.Errorf("%d of one IPv6 network", n)
	}
	if n := count("2001:db8:0:1::1", 1); n != 1 {
		t.Error("another IPv6 network has the same limit")
	}
	now = now.Add(time.Second)
	if n := count("192.0.2.1", 5); n != 1 {
		t.Errorf("%d after a second", n)
	}
	for i := range 1000 {
		count(fmt.Sprintf("198.51.%d.%d", i/250, i%250), 1)
		if i%50 == 0 {
			count("192.0.2.1", 1) // recently used
		}
	}
	if len(l.byAddr) != 100 || l.recent.Len() != 100 {
		t.Errorf("%d addresses, %d in the list", len(l.byAddr), l.recent.Len())
	}
	if n := count("192.0.2.1", 1); n != 0 {
		t.Error("an address that is in use was forgotten")
	}
}
