package tasks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/redistest"
)

// TestAcknowledgements: each caller gets the reply or the error of its own script.
func TestAcknowledgements(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		echo := redis.NewScript(`if ARGV[1] == '13' then return redis.error_reply('NOT FOUND') end return KEYS[1] .. ARGV[1]`)
		if err := echo.Load(t.Context(), client).Err(); err != nil {
			t.Fatal(err)
		}
		done := newAcknowledgements(client)
		var callers sync.WaitGroup
		for i := range 100 {
			callers.Go(func() {
				sha := echo.Hash()
				if i == 14 {
					sha = "0000000000000000000000000000000000000000"
				}
				got, err := done.EvalSha(t.Context(), sha, []string{"k"}, i).Text()
				switch {
				case i == 13 && redis.HasErrorPrefix(err, "NOT FOUND"), i == 14 && redis.HasErrorPrefix(err, "NOSCRIPT"):
				case err != nil || got != fmt.Sprint("k", i):
					t.Errorf("%d: %q, %v", i, got, err)
				}
			})
		}
		callers.Wait()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := done.EvalSha(ended, echo.Hash(), []string{"k"}, 1).Err(); !errors.Is(err, context.Canceled) && err != nil {
			t.Errorf("with a cancelled context: %v", err)
		}
	})
}
