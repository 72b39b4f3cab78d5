package events_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/events"
	"terbayar/internal/redistest"
)

// TestPage reads one stream and several in pages of every size, and continues from the position
// after every event: no event is skipped or repeated.
func TestPage(t *testing.T) {
	for _, names := range [][]string{{"a"}, {"a", "b", "c"}} {
		redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
			var want []string
			for n := 1; n <= 20; n++ {
				for i, name := range names {
					if i == n%2 || i == 2 && n > 15 || len(names) == 1 {
						write(t, client, name, n, n)
						want = append(want, event(n))
					}
				}
			}
			client.XAdd(t.Context(), &redis.XAddArgs{Stream: "a", ID: "100-0", Values: []string{"other", "program"}})
			streams := events.NewStreams(client, names)
			for limit := 1; limit <= len(want)+1; limit++ {
				var got []string
				at := events.Beginning
				for {
					page, next, atEnd, err := streams.Page(t.Context(), at, limit)
					if err != nil || len(page) > limit || !streams.Valid(next) {
						t.Fatal(len(page), next, err)
					}
					for _, p := range page {
						got = append(got, string(p.Event))
						rest, _, _, err := streams.Page(t.Context(), p.After, 1000)
						if err != nil || len(rest) != len(want)-len(got) {
							t.Fatalf("%d events after %s, want %d, %v", len(rest), p.After, len(want)-len(got), err)
						}
					}
					if at = next; atEnd {
						break
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatal(limit, diff)
				}
				if end, err := streams.End(t.Context()); err != nil || end != at {
					t.Errorf("the end is %s, %v, want %s", end, err, at)
				}
			}
			for _, wrong := range []string{"1", "1-0,", "-", "1-0,2-0", "x-0", "99999999999999999999-0", "1-0,1-0,1-0,1-0"} {
				if _, _, _, err := streams.Page(t.Context(), wrong, 1); !errors.Is(err, events.ErrPosition) || streams.Valid(wrong) {
					t.Errorf("%s: %v", wrong, err)
				}
			}
		})
	}
}

// TestPageOfNothing: the position after no event is one, and the next event follows it.
func TestPageOfNothing(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		streams := events.NewStreams(client, []string{"a", "b"})
		page, next, atEnd, err := streams.Page(t.Context(), events.Beginning, 10)
		if err != nil || len(page) != 0 || next != "0-0,0-0" || !atEnd {
			t.Fatal(page, next, atEnd, err)
		}
		if end, err := streams.End(t.Context()); err != nil || end != next {
			t.Error(end, err)
		}
		write(t, client, "b", 1, 1)
		if page, next, _, err := streams.Page(t.Context(), next, 10); err != nil || len(page) != 1 || next != "0-0,1-0" {
			t.Error(page, next, err)
		}
	})
}
