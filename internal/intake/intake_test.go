package intake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/intake"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

func results(answers []intake.Answer) []string {
	var all []string
	for _, a := range answers {
		all = append(all, fmt.Sprint(a.Line, " ", a.TransactionID, " ", a.Result))
	}
	return all
}

// TestCreateInOrder checks that of two lines with the same id the first is recorded, and that
// an invalid line does not affect the others.
func TestCreateInOrder(t *testing.T) {
	r := testenv.New(t, redistest.Mini(t))
	newerToken := []byte(`{"gateway":"paydia","customer_token":"newer","payment":` + string(testenv.PaydiaOrder("ORD-1"))[len(`{"gateway":"paydia","customer_token":"eyJ.customer.ORD-1","payment":`):])
	otherAmount := []byte(`{"gateway":"paydia","customer_token":"x","payment":{"partnerReferenceNo":"ORD-1","merchantId":"240327001000000","amount":{"value":"1.00","currency":"IDR"},"title":"x"}}`)
	lines := []intake.Line{
		{Number: 1, Text: testenv.PaydiaOrder("ORD-1")},
		{Number: 2, Text: []byte(`{"gateway":`)},
		{Number: 3, Text: otherAmount},
		{Number: 4, Text: newerToken},
		{Number: 6, Err: intake.ErrTooLong},
		{Number: 7, Text: testenv.AMOrder("INV-1")},
	}
	want := []string{"1 ORD-1 enqueued", "2  invalid", "3 ORD-1 conflict", "4 ORD-1 duplicate", "6  invalid", "7 INV-1 enqueued"}
	if diff := cmp.Diff(want, results(r.Intake.Create(t.Context(), lines))); diff != "" {
		t.Error(diff)
	}
}

