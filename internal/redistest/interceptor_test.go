package redistest

import (
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestInterceptor: the script is not in the cache of the server, so its first call fails
// with NOSCRIPT. The function is called at the second one.
func TestInterceptor(t *testing.T) {
	t.Parallel()
	server := Server(t)
	direct := server.Client(t)
	script := redis.NewScript(`return redis.call("set", KEYS[1], ARGV[1])`)
	match := func(command []string) bool { return slices.Contains(command, "k") }
	for _, beforeAnswer := range []bool{false, true} {
		if err := direct.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if err := direct.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		existed := int64(-1)
		between := NewInterceptor(t, server.Addr, beforeAnswer, match, func() {
			existed = direct.Exists(t.Context(), "k").Val()
		})
		client := redis.NewClient(&redis.Options{Addr: between.Addr, MaxRetries: -1})
		if err := client.Set(t.Context(), "another", "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		err := script.Run(t.Context(), client, []string{"k"}, "v\r\n").Err()
		select {
		case <-between.Done:
		case <-time.After(awaitTimeout):
			t.Fatal("the function was not called")
		}
		if (err == nil) != beforeAnswer || (existed == 1) != beforeAnswer {
			t.Errorf("before the answer %t: error %v, the key existed: %d", beforeAnswer, err, existed)
		}
		// Once only.
		if err := script.Run(t.Context(), client, []string{"k"}, "w").Err(); err != nil {
			t.Error(err)
		}
		client.Close()
	}
}
