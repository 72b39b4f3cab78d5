package admission_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/admission"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/testenv"
)

// TestPauseByRefusals checks what happens when a gateway refuses everything, as it does when
// a setting of ours is wrong: at most two payments are rejected, the others go to review,
// those after the tenth are not sent, polls go on. Once the setting is right, all payments
// that waited are accepted.
func TestPauseByRefusals(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		gateway  payment.Gateway
		fault    gatewaysim.FaultRule
		rejected int
		reviewed int
	}{
		{payment.AMDigiPay, gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse, Operation: gatewaysim.AMCreate}, 2, 8},
		{payment.Paydia, gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse, Operation: gatewaysim.PaydiaPayment, Code: "4046308"}, 2, 8},
		{payment.Paydia, gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse, Operation: gatewaysim.PaydiaPayment, Code: "4016300"}, 0, 10},
	} {
		t.Run(string(row.gateway)+row.fault.Code, func(t *testing.T) {
			t.Parallel()
			q := newQueue(t, admission.Options{Failures: 5, Pause: time.Second})
			order := map[payment.Gateway]func(string) []byte{payment.AMDigiPay: testenv.AMOrder, payment.Paydia: testenv.PaydiaOrder}[row.gateway]
			create := func(id string) payment.Key {
				q.Create(order(id))
				return payment.Key{Gateway: row.gateway, TransactionID: id}
			}
			first := create("FIRST")
			q.Submit(first)
			q.Sim.Inject(row.fault)
			var keys []payment.Key
			for i := range 15 {
				keys = append(keys, create(fmt.Sprint("ORD-", i)))
			}
			count := func() map[payment.Status]int {
				counts := map[payment.Status]int{}
				for _, key := range keys {
					counts[q.Read(key).Status]++
				}
				return counts
			}
			requests := q.Sim.Requests(row.fault.Operation)
			for _, key := range keys {
				next := q.Submit(key)
				for strings.Contains(next.Reason, "login") { // the client waits longer before each login when tokens are refused
					q.Advance(next.In)
					next = q.Submit(key)
				}
				if r := q.Read(key); r.Status == payment.Queued && (next.In <= 0 || !strings.Contains(next.Reason, "paused") || len(r.Attempts) > 0) {
					t.Errorf("%s: %+v", key, next)
				}
			}
			want := map[payment.Status]int{payment.Rejected: row.rejected, payment.NeedsReview: row.reviewed, payment.Queued: 5}
			if row.rejected == 0 {
				delete(want, payment.Rejected)
			}
			if diff := cmp.Diff(want, count()); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			if n := q.Sim.Requests(row.fault.Operation) - requests; n != 10 {
				t.Errorf("%d requests, want 10", n)
			}
			if r := q.Read(keys[9]); r.Reason == "" {
				t.Error("review without a reason")
			}
			q.Advance(time.Hour)
			q.Poll(row.gateway)
			if s := q.Read(first).Status; row.gateway == payment.AMDigiPay && s != payment.OnProcessing {
				t.Errorf("the first payment: %s", s)
			}

			// A probe that is refused with the same message goes to review, and the pause goes on.
			q.until("a probe was sent", func() bool {
				q.Advance(time.Minute)
				q.Submit(keys[10])
				return q.Sim.Requests(row.fault.Operation)-requests > 10
			})
			if s := q.Read(keys[10]).Status; s != payment.NeedsReview {
				t.Errorf("the probe: %s", s)
			}

			q.Sim.ClearFaults()
			for _, key := range keys[11:] {
				q.until("the other payments are sent", func() bool {
					q.Advance(time.Minute)
					q.Submit(key)
					return q.Read(key).Status != payment.Queued
				})
			}
			delete(want, payment.Queued)
			want[payment.NeedsReview]++
			want[map[payment.Gateway]payment.Status{payment.AMDigiPay: payment.OnProcessing, payment.Paydia: payment.Paid}[row.gateway]] = 4
			if diff := cmp.Diff(want, count()); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}

			// The successes ended the streak: the next refusal is the first of another one.
			q.Sim.Inject(row.fault)
			last := create("LAST")
			q.Submit(last)
			if s := q.Read(last).Status; row.rejected > 0 && s != payment.Rejected {
				t.Errorf("the first refusal of another streak: %s", s)
			}
		})
	}
}
