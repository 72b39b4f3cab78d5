package payment_test

import (
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/payment"
)

// TestStatesDocument compares the diagram in docs/states.md with the table of moves.
func TestStatesDocument(t *testing.T) {
	doc, err := os.ReadFile("../../docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^    (\w+) --> (\w+)`).FindAllStringSubmatch(string(doc), -1) {
		drawn[m[1]+" -> "+m[2]] = true
	}
	legal := map[string]bool{}
	for _, from := range payment.Statuses() {
		for _, to := range payment.Statuses() {
			if from != to && payment.CanMove(from, to) {
				legal[string(from)+" -> "+string(to)] = true
			}
		}
	}
	if diff := cmp.Diff(legal, drawn); diff != "" {
		t.Error(diff)
	}
}
