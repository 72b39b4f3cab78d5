package api

import (
	"context"
	"math"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
)

// RateLimit limits the requests of each API key name, at all replicas together. The keys of one
// name share it, so that it does not change while a key is replaced.
//
// It counts requests. A batch is one, whatever its length: a client sends a file and cannot know how
// to divide it, and a batch that is refused in the middle would have to be sent again.
type RateLimit struct {
	limiter *redis_rate.Limiter
	limit   redis_rate.Limit
}

// NewRateLimit returns a limit of n requests per duration. After a pause n requests may come at once.
func NewRateLimit(client redis.UniversalClient, n int, per time.Duration) *RateLimit {
	return &RateLimit{redis_rate.NewLimiter(client), redis_rate.Limit{Rate: n, Burst: n, Period: per}}
}

// limitTimeout is how long a request waits for its limit.
const limitTimeout = 500 * time.Millisecond

// allow reports whether a key may make a request now, or after how many seconds. While Redis does
// not answer every request is allowed: what it needs from Redis is answered 503 anyway.
func (s *Server) allow(ctx context.Context, name string) (retryAfter int, ok bool) {
	if s.o.RateLimit == nil || !s.o.Redis.State().Up {
		return 0, true
	}
	ctx, cancel := context.WithTimeout(ctx, limitTimeout)
	defer cancel()
	result, err := s.o.RateLimit.limiter.Allow(ctx, rateKey(name), s.o.RateLimit.limit)
	if err != nil || result.Allowed > 0 {
		return 0, true
	}
	return max(1, int(math.Ceil(result.RetryAfter.Seconds()))), false
}

// rateKey returns the key of the limit of an API key name; redis_rate prepends "rate:". It has the
// ledger's hash tag: in a Redis Cluster the limit is unavailable only when the ledger is.
func rateKey(name string) string { return "{" + ledger.DefaultStream + "}:api:" + name }
