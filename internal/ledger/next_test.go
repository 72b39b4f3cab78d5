package ledger_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// TestNextAttempt compares NextAttempt with what Redis has scheduled.
func TestNextAttempt(t *testing.T) {
	for _, c := range []struct {
		name      string
		status    payment.Status
		due       ledger.Due
		notBefore time.Duration
	}{
		{"looked up after a delay", payment.Verifying, ledger.In(5 * time.Second), 0},
		{"looked up at once", payment.Verifying, ledger.In(0), 0},
		{"looked up with the next poll", payment.OnProcessing, ledger.OnGrid(30 * time.Second), 0},
		{"sent again after a delay", payment.Queued, ledger.Due{}, 7 * time.Second},
		{"sent again at once", payment.Queued, ledger.Due{}, 0},
		{"in review, not looked up", payment.NeedsReview, ledger.Due{}, 0},
		{"final", payment.Paid, ledger.In(time.Second), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
				t.Parallel()
				l, clock := newLedgerWithPayment(t, client)
				r := claim(t, l, ledger.Claimed)
				r.NotBefore = c.notBefore
				if c.status.Final() {
					r.Status = c.status
					if next := r.NextAttempt(clock.now()); !next.IsZero() {
						t.Errorf("a final payment is next looked up at %s", next)
					}
					return
				}
				save(t, l, r, c.status, c.due)
				saved, err := l.Read(t.Context(), inv1)
				if err != nil {
					t.Fatal(err)
				}
				// A real Redis' clock goes on between the claim and the save, here by less
				// than a minute; this test's own clock does not.
				got, want := r.NextAttempt(clock.now()), saved.NextAt
				if off := want.Sub(got); got.IsZero() != want.IsZero() || off < 0 || off > time.Minute {
					t.Errorf("NextAttempt is %s, Redis has %s", got, want)
				}
				if redistest.SetTime(client, clock.now()) && !got.Equal(want) {
					t.Errorf("NextAttempt is %s, Redis has %s", got, want)
				}
			})
		})
	}
}
