package api_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/api"
	"terbayar/internal/redistest"
)

// TestRateLimit: the keys of a name share a limit at all replicas, those of another name have their
// own, and a batch is one request.
func TestRateLimit(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		const limit = 5
		var keys []api.Key
		var second, other string
		limited := func(e *env) { e.options.RateLimit = api.NewRateLimit(client, limit, time.Hour) }
		one := newEnv(t, client, limited, func(e *env) {
			e.key = e.addKey(&keys, "shop", api.Scope{}, "")
			second = e.addKey(&keys, "shop", api.Scope{}, "")
			other = e.addKey(&keys, "other", api.Scope{}, "")
			e.keys = api.NewKeys(keys)
			e.metrics.Keys([]string{"shop", "other"})
		})
		two := newEnv(t, client, limited, func(e *env) { e.keys, e.key = one.keys, second })

		lines := ""
		for i := range 3 * limit {
			lines += paydia(fmt.Sprint("ORD-", i)) + "\n"
		}
		if a := one.do("POST", "/v1/payments/batch", lines); strings.Count(a.body, `"enqueued"`) != 3*limit {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
		for i := range limit - 1 {
			e := []*env{one, two}[i%2]
			if a := e.do("GET", "/v1/payments/paydia/ORD-1", ""); a.StatusCode != 200 {
				t.Errorf("request %d: %d", i, a.StatusCode)
			}
		}
		for _, e := range []*env{one, two} {
			for _, path := range []string{"/v1/payments", "/v1/payments/batch"} {
				if a := e.do("POST", path, paydia("NEW")); a.StatusCode != 429 || a.Header.Get("Retry-After") != fmt.Sprint(3600/limit) {
					t.Errorf("%s: %d %v", path, a.StatusCode, a.Header)
				}
			}
		}
		two.key = other
		if a := two.do("GET", "/v1/payments/paydia/NEW", ""); a.StatusCode != 404 {
			t.Errorf("the limit of another key, or something was done: %d", a.StatusCode)
		}
		if text := one.do("GET", "/metrics", "").body; !strings.Contains(text, `terbayar_api_rate_limited_total{name="shop"} 2`) {
			t.Error("the metric does not count refused requests")
		}

		// Redis is down: the answer is that, not the limit.
		one.state.set(false, "connection refused")
		if a := one.do("POST", "/v1/payments", paydia("NEW")); a.StatusCode != 503 {
			t.Errorf("Redis is down: %d", a.StatusCode)
		}
	})
}

// TestRateLimitUnavailable: a limit that cannot be read refuses nothing.
func TestRateLimitUnavailable(t *testing.T) {
	broken := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer broken.Close()
	e := newEnv(t, redistest.Mini(t), func(e *env) { e.options.RateLimit = api.NewRateLimit(broken, 1, time.Hour) })
	for i := range 3 {
		if a := e.do("POST", "/v1/payments", paydia(fmt.Sprint("ORD-", i))); a.StatusCode != 202 {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}
}
