package retention

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/archive"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// TestRestore restores an archive into a Redis that has lost everything: as tombstones, and then
// as records over them. Ids that are submitted again are recognised after both.
func TestRestore(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		const n = restoreBatch/2 + 10 // more than a batch of both gateways
		p := newPayments(t, client, t.TempDir())
		p.pay(t, n)
		before := map[payment.Key]payment.Payment{}
		for _, g := range payment.Gateways() {
			for i := range n {
				r, err := p.Ledger.Read(t.Context(), key(g, i))
				if err != nil {
					t.Fatal(err)
				}
				before[r.Key()] = r.Payment
			}
		}
		if err := p.Scan(t.Context()); err != nil {
			t.Fatal(err)
		}
		day := archive.DayOf(time.Now())
		for k, want := range before {
			found, err := Find(p.dir, day, k)
			if err != nil || cmp.Diff(want, found.Payment) != "" {
				t.Fatalf("%s: %v, %s", k, err, cmp.Diff(want, found.Payment))
			}
			break // the others are compared below
		}
		if _, err := Find(p.dir, day, key(payment.Paydia, n)); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("a payment that is not in the archive: %v", err)
		}

		client.FlushAll(t.Context())
		for _, step := range []struct {
			tombstones bool
			want       string
		}{
			{true, "520 restored, 0 in the ledger already"},
			{true, "0 restored, 520 in the ledger already"},
			{false, "520 restored, 0 in the ledger already"},
			{false, "0 restored, 520 in the ledger already"},
			{true, "0 restored, 520 in the ledger already"},
		} {
			p := newPayments(t, client, p.dir)
			var out strings.Builder
			restorer := Restorer{Ledger: p.Ledger, Dir: p.dir, Tombstones: step.tombstones, Out: &out}
			if err := restorer.Run(t.Context()); err != nil || out.String() != string(day)+"  "+step.want+"\n" {
				t.Fatalf("tombstones %v: %q, %v", step.tombstones, out.String(), err)
			}
			tried := 0
			for k := range before {
				if tried++; tried > 20 {
					break
				}
				if a, b := p.create(t, k, "a"), p.create(t, k, "b"); a.Creation != ledger.Duplicate || b.Creation != ledger.Conflict || a.Status != payment.Paid {
					t.Fatalf("%s: created again: %+v, %+v", k, a, b)
				}
			}
		}
		for k, want := range before {
			r, err := p.Ledger.Read(t.Context(), k)
			if err != nil || cmp.Diff(want, r.Payment) != "" {
				t.Fatalf("%s: %v, %s", k, err, cmp.Diff(want, r.Payment))
			}
		}
	})
}

// TestRestoreProblems: an id that was used again since, and a damaged frame, are reported, and
// everything else is restored.
func TestRestoreProblems(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	p := newPayments(t, client, t.TempDir())
	p.pay(t, 3)
	if err := p.Scan(t.Context()); err != nil {
		t.Fatal(err)
	}
	damaged, err := filepath.Glob(filepath.Join(p.dir, "*", "*.zst"))
	if err != nil || len(damaged) != 1 {
		t.Fatal(damaged, err)
	}
	client.FlushAll(t.Context())

	again := key(payment.AMDigiPay, 1)
	p.create(t, again, "other")
	var out strings.Builder
	restorer := Restorer{Ledger: p.Ledger, Dir: p.dir, Out: &out}
	if err := restorer.Run(t.Context()); !errors.Is(err, ErrIncomplete) || !strings.Contains(out.String(), again.String()+" was not restored: the ledger has another order with this id") ||
		!strings.Contains(out.String(), "5 restored") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if r, err := p.Ledger.Read(t.Context(), again); err != nil || r.Status != payment.Queued {
		t.Errorf("%+v, %v", r, err)
	}

	out.Reset()
	if err := Verify(p.dir, &out); err != nil || !strings.HasSuffix(out.String(), "6 payments, files: 1\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
	content, err := os.ReadFile(damaged[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(damaged[0], content, 0o600); err != nil { //nolint:gosec // G703: a file of the test
		t.Fatal(err)
	}
	out.Reset()
	if err := Verify(p.dir, &out); !errors.Is(err, ErrDamaged) || !strings.HasPrefix(out.String(), "FAIL") {
		t.Errorf("%v\n%s", err, out.String())
	}
	out.Reset()
	if err := restorer.Run(t.Context()); !errors.Is(err, ErrIncomplete) || !strings.Contains(out.String(), "0 restored") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if _, err := Find(p.dir, archive.DayOf(time.Now()), again); !errors.Is(err, archive.ErrDamaged) {
		t.Errorf("find: %v", err)
	}
}
