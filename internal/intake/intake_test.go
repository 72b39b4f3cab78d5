package intake_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/intake"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/rig"
)

func results(answers []intake.Answer) []string {
	var all []string
	for _, a := range answers {
		all = append(all, fmt.Sprint(a.Line, " ", a.TransactionID, " ", a.Result))
	}
	return all
}

// TestCreateInOrder: of two lines with one id the first counts, and a line that
// is wrong keeps nobody else back.
func TestCreateInOrder(t *testing.T) {
	r := rig.New(t, redistest.Mini(t))
	newerToken := []byte(`{"gateway":"paydia","customer_token":"newer","payment":` + string(rig.PaydiaOrder("ORD-1"))[len(`{"gateway":"paydia","customer_token":"eyJ.customer.ORD-1","payment":`):])
	otherAmount := []byte(`{"gateway":"paydia","customer_token":"x","payment":{"partnerReferenceNo":"ORD-1","merchantId":"240327001000000","amount":{"value":"1.00","currency":"IDR"},"title":"x"}}`)
	lines := []intake.Line{
		{Number: 1, Text: rig.PaydiaOrder("ORD-1")},
		{Number: 2, Text: []byte(`{"gateway":`)},
		{Number: 3, Text: otherAmount},
		{Number: 4, Text: newerToken},
		{Number: 6, Err: intake.ErrTooLong},
		{Number: 7, Text: rig.AMOrder("INV-1")},
	}
	want := []string{"1 ORD-1 enqueued", "2  invalid", "3 ORD-1 conflict", "4 ORD-1 duplicate", "6  invalid", "7 INV-1 enqueued"}
	if diff := cmp.Diff(want, results(r.Intake.Create(t.Context(), lines))); diff != "" {
		t.Error(diff)
	}
}

// TestTaskIsMadeUpFor: an earlier run wrote the payment down and was cut off
// before its task was queued. Handing it in again helps, once it is not under way.
func TestTaskIsMadeUpFor(t *testing.T) {
	r := rig.New(t, redistest.Mini(t))
	enqueue := r.Intake.Enqueue
	r.Intake.Enqueue = func(context.Context, payment.Key, payment.Rupiah) error { return errors.New("connection refused") }
	line := []intake.Line{{Number: 1, Text: rig.AMOrder("INV-1")}}
	a := r.Intake.Create(t.Context(), line)[0]
	if a.Result != intake.Failed || !errors.Is(a.Cause, intake.ErrUnreachable) || a.Error == "" {
		t.Errorf("%+v", a)
	}
	r.Intake.Enqueue = enqueue
	key := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"}
	for _, want := range [][]payment.Key{{key}, nil} {
		if a := r.Intake.Create(t.Context(), line)[0]; a.Result != intake.Duplicate {
			t.Errorf("%+v", a)
		}
		if diff := cmp.Diff(want, r.Queue()); diff != "" {
			t.Error(diff)
		}
		r.Submit(key) // from now on it is not queued any more
	}
}