// TestCreateAll checks that many batches are answered in order, and that of two lines with the
// same id, in whichever batches, the first is recorded.
func TestCreateAll(t *testing.T) {
	r := testenv.New(t, redistest.Mini(t))
	var batches [][]intake.Line
	var want []string
	var queued []payment.Key
	for i := range 20 {
		id := fmt.Sprint("INV-", i)
		other := bytes.Replace(testenv.AMOrder("INV-0"), []byte(`"testing"`), fmt.Appendf(nil, `"%d"`, i), 1)
		batches = append(batches, []intake.Line{
			{Number: 3*i + 1, Last: 3*i + 1, Text: testenv.AMOrder(id)},
			{Number: 3*i + 2, Last: 3*i + 2, Text: other},
			{Number: 3*i + 3, Last: 3*i + 3, Text: testenv.AMOrder(id)},
		})
		want = append(want, fmt.Sprint(3*i+1, " ", id, " enqueued"), fmt.Sprint(3*i+2, " INV-0 conflict"), fmt.Sprint(3*i+3, " ", id, " duplicate"))
		key := payment.Key{Gateway: payment.AMDigiPay, TransactionID: id}
		queued = append(queued, key, key) // the duplicate is still queued
	}
	var got []intake.Answer
	for answers := range r.Intake.CreateAll(t.Context(), slices.Values(batches)) {
		got = append(got, answers...)
	}
	if diff := cmp.Diff(want, results(got)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(queued, r.Queue()); diff != "" {
		t.Error(diff)
	}
}

// TestCreateAllStops checks that no batch is recorded after one for which Redis cannot be
// reached, and that every batch is answered when the context has ended.
func TestCreateAllStops(t *testing.T) {
	r := testenv.New(t, redistest.Mini(t))
	batches := slices.Values([][]intake.Line{
		{{Number: 1, Text: testenv.AMOrder("INV-1")}}, {{Number: 2, Text: testenv.AMOrder("INV-2")}}, {{Number: 3, Text: testenv.AMOrder("INV-3")}},
	})
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithTimeout(t.Context(), 0) // as if Redis did not answer
	defer cancel()
	for want, ctx := range map[int]context.Context{3: canceled, 1: expired} {
		n := 0
		for answers := range r.Intake.CreateAll(ctx, batches) {
			n++
			if a := answers[0]; a.Line != n || a.Result != intake.Failed || errors.Is(a.Cause, intake.ErrUnreachable) != (ctx == expired) {
				t.Errorf("%+v", a)
			}
		}
		if n != want {
			t.Errorf("%d batches are answered, want %d", n, want)
		}
	}
	for range r.Intake.CreateAll(t.Context(), batches) {
		break
	}
}

// TestEnqueueError checks that a recorded payment is answered "enqueued" although its task
// could not be enqueued, and that submitting it again enqueues the task.
func TestEnqueueError(t *testing.T) {
	r := testenv.New(t, redistest.Mini(t))
	enqueue := r.Intake.Enqueue
	r.Intake.Enqueue = func(context.Context, []*payment.Payment) []error { return []error{errors.New("connection refused")} }
	line := []intake.Line{{Number: 1, Text: testenv.AMOrder("INV-1")}}
	a := r.Intake.Create(t.Context(), line)[0]
	if a.Result != intake.Enqueued || a.EnqueueErr == nil || a.Error != "" || a.Cause != nil {
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
		r.Submit(key) // it is no longer queued
	}
}

// TestSubmittedLate checks that a payment whose date has passed is invalid when it is new, and
// a duplicate when it was recorded in time.
func TestSubmittedLate(t *testing.T) {
	for name, submit := range map[string]bool{"queued": false, "sent": true} {
		t.Run(name, func(t *testing.T) {
			r := testenv.New(t, redistest.Mini(t))
			key := payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"}
			r.Create(testenv.AMOrder("INV-1"))
			status := payment.Queued
			if submit { // its order is deleted then
				r.Submit(key)
				status = payment.OnProcessing
			}
			r.Queue()
			r.Advance(48 * time.Hour)
			answers := r.Intake.Create(t.Context(), []intake.Line{
				{Number: 1, Text: testenv.AMOrder("INV-1")},
				{Number: 2, Text: bytes.Replace(testenv.AMOrder("INV-1"), []byte(`"testing"`), []byte(`"tested"`), 1)},
				{Number: 3, Text: testenv.AMOrder("INV-2")},
				{Number: 4, Text: bytes.Replace(testenv.AMOrder("INV-1"), []byte(`:33`), []byte(`:0`), 1)},
			})
			want := []string{"1 INV-1 duplicate", "2 INV-1 conflict", "3 INV-2 invalid", "4 INV-1 invalid"}
			if diff := cmp.Diff(want, results(answers)); diff != "" {
				t.Error(diff)
			}
			if len(answers[0].Errors)+len(answers[1].Errors) > 0 || answers[1].Status != status ||
				len(answers[2].Errors) != 1 || answers[2].Errors[0].Field != "payment.expired_date" || len(answers[3].Errors) != 2 {
				t.Errorf("%+v", answers)
			}
			if q := r.Queue(); len(q) != 0 {
				t.Errorf("queued: %v", q)
			}
		})
	}
}

// TestFailed checks that the answer is "failed", with advice, when Redis is down.
func TestFailed(t *testing.T) {
	client := redistest.Mini(t)
	r := testenv.New(t, client)
	r.Advance(48 * time.Hour)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	late := testenv.AMOrder("INV-1")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // else the ledger retries for seconds
	defer cancel()
	answers := r.Intake.Create(ctx, []intake.Line{
		{Number: 1, Text: testenv.PaydiaOrder("ORD-1")}, {Number: 2, Text: late}, {Number: 3, Text: late},
	})
	for _, a := range answers {
		if a.Result != intake.Failed || a.Cause == nil || len(a.Errors) > 0 ||
			!strings.Contains(a.Error, "it may be, and will then be sent. Submit the identical content again under the same id, never under a new one") {
			t.Errorf("%+v", a)
		}
	}
}
