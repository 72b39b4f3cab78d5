package payment_test

import (
	"errors"
	"slices"
	"testing"

	"terbayar/internal/payment"
)

func TestParseRupiah(t *testing.T) {
	for _, c := range []struct {
		text string
		want payment.Rupiah
		ok   bool
	}{
		{"13000", 13000, true},
		{"0", 0, true},
		{"", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1.0", 0, false},
		{"1e3", 0, false},
		{"1_000", 0, false},
		{"1000000000000000", 1_000_000_000_000_000, true},
		{"1000000000000001", 0, false},
		{"99999999999999999999", 0, false},
	} {
		got, err := payment.ParseRupiah(c.text)
		if got != c.want || (err == nil) != c.ok || err != nil && !errors.Is(err, payment.ErrNotRupiah) {
			t.Errorf("%q: %d, %v", c.text, got, err)
		}
	}
}

func TestParseDecimal(t *testing.T) {
	for _, c := range []struct {
		text string
		want payment.Rupiah
		ok   bool
	}{
		{"10000.00", 10000, true},
		{"10000.50", 0, false},
		{"10000", 0, false},
		{"10000.0", 0, false},
		{"10000.000", 0, false},
		{".00", 0, false},
		{"10,000.00", 0, false},
	} {
		got, err := payment.ParseDecimal(c.text)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %d, %v", c.text, got, err)
		}
		if c.ok && got.Decimal() != c.text {
			t.Errorf("%q is formatted as %q", c.text, got.Decimal())
		}
	}
}

// TestMoneyRules checks the table of moves against the rules for money.
func TestMoneyRules(t *testing.T) {
	for _, s := range payment.Statuses() {
		if payment.CanMove(s, payment.Submitting) && s != payment.Queued && s != payment.Submitting {
			t.Errorf("%s may become submitting", s)
		}
		if payment.CanMove(s, payment.Queued) && !slices.Contains([]payment.Status{payment.Queued, payment.Submitting, payment.Verifying}, s) {
			t.Errorf("%s may become queued", s)
		}
		if s.Final() {
			for _, to := range payment.Statuses() {
				if to != s && payment.CanMove(s, to) {
					t.Errorf("final %s may become %s", s, to)
				}
			}
		}
	}
	for _, s := range []payment.Status{payment.OnProcessing, payment.Expired, payment.Verifying, payment.NeedsReview} {
		if !payment.CanMove(s, payment.Paid) {
			t.Errorf("%s cannot become paid", s)
		}
	}
	for _, to := range []payment.Status{payment.Paid, payment.Failed, payment.Refunded, payment.OnProcessing, payment.Rejected} {
		if payment.CanMove(payment.Queued, to) {
			t.Errorf("queued may become %s", to)
		}
	}
	for _, s := range []payment.Status{payment.Paid, payment.Rejected, payment.Failed, payment.Cancelled, payment.Refunded} {
		if !s.Final() {
			t.Errorf("%s is not final", s)
		}
	}
}

// TestNextStatus checks all pairs of statuses. A payment that is looked up takes over what
// the gateway reports, with one exception, and no illegal move ever results.
func TestNextStatus(t *testing.T) {
	exceptions := map[[2]payment.Status]payment.Status{
		{payment.Expired, payment.OnProcessing}: payment.Expired, // only money or an end changes it
	}
	for _, from := range payment.LookupStatuses() {
		for _, reported := range append(payment.GatewayStatuses(), payment.NeedsReview) {
			want, ok := exceptions[[2]payment.Status{from, reported}]
			if !ok {
				want = reported
			}
			if got := payment.NextStatus(from, reported); got != want {
				t.Errorf("%s, reported as %s: %s, want %s", from, reported, got, want)
			}
		}
	}
	for _, from := range payment.Statuses() {
		for _, reported := range payment.Statuses() {
			got := payment.NextStatus(from, reported)
			if !payment.CanMove(from, got) || got != from && from.Final() {
				t.Errorf("%s, reported as %s: illegal move to %s", from, reported, got)
			}
		}
	}
}
