package events_test

import (
	"context"
	"errors"
	"fmt"
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

// write adds the events with the numbers first to last, in one round trip.
func write(t *testing.T, client redis.UniversalClient, first, last int) {
	t.Helper()
	pipe := client.Pipeline()
	for n := first; n <= last; n++ {
		pipe.XAdd(t.Context(), &redis.XAddArgs{
			Stream: "s", ID: fmt.Sprintf("%d-0", n), Values: []string{events.Field, event(n)},
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
		write(t, client, 1, 1500) // more than a page
		read := func(from string) (first, last string, count int, err error) {
			err = events.NewStream(client, "s").Each(t.Context(), from, false, func(event []byte) error {
				if count++; count == 1 {
					first = string(event)
				}
				last = string(event)
				return nil
			})
			return first, last, count, err
		}
		for _, c := range []struct {
			from         string
			first, count int
		}{
			{"", 1, 1500},
			{"1400-0", 1400, 101},
			{"1400", 1400, 101},
			{"amdigipay:INV-1:1400", 1400, 101},
		} {
			first, last, count, err := read(c.from)
			if err != nil || first != event(c.first) || last != event(1500) || count != c.count {
				t.Errorf("from %q: %s .. %s, %d, %v", c.from, first, last, count, err)
			}
		}
		if _, _, _, err := read("amdigipay:INV-9:1"); !errors.Is(err, events.ErrNoEvent) {
			t.Errorf("from an event that does not exist: %v", err)
		}
	})
}

// TestFollow follows a stream that is empty at first.
func TestFollow(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := make(chan string)
		done := make(chan error, 1)
		go func() {
			n := 0
			done <- events.NewStream(client, "s").Each(ctx, "", true, func(event []byte) error {
				got <- string(event)
				if n++; n == 3 {
					return errEnough
				}
				return nil
			})
		}()
		for n := 1; n <= 3; n++ {
			write(t, client, n, n)
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
