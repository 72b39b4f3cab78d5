package worker

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/telemetry"
)

// TestLines lists the log line of every kind of attempt, action and status. The
// combinations that have none do not occur.
func TestLines(t *testing.T) {
	want := map[string]string{
		"submit accept":           "INFO submit accepted",
		"submit retry":            "INFO submit refused, will retry",
		"submit retry, no answer": "INFO submit not sent, will retry",
		"submit refresh_token":    "INFO access token refused, will retry",
		"submit verify":           "WARN submit outcome unknown",
		"submit reject":           "INFO submit rejected",
		"submit review":           "ERROR submit needs review",

		"lookup accept on_processing": "INFO lookup found: on_processing",
		"lookup accept paid":          "INFO lookup found: paid",
		"lookup accept failed":        "INFO lookup found: failed",
		"lookup accept expired":       "INFO lookup found: expired",
		"lookup accept cancelled":     "INFO lookup found: cancelled",
		"lookup accept refunded":      "INFO lookup found: refunded",
		"lookup verify":               "INFO lookup: outcome still unknown",
		"lookup retry":                "WARN lookup: not found, will submit again",
		"lookup review":               "ERROR lookup needs review",
	}
	got := map[string]string{}
	for _, kind := range []payment.Kind{payment.KindSubmit, payment.KindLookup} {
		for _, action := range []retrypolicy.Action{
			retrypolicy.Accept, retrypolicy.Retry, retrypolicy.RefreshToken, retrypolicy.Verify, retrypolicy.Reject, retrypolicy.Review,
		} {
			for _, status := range payment.Statuses() {
				for _, httpStatus := range []int{0, 200} {
					line, ok := lineOf(payment.Attempt{Kind: kind, Action: string(action), HTTPStatus: httpStatus}, status)
					if !ok {
						continue
					}
					name := string(kind) + " " + string(action)
					if kind == payment.KindLookup && action == retrypolicy.Accept {
						name += " " + string(status)
					}
					if kind == payment.KindSubmit && action == retrypolicy.Retry && httpStatus == 0 {
						name += ", no answer"
					}
					text := line.level.String() + " " + line.message
					if earlier := got[name]; earlier != "" && earlier != text {
						t.Errorf("%s: %s and %s", name, earlier, text)
					}
					got[name] = text
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
	for _, status := range payment.GatewayStatuses() { // what a gateway can report of a payment
		if _, ok := foundLines[status]; !ok {
			t.Errorf("a lookup that finds %s has no log line", status)
		}
	}
}

// TestAttributes: a log line of an attempt has all attributes that are not empty.
func TestAttributes(t *testing.T) {
	now := time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)
	final := &ledger.Record{Payment: payment.Payment{Gateway: payment.AMDigiPay, TransactionID: "INV-1", Status: payment.Paid}}
	queued := &ledger.Record{
		Payment:   payment.Payment{Gateway: payment.Paydia, TransactionID: "ORD-1", Status: payment.Queued, Reason: "no key"},
		NotBefore: time.Minute,
	}
	for _, c := range []struct {
		r      *ledger.Record
		a      payment.Attempt
		detail error
		want   string
	}{
		{
			final,
			payment.Attempt{Kind: payment.KindLookup, Code: "http:200", HTTPStatus: 200, Action: "accept", DurationMS: 12},
			nil,
			"gateway transaction_id kind code action status duration_ms http_status",
		},
		{
			queued,
			payment.Attempt{Kind: payment.KindSubmit, Code: "5006301", HTTPStatus: 500, Action: "retry", Message: "busy", ExternalID: "7"},
			errors.New("HTML"),
			"gateway transaction_id kind code action status duration_ms http_status external_id message reason detail next",
		},
		{
			queued,
			payment.Attempt{Kind: payment.KindSubmit, Code: "net:unsent", Action: "retry"},
			nil,
			"gateway transaction_id kind code action status duration_ms reason next",
		},
	} {
		var out strings.Builder
		slog.New(slog.NewJSONHandler(&out, nil)).LogAttrs(t.Context(), slog.LevelInfo, "m", attemptAttrs(c.r, c.a, c.detail, now)...)
		var attrs map[string]any
		if err := json.Unmarshal([]byte(out.String()), &attrs); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"time", "level", "msg"} {
			delete(attrs, name)
		}
		for name := range strings.FieldsSeq(c.want) {
			if _, ok := attrs[name]; !ok {
				t.Errorf("%s is missing in %s", name, out.String())
			}
			delete(attrs, name)
		}
		if len(attrs) > 0 {
			t.Errorf("unexpected %v in %s", attrs, out.String())
		}
		if c.r == queued {
			var next struct{ Next time.Time }
			if err := json.Unmarshal([]byte(out.String()), &next); err != nil || next.Next.IsZero() {
				t.Errorf("next is not RFC 3339 in %s", out.String())
			}
		}
	}
}

// BenchmarkOnAttempt logs and counts one accepted submit.
func BenchmarkOnAttempt(b *testing.B) {
	log, err := telemetry.NewLogger(io.Discard, "info", "json")
	if err != nil {
		b.Fatal(err)
	}
	w := &Worker{log: log, metrics: telemetry.NewMetrics(nil, nil, nil)}
	r := &ledger.Record{Payment: payment.Payment{
		Gateway: payment.AMDigiPay, TransactionID: "0030c97b-5ccc-4482-b4af-b7ee2ab2ffa1", Status: payment.OnProcessing,
	}}
	a := payment.Attempt{Kind: payment.KindSubmit, Code: "http:200", HTTPStatus: 200, Action: string(retrypolicy.Accept), Message: "success", DurationMS: 51}
	b.ReportAllocs()
	for b.Loop() {
		w.onAttempt(r, a, nil)
	}
}
