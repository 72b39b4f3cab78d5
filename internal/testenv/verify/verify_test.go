package verify

import (
	"slices"
	"strings"
	"testing"
	"time"

	"terbayar/internal/events"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

var (
	am     = payment.Key{Gateway: payment.AMDigiPay, TransactionID: "INV-1"}
	paydia = payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-1"}
	noon   = time.Date(2026, 5, 21, 12, 0, 0, 0, time.UTC)
)

// newRun returns a run without a mistake: an AM payment that was on_processing before it was
// paid, and a Paydia payment that was paid at once.
func newRun(t *testing.T) *Run {
	t.Helper()
	r := &Run{SentOnce: true, Records: map[payment.Key]*payment.Payment{}}
	for _, key := range []payment.Key{am, paydia} {
		r.Payments = append(r.Payments, Payment{Key: key, Amount: 13000, Ends: payment.Paid, MayNeedReview: true, Acknowledged: true})
		r.Records[key] = &payment.Payment{
			Gateway: key.Gateway, TransactionID: key.TransactionID, Status: payment.Paid, GatewayStatus: "Terbayar",
			GatewayReference: "6", Amount: 13000, CreatedAt: noon, UpdatedAt: noon.Add(time.Minute),
			Attempts: []payment.Attempt{{At: noon, Kind: payment.KindSubmit, Code: "http:200", Action: "accept"}},
		}
		op := gatewaysim.PaydiaPayment
		if key == am {
			op = gatewaysim.AMCreate
		}
		r.Journal = append(r.Journal, gatewaysim.Entry{At: noon, Operation: op, Reference: key.TransactionID, Status: 200})
		r.Rows = append(r.Rows, gatewaysim.Row{
			Gateway: gatewaysim.Gateway(key.Gateway), Reference: key.TransactionID, GatewayReference: "6", Amount: 13000, State: gatewaysim.Paid,
		})
	}
	r.Stream = []Event{event(t, r, am, 1, payment.OnProcessing), event(t, r, am, 2, payment.Paid), event(t, r, paydia, 1, payment.Paid)}
	r.Received = slices.Clone(r.Stream)
	return r
}

// event returns an event as the ledger writes it.
func event(t *testing.T, r *Run, key payment.Key, n int64, status payment.Status) Event {
	t.Helper()
	p := *r.Records[key]
	if p.Status != status {
		p.GatewayStatus = "On processing"
	}
	p.Status, p.NextAt = status, time.Time{}
	text, err := events.Marshal(&p, n)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ParseEvent(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// setStatus makes AM's payment end in a status, in ledger and events.
func setStatus(t *testing.T, r *Run, status payment.Status) {
	t.Helper()
	r.Records[am].Status = status
	r.Stream[1] = event(t, r, am, 2, status)
	r.Received[1] = r.Stream[1]
}

func TestCleanRuns(t *testing.T) {
	for name, edit := range map[string]func(*testing.T, *Run){
		"both paid":   func(*testing.T, *Run) {},
		"no consumer": func(_ *testing.T, r *Run) { r.Received, r.NoConsumer = nil, true },
		"sent twice where gateways fail": func(_ *testing.T, r *Run) {
			r.SentOnce = false
			r.Journal = append(r.Journal, r.Journal[0])
		},
		"not acknowledged, not recorded": func(_ *testing.T, r *Run) {
			r.Payments = append(r.Payments, Payment{Key: payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-2"}, Ends: payment.Paid})
		},
		"manual review of what the gateway does not have": func(t *testing.T, r *Run) {
			r.Records[am].Reason = "the gateway does not know it"
			setStatus(t, r, payment.NeedsReview)
			r.Rows = r.Rows[1:]
		},
		"manual review as expected": func(t *testing.T, r *Run) {
			r.Records[am].Reason = "lookups over"
			r.Payments[0].Ends = payment.NeedsReview
			setStatus(t, r, payment.NeedsReview)
		},
		"rejected": func(t *testing.T, r *Run) {
			r.Payments[1].Ends, r.Records[paydia].Status, r.Rows = payment.Rejected, payment.Rejected, r.Rows[:1]
			r.Stream[2] = event(t, r, paydia, 1, payment.Rejected)
			r.Received[2] = r.Stream[2]
		},
		"cancelled before it was sent": func(t *testing.T, r *Run) {
			r.Payments[1].Ends, r.Records[paydia].Status, r.Records[paydia].Reason, r.Rows = payment.Cancelled, payment.Cancelled, ledger.ReasonCancelled, r.Rows[:1]
			r.Stream[2] = event(t, r, paydia, 1, payment.Cancelled)
			r.Received[2] = r.Stream[2]
		},
		"expired while it is open at the gateway": func(t *testing.T, r *Run) {
			r.Payments[0].Ends, r.Rows[0].State = payment.Expired, gatewaysim.Open
			setStatus(t, r, payment.Expired)
		},
		"failover: received twice": func(_ *testing.T, r *Run) {
			r.Failover = true
			r.Received = append(r.Received, r.Received[0])
		},
		"failover: withdrawn, and again with another n": func(t *testing.T, r *Run) {
			r.Failover = true
			r.Received = append([]Event{event(t, r, paydia, 2, payment.Paid)}, r.Received...)
		},
		"failover: on_processing withdrawn": func(t *testing.T, r *Run) {
			r.Failover = true
			r.Received = append([]Event{event(t, r, paydia, 1, payment.OnProcessing)}, r.Received...)
		},
		"failover: a refusal withdrawn, in manual review": func(t *testing.T, r *Run) {
			r.Failover = true
			r.Received = append([]Event{event(t, r, am, 1, payment.Rejected)}, r.Received...)
			r.Records[am].Reason = "the gateway does not know it"
			setStatus(t, r, payment.NeedsReview)
			r.Received[2] = r.Stream[1]
			r.Received[1] = r.Stream[0]
			r.Rows = r.Rows[1:]
		},
		"outage of the other gateway": func(_ *testing.T, r *Run) {
			r.Outage = &Outage{payment.AMDigiPay, noon, noon.Add(time.Hour)}
			r.Records[paydia].CreatedAt = noon.Add(50 * time.Second)
			r.Stream[2] = event(t, r, paydia, 1, payment.Paid)
			r.Received[2] = r.Stream[2]
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRun(t)
			edit(t, r)
			if report := r.Verify(); !report.Clean() {
				t.Error(report)
			}
		})
	}
}

func TestFindings(t *testing.T) {
	for _, row := range []struct {
		name string
		kind Kind
		key  payment.Key
		text string // part of the finding
		edit func(*testing.T, *Run)
	}{
		{"two rows", DuplicateCharge, am, "has it 2 times", func(_ *testing.T, r *Run) { r.Rows = append(r.Rows, r.Rows[0]) }},
		{"sent twice", DuplicateCharge, am, "sent 2 times", func(_ *testing.T, r *Run) { r.Journal = append(r.Journal, r.Journal[0]) }},
		{"never submitted", DuplicateCharge, paydia, "never submitted", func(_ *testing.T, r *Run) { r.Payments = r.Payments[:1] }},

		{"no record", Lost, am, "does not contain it", func(_ *testing.T, r *Run) { delete(r.Records, am) }},
		{"accepted twice", Lost, am, "accepted as new", func(_ *testing.T, r *Run) { r.Payments[0].AcceptedTwice = true }},
		{"stuck", Lost, am, "stuck in verifying", func(_ *testing.T, r *Run) { r.Records[am].Status = payment.Verifying }},
		{"stuck, not acknowledged", Lost, am, "stuck in queued", func(_ *testing.T, r *Run) {
			r.Payments[0].Acknowledged = false
			r.Records[am].Status = payment.Queued
		}},

		{"not the customer's", WrongStatus, am, "it should be cancelled", func(_ *testing.T, r *Run) { r.Payments[0].Ends = payment.Cancelled }},
		{"not the gateway's", WrongStatus, am, "at the gateway it is", func(_ *testing.T, r *Run) { r.Rows[0].State = gatewaysim.Open }},
		{"not at the gateway", WrongStatus, am, "has it 0 times", func(_ *testing.T, r *Run) { r.Rows = r.Rows[1:] }},
		{"another amount than submitted", WrongStatus, am, "1 was submitted", func(_ *testing.T, r *Run) { r.Payments[0].Amount = 1 }},
		{"another amount at the gateway", WrongStatus, am, "at the gateway 1", func(_ *testing.T, r *Run) { r.Rows[0].Amount = 1 }},
		{"another reference", WrongStatus, am, "gateway reference", func(_ *testing.T, r *Run) { r.Rows[0].GatewayReference = "7" }},
		{"rejected, and at the gateway", WrongStatus, am, "at the gateway it is", func(t *testing.T, r *Run) {
			r.Payments[0].Ends = payment.Rejected
			setStatus(t, r, payment.Rejected)
		}},
		{"cancelled before it was sent, and at the gateway", DuplicateCharge, am, "has it 1 times", func(t *testing.T, r *Run) {
			r.Payments[0].Ends, r.Records[am].Reason = payment.Cancelled, ledger.ReasonCancelled
			setStatus(t, r, payment.Cancelled)
		}},
		{"manual review of what the gateway has", WrongStatus, am, "has it 1 times", func(t *testing.T, r *Run) {
			r.Records[am].Reason = "guessed"
			setStatus(t, r, payment.NeedsReview)
		}},
		{"manual review without a reason", WrongStatus, am, "needs_review", func(t *testing.T, r *Run) {
			r.Rows = r.Rows[1:]
			setStatus(t, r, payment.NeedsReview)
		}},
		{"manual review as expected, without a reason", WrongStatus, am, "without a reason", func(t *testing.T, r *Run) {
			r.Payments[0].Ends = payment.NeedsReview
			setStatus(t, r, payment.NeedsReview)
		}},
		{"manual review not allowed", WrongStatus, am, "it should be paid", func(t *testing.T, r *Run) {
			r.Payments[0].MayNeedReview, r.Records[am].Reason = false, "given up"
			setStatus(t, r, payment.NeedsReview)
		}},

		{"no event", WrongEvents, paydia, "has no event", func(_ *testing.T, r *Run) { r.Stream, r.Received = r.Stream[:2], r.Received[:2] }},
		{"the last event is missing", WrongEvents, am, "the last event contains", func(_ *testing.T, r *Run) {
			r.Stream, r.Received = slices.Delete(r.Stream, 1, 2), slices.Delete(r.Received, 1, 2)
		}},
		{"the last event differs in a field", WrongEvents, am, "the last event contains", func(_ *testing.T, r *Run) { r.Records[am].QRCode = "0002" }},
		{"attempts in an event", WrongEvents, am, "the last event contains", func(_ *testing.T, r *Run) {
			r.Stream[1].Data = append([]byte(`{"attempts":[],`), r.Stream[1].Data[1:]...)
		}},
		{"a gap", WrongEvents, am, `"amdigipay:INV-1:3:paid" where "amdigipay:INV-1:2:paid"`, func(t *testing.T, r *Run) {
			r.Stream[1] = event(t, r, am, 3, payment.Paid)
			r.Received[1] = r.Stream[1]
		}},
		{"twice in the stream", WrongEvents, paydia, "from paid to paid", func(t *testing.T, r *Run) {
			r.Stream = append(r.Stream, event(t, r, paydia, 2, payment.Paid))
			r.Received = slices.Clone(r.Stream)
		}},
		{"an illegal move", WrongEvents, am, "from rejected to paid", func(t *testing.T, r *Run) {
			r.Stream[0] = event(t, r, am, 1, payment.Rejected)
			r.Received[0] = r.Stream[0]
		}},
		{"a status that has no event", WrongEvents, am, "to verifying", func(t *testing.T, r *Run) {
			r.Stream[0] = event(t, r, am, 1, payment.Verifying)
			r.Received[0] = r.Stream[0]
		}},
		{"another type", WrongEvents, am, "is of type terbayar.payment.failed", func(_ *testing.T, r *Run) { r.Stream[0].Type = "terbayar.payment.failed" }},
		{"another type was received", WrongEvents, am, "received event", func(_ *testing.T, r *Run) { r.Received[0].Type = "terbayar.payment.failed" }},
		{"another time", WrongEvents, am, "its data of", func(_ *testing.T, r *Run) { r.Stream[1].Time = noon }},
		{"another version", WrongEvents, am, "malformed", func(_ *testing.T, r *Run) { r.Stream[1].SpecVersion = "0.3" }},
		{"another content type", WrongEvents, am, "malformed", func(_ *testing.T, r *Run) { r.Stream[1].DataContentType = "" }},
		{"another source", WrongEvents, am, "malformed", func(_ *testing.T, r *Run) { r.Stream[1].Source = "amdigipay" }},
		{"another payment's data", WrongEvents, am, "malformed", func(_ *testing.T, r *Run) { r.Stream[0].Payment.TransactionID = "INV-2" }},
		{"events of an unknown payment", WrongEvents, paydia, "never submitted", func(_ *testing.T, r *Run) { r.Payments = r.Payments[:1] }},
		{"events of a lost payment", WrongEvents, paydia, "the ledger does not contain it", func(_ *testing.T, r *Run) { delete(r.Records, paydia) }},
		{"received twice", WrongEvents, am, "received twice", func(_ *testing.T, r *Run) { r.Received = append(r.Received, r.Received[0]) }},
		{"received, not in the stream", WrongEvents, paydia, "is not in the stream", func(t *testing.T, r *Run) {
			r.Received = append(r.Received, event(t, r, paydia, 2, payment.Paid))
		}},
		{"in the stream, not received", WrongEvents, paydia, "was not received", func(_ *testing.T, r *Run) { r.Received = r.Received[:2] }},
		{"nothing received", WrongEvents, paydia, "was not received", func(_ *testing.T, r *Run) { r.Received = nil }},
		{"failover: not written again", WrongEvents, paydia, "not written again", func(t *testing.T, r *Run) {
			r.Failover = true
			r.Received = append(r.Received, event(t, r, paydia, 2, payment.Refunded))
		}},
		{"failover: a refusal withdrawn, without manual review", WrongEvents, paydia, "not written again", func(t *testing.T, r *Run) {
			r.Failover = true
			r.Received = append(r.Received, event(t, r, paydia, 1, payment.Rejected))
		}},
		{"failover: in the stream, not received", WrongEvents, paydia, "was not received", func(_ *testing.T, r *Run) {
			r.Failover, r.Received = true, r.Received[:2]
		}},

		{"violation", MalformedRequest, am, "no signature", func(_ *testing.T, r *Run) {
			r.Violations = []gatewaysim.Violation{{Operation: gatewaysim.AMCreate, Reference: "INV-1", What: "no signature"}}
		}},
		{"crash", CrashedWorker, payment.Key{}, "worker-1 ended", func(_ *testing.T, r *Run) { r.Crashed = []string{"worker-1"} }},
		{"slow beside an outage", OutageDamage, paydia, "other gateway was down", func(_ *testing.T, r *Run) {
			r.Outage = &Outage{payment.AMDigiPay, noon, noon.Add(time.Hour)}
		}},
		{"an attempt in an outage", OutageDamage, am, "an attempt was spent", func(_ *testing.T, r *Run) {
			r.Outage = &Outage{payment.AMDigiPay, noon.Add(-time.Minute), noon.Add(time.Hour)}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRun(t)
			row.edit(t, r)
			report := r.Verify()
			if !slices.ContainsFunc(report.Findings, func(f Finding) bool {
				return f.Kind == row.kind && f.Key == row.key && strings.Contains(f.Text, row.text)
			}) {
				t.Errorf("want %s of %s with %q, got:\n%s", row.kind, row.key, row.text, report)
			}
			if report.Clean() || report.Count(row.kind) == 0 {
				t.Error(report.Summary())
			}
		})
	}
}

// TestSettled: a payment has ended when it cannot change any more.
func TestSettled(t *testing.T) {
	r := newRun(t)
	p, rows := r.Payments[0], r.Rows[:1]
	for _, row := range []struct {
		status payment.Status
		ends   payment.Status
		want   bool
	}{
		{payment.Paid, payment.Paid, true},
		{payment.OnProcessing, payment.Paid, false},
		{payment.Verifying, payment.Paid, false},
		{payment.Queued, payment.Paid, false},
		{payment.NeedsReview, payment.Paid, true}, // although the gateway has it: Verify reports that
	} {
		record := *r.Records[am]
		record.Status = row.status
		p.Ends = row.ends
		if got := p.Settled(&record, rows); got != row.want {
			t.Errorf("%s, ends %s: settled %t", row.status, row.ends, got)
		}
	}
}

func TestReport(t *testing.T) {
	r := newRun(t)
	r.Rows = append(r.Rows, r.Rows[0])
	report := r.Verify()
	// Two rows are two mistakes: the customer can pay twice, and the ledger has one of them.
	const want = "1 duplicate charges, 0 lost, 1 wrong status, 0 wrong events, 0 malformed requests, 0 crashed workers, 0 affected by a gateway outage"
	if got := report.Summary(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	for _, part := range []string{
		"duplicate charge: amdigipay:INV-1: the gateway has it 2 times", "ledger: paid", "submit http:200", "event amdigipay:INV-1:2:paid",
		"gateway: amdigipay.create-transaction answered with 200", "gateway has {",
	} {
		if !strings.Contains(report.String(), part) {
			t.Errorf("%q is not in the report:\n%s", part, report)
		}
	}
	if strings.Count(report.String(), "ledger: paid") != 1 {
		t.Errorf("the details of a payment are shown more than once:\n%s", report)
	}
}

func TestParseEvent(t *testing.T) {
	for _, text := range []string{`{"id":"x","data":{},"more":1}`, `{"id":"x","data":{"more":1}}`, `{`, `{"id":"x","data":1}`} {
		if _, err := ParseEvent([]byte(text)); err == nil {
			t.Errorf("%s was parsed", text)
		}
	}
}
