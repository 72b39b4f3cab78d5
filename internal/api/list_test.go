package api_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/api"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// pages reads all pages of a list and returns the ids.
func (e *env) pages(query string) (ids []string) {
	e.t.Helper()
	for after := ""; ; {
		path := "/v1/payments?" + query
		if after != "" {
			path += "&after=" + url.QueryEscape(after)
		}
		a := e.do("GET", path, "")
		if a.StatusCode != 200 {
			e.t.Fatalf("%s: %d %s", path, a.StatusCode, a.body)
		}
		body := a.json(e.t)
		list, _ := body["payments"].([]any)
		for _, p := range list {
			object, _ := p.(map[string]any)
			ids = append(ids, fmt.Sprintf("%s:%s %s", object["gateway"], object["transaction_id"], object["status"]))
		}
		if after, _ = body["next"].(string); after == "" {
			return ids
		}
	}
}

// TestListPayments: lists by status, on pages, within the scope of the key, and every wrong parameter.
func TestListPayments(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		var keys []api.Key
		var all, am, reader string
		e := newEnv(t, client, func(e *env) {
			all = e.addKey(&keys, "all", api.Scope{}, "")
			am = e.addKey(&keys, "am", api.Scope{Gateway: payment.AMDigiPay}, "")
			reader = e.addKey(&keys, "reader", api.Scope{Prefix: "B-", ReadOnly: true}, "")
			e.keys = api.NewKeys(keys)
		})
		e.key = all
		for i := range 3 {
			e.Create(testenv.AMOrder(fmt.Sprint("A-", i)), testenv.AMOrder(fmt.Sprint("B-", i)), testenv.PaydiaOrder(fmt.Sprint("B-", i)))
		}
		e.Submit(payment.Key{Gateway: payment.AMDigiPay, TransactionID: "A-0"})
		e.Submit(payment.Key{Gateway: payment.Paydia, TransactionID: "B-0"})
		e.do("DELETE", "/v1/payments/amdigipay/B-1", "")
		for _, c := range []struct {
			key, query string
			want       []string
		}{
			{all, "status=on_processing", []string{"amdigipay:A-0 on_processing"}},
			{all, "status=paid&since=2020-01-01T00:00:00Z", []string{"paydia:B-0 paid"}},
			{all, "status=cancelled&limit=1", []string{"amdigipay:B-1 cancelled"}},
			{all, "status=needs_review", nil},
			{all, "status=paid&gateway=amdigipay", nil},
			{am, "status=paid", nil},
			{reader, "status=on_processing", nil},
			{reader, "status=paid", []string{"paydia:B-0 paid"}},
		} {
			e.key = c.key
			if diff := cmp.Diff(c.want, e.pages(c.query)); diff != "" {
				t.Errorf("%s: want -, got +\n%s", c.query, diff)
			}
		}
		for key, want := range map[string]int{all: 9, am: 6, reader: 6} {
			e.key = key
			if got := e.pages("limit=2"); len(got) != want {
				t.Errorf("%v", got)
			}
		}
		e.key = all
		a := e.do("GET", "/v1/payments?status=SECRET&gateway=SECRET&since=SECRET&limit=0", "")
		for _, want := range []string{`"status"`, `"gateway"`, `"since"`, `"limit"`, "queued submitting verifying on_processing paid"} {
			if a.StatusCode != 400 || !strings.Contains(a.body, want) || strings.Contains(a.body, "SECRET") {
				t.Errorf("%s: %d %s", want, a.StatusCode, a.body)
			}
		}
		for _, query := range []string{"after=x", "page=2", "since=-1h", "limit=1001", "status=paid&status=failed", "id=A-0", "id="} {
			if a := e.do("GET", "/v1/payments?"+query, ""); a.StatusCode != 400 {
				t.Errorf("%s: %d %s", query, a.StatusCode, a.body)
			}
		}
	})
}
