package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"terbayar/internal/intake"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
	"terbayar/internal/testenv"
	"terbayar/internal/worker"
)

// TestCheckKeys: a check names the key that enqueue encrypts with and this worker does not
// have, before any payment is sent.
func TestCheckKeys(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	key := secret.NewKey()
	cipher, err := secret.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	in := &intake.Intake{
		Ledger: testenv.NewLedger(s.redis.Client(t), time.Now), Cipher: cipher,
		Enqueue: func(_ context.Context, payments []*payment.Payment) []error { return make([]error, len(payments)) },
	}
	var lines []intake.Line
	for i := range 3 {
		lines = append(lines, intake.Line{Number: i + 1, Text: fmt.Appendf(nil, `{"gateway":"paydia","customer_token":"eyJ.x","payment":{"partnerReferenceNo":"ORD-%d",`+
			`"merchantId":"240327001000000","amount":{"value":"10000.00","currency":"IDR"},"title":"Payment"}}`, i)})
	}
	for _, a := range in.Create(t.Context(), lines) {
		if a.Result != intake.Enqueued {
			t.Fatal(a)
		}
	}
	got, err := s.check(t)
	if !errors.Is(err, worker.ErrCheck) || !slices.ContainsFunc(got, func(line string) bool {
		return strings.HasPrefix(line, "FAIL  payload keys") && strings.Contains(line, "3 of 3") && strings.Contains(line, cipher.KeyIDs()[0])
	}) {
		t.Errorf("%v\n%s", err, strings.Join(got, "\n"))
	}
	if got, err := s.check(t, "--payload-keys="+secret.NewKey().Reveal()+","+key.Reveal()); err != nil {
		t.Errorf("%v\n%s", err, strings.Join(got, "\n"))
	}
}
