package events_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/events"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

func TestMarshal(t *testing.T) {
	at := time.Date(2026, 5, 21, 11, 0, 0, 0, time.UTC)
	got, err := events.Marshal(&payment.Payment{
		Gateway: payment.AMDigiPay, TransactionID: "INV-1", Status: payment.Paid,
		GatewayStatus: "Terbayar", GatewayReference: "6", Amount: 13000,
		CreatedAt: at.Add(-time.Minute), UpdatedAt: at, QRCode: "000201",
		Attempts: []payment.Attempt{{Code: "http:200"}},
	}, 2)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"specversion":"1.0","id":"amdigipay:INV-1:2:paid","source":"terbayar/amdigipay",` +
		`"type":"terbayar.payment.paid","subject":"INV-1","time":"2026-05-21T11:00:00Z","datacontenttype":"application/json",` +
		`"data":{"gateway":"amdigipay","transaction_id":"INV-1","status":"paid","gateway_status":"Terbayar",` +
		`"gateway_reference":"6","amount":13000,"created_at":"2026-05-21T10:59:00Z","updated_at":"2026-05-21T11:00:00Z","qr_code":"000201"}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

// write adds the events with the numbers first to last to a stream, in one round trip.
func write(t *testing.T, client redis.UniversalClient, stream string, first, last int) {
	t.Helper()
	pipe := client.Pipeline()
	for n := first; n <= last; n++ {
		pipe.XAdd(t.Context(), &redis.XAddArgs{
			Stream: stream, ID: fmt.Sprintf("%d-0", n), Values: []string{events.Field, event(n)},
		})
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func event(n int) string { return fmt.Sprintf(`{"id":"amdigipay:INV-1:%d"}`, n) }

var errEnough = errors.New("enough")

func TestEach(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		write(t, client, "s", 1, 1500) // more than a page
		client.XAdd(t.Context(), &redis.XAddArgs{Stream: "s", ID: "1500-1", Values: []string{"other", "program"}})
		read := func(from string) (first, last string, count int, err error) {
			err = events.NewStreams(client, []string{"s"}).Each(t.Context(), from, false, func(event []byte, cursor string) error {
				if count++; count == 1 {
					first = cursor + " " + string(event)
				}
				last = cursor + " " + string(event)
				return nil
			})
			return first, last, count, err
		}
		for _, c := range []struct {
			from         string
			first, count int
		}{
			{"", 1, 1500},
			{"0", 1, 1500},
			{"1400-0", 1400, 101},
			{"1399-1", 1400, 101},
			{"1400", 1400, 101},
			{"amdigipay:INV-1:1400", 1400, 101},
		} {
			first, last, count, err := read(c.from)
			if err != nil || first != fmt.Sprintf("%d-0 %s", c.first, event(c.first)) || last != "1500-0 "+event(1500) || count != c.count {
				t.Errorf("from %q: %s .. %s, %d, %v", c.from, first, last, count, err)
			}
		}
		if _, _, _, err := read("amdigipay:INV-9:1"); !errors.Is(err, events.ErrNoEvent) {
			t.Errorf("from an event that does not exist: %v", err)
		}
	})
}

// TestMerge: the entries of several streams come by their time, and from each event's cursor
// the same events follow again.
func TestMerge(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		write(t, client, "a", 1, 3)
		write(t, client, "b", 1500, 1501)
		write(t, client, "a", 1000, 2600)
		write(t, client, "c", 1600, 1600)
		streams := events.NewStreams(client, []string{"a", "b", "c"})
		read := func(from string) (all, cursors []string) {
			t.Helper()
			if err := streams.Each(t.Context(), from, false, func(event []byte, cursor string) error {
				all, cursors = append(all, string(event)), append(cursors, cursor)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			return all, cursors
		}
		var want []string
		for _, n := range []int{1, 2, 3} {
			want = append(want, event(n))
		}
		for n := 1000; n <= 2600; n++ {
			want = append(want, event(n))
			if n == 1500 || n == 1501 || n == 1600 {
				want = append(want, event(n))
			}
		}
		all, cursors := read("")
		if diff := cmp.Diff(want, all); diff != "" {
			t.Fatal(diff)
		}
		if cursors[0] != ",," || cursors[len(cursors)-1] != "2599-0,1501-0,1600-0" {
			t.Errorf("cursors %q ... %q", cursors[0], cursors[len(cursors)-1])
		}
		for _, i := range []int{0, 1, 503, 504, 505, len(all) - 1} {
			if again, _ := read(cursors[i]); !slices.Equal(again, all[i:]) {
				t.Errorf("%d events from the cursor of event %d, want %d", len(again), i, len(all)-i)
			}
		}
		for _, from := range []string{"1-0", "amdigipay:INV-1:1", "1-0,2-0", "x,,"} {
			if err := streams.Each(t.Context(), from, false, nil); !errors.Is(err, events.ErrPosition) {
				t.Errorf("from %s: %v", from, err)
			}
		}
	})
}

// TestFollow follows two streams that are empty at first.
func TestFollow(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := make(chan string)
		done := make(chan error, 1)
		go func() {
			n := 0
			done <- events.NewStreams(client, []string{"s", "s:1"}).Each(ctx, "", true, func(event []byte, _ string) error {
				got <- string(event)
				if n++; n == 4 {
					return errEnough
				}
				return nil
			})
		}()
		for n := 1; n <= 4; n++ {
			write(t, client, []string{"s", "s:1"}[n%2], n, n)
			select {
			case e := <-got:
				if e != event(n) {
					t.Errorf("%s, want %s", e, event(n))
				}
			case <-ctx.Done():
				t.Fatalf("event %d was not received", n)
			}
		}
		if err := <-done; !errors.Is(err, errEnough) {
			t.Error(err)
		}
	})
}

func TestWithCursor(t *testing.T) {
	if got, want := string(events.WithCursor([]byte(event(1)), "1-0,")), `{"cursor":"1-0,","id":"amdigipay:INV-1:1"}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
