package groupcommit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is a run function that waits for the release of each batch.
type recorder struct {
	mu      sync.Mutex
	batches [][]int
	release chan error
}

func (r *recorder) run(ctx context.Context, items []int) ([]string, error) {
	r.mu.Lock()
	r.batches = append(r.batches, items)
	r.mu.Unlock()
	replies := make([]string, len(items))
	for i, item := range items {
		replies[i] = fmt.Sprint("reply ", item)
	}
	select {
	case err := <-r.release:
		return replies, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *recorder) all() [][]int {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.batches)
}

// do calls Do in the background and sends its result.
func do(ctx context.Context, g *Group[int, string], items ...int) <-chan string {
	done := make(chan string, 1)
	go func() {
		replies, err := g.Do(ctx, items...)
		done <- fmt.Sprint(replies, " ", err)
	}()
	synctest.Wait()
	return done
}

func requireEqual[T any](t *testing.T, got, want T) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Fatalf("%s, want %s", g, w)
	}
}

// TestBatches: the first callers leave alone and at once. Those that come meanwhile leave
// together when one of the batches ends, in order, and each gets its own replies.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{release: make(chan error)}
		g := New(r.run)
		first, second := do(t.Context(), g, 1), do(t.Context(), g, 2)
		third, fourth := do(t.Context(), g, 3, 4), do(t.Context(), g, 5)
		requireEqual(t, r.all(), [][]int{{1}, {2}})
		r.release <- nil
		requireEqual(t, r.all(), [][]int{{1}, {2}, {3, 4, 5}})
		r.release <- nil
		r.release <- errors.New("failed")
		results := []string{<-first, <-second, <-third, <-fourth}
		// Which of the batches got the error is not determined.
		if results[2] == "[reply 3 reply 4] failed" {
			requireEqual(t, results, []string{"[reply 1] <nil>", "[reply 2] <nil>", "[reply 3 reply 4] failed", "[reply 5] failed"})
		} else {
			requireEqual(t, results[2:], []string{"[reply 3 reply 4] <nil>", "[reply 5] <nil>"})
		}
		// Nothing is under way any more, so the next one leaves at once.
		last := do(t.Context(), g, 6)
		requireEqual(t, len(r.all()), 4)
		r.release <- nil
		requireEqual(t, <-last, "[reply 6] <nil>")
	})
}

// TestSize: a batch has at most batchSize items, except those of one caller.
func TestSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{release: make(chan error, 100)}
		g := New(r.run)
		do(t.Context(), g, 0)
		do(t.Context(), g, 0)
		for _, n := range []int{batchSize + 1, batchSize - 1, 1, 1} {
			do(t.Context(), g, make([]int, n)...)
		}
		for range 5 {
			r.release <- nil
		}
		var sizes []int
		for _, batch := range r.all() {
			sizes = append(sizes, len(batch))
		}
		slices.Sort(sizes) // two batches are in flight: either may be recorded first
		requireEqual(t, sizes, []int{1, 1, 1, batchSize, batchSize + 1})
	})
}

// TestContext: a caller whose context ends does not wait any longer, and its batch goes on for
// the others, until the latest of their deadlines.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{release: make(chan error)}
		g := New(r.run)
		hung := []<-chan string{do(t.Context(), g, 1), do(t.Context(), g, 2)} // until longest
		begun := time.Now()
		short, cancelShort := context.WithTimeout(t.Context(), 35*time.Second)
		defer cancelShort()
		long, cancelLong := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancelLong()
		a, b := do(short, g, 3), do(long, g, 4)
		cancelled, cancel := context.WithCancel(t.Context())
		c := do(cancelled, g, 5)
		cancel()
		requireEqual(t, <-c, "[] context canceled")
		for _, h := range hung {
			requireEqual(t, <-h, "[] context deadline exceeded")
		}
		requireEqual(t, time.Since(begun), longest)
		requireEqual(t, r.all()[2], []int{3, 4, 5})
		requireEqual(t, <-a, "[] context deadline exceeded")
		requireEqual(t, time.Since(begun), 35*time.Second)
		r.release <- nil
		requireEqual(t, <-b, "[reply 4] <nil>")
	})
}
