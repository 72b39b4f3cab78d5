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
			t.Errorf("%q came back as %q", c.text, got.Decimal())
		}
	}
}

// TestMoneyRules holds the table of moves to the rules it exists for.
func TestMoneyRules(t *testing.T) {
	for _, s := range payment.Statuses() {
		if payment.CanMove(s, payment.Submitting) && s != payment.Queued && s != payment.Submitting {
			t.Errorf("%s may be sent without having been queued", s)
		}
		if payment.CanMove(s, payment.Queued) && !slices.Contains([]payment.Status{payment.Queued, payment.Submitting, payment.Verifying}, s) {
			t.Errorf("%s may be queued again", s)
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
			t.Errorf("money that comes to a payment in %s is lost", s)
		}
	}
	for _, to := range []payment.Status{payment.Paid, payment.Failed, payment.Refunded, payment.OnProcessing, payment.Rejected} {
		if payment.CanMove(payment.Queued, to) {
			t.Errorf("a payment that was not sent may become %s", to)
		}
	}
	for _, s := range []payment.Status{payment.Paid, payment.Rejected, payment.Failed, payment.Cancelled, payment.Refunded} {
		if !s.Final() {
			t.Errorf("%s is not final", s)
		}
	}
}

// TestNext goes through every pair of a status that is looked up and one that a
// gateway can name: each is a legal move, or stays on purpose.
func TestNext(t *testing.T) {
	stay := map[[2]payment.Status]payment.Status{
		{payment.Expired, payment.OnProcessing}: payment.Expired, // only money brings it back
	}
	for _, from := range payment.LookedUp() {
		for _, told := range append(payment.Meanings(), payment.NeedsReview) {
			want, ok := stay[[2]payment.Status{from, told}]
			if !ok {
				want = told
			}
			if got := payment.Next(from, told); got != want || !payment.CanMove(from, got) {
				t.Errorf("%s, told %s: %s, want %s (a legal move: %t)", from, told, got, want, payment.CanMove(from, got))
			}
		}
	}
	for _, from := range payment.Statuses() {
		for _, told := range payment.Statuses() {
			if got := payment.Next(from, told); got != from && (from.Final() || !payment.CanMove(from, got)) {
				t.Errorf("%s, told %s: %s", from, told, got)
			}
		}
	}
}
