package failover_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redisconn"
	"terbayar/internal/redistest"
)

func TestSentinel(t *testing.T) {
	t.Parallel()
	watched := redistest.Sentinel(t)
	ledgerWorks(t, watched.URL(t))

	s := newStage(t, watched.URL(t))
	if warnings, err := redisconn.Check(t.Context(), s.redis); err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "it has replicas, and min-replicas-to-write is 0") {
		t.Errorf("%q, %v", warnings, err)
	}
	s.worker()

	// Payments keep coming in, before, while and after the primary is killed.
	var again int
	var shop sync.WaitGroup
	shop.Go(func() { again = s.handIn(t.Context(), 120, 300*time.Millisecond) })
	defer shop.Wait()
	s.eventually("the load is on", 10*time.Second, func() bool { return s.sent() >= 15 })
	watched.Primary.Kill()
	killed := time.Now()
	s.eventually("the replica is the primary", 10*time.Second, func() bool {
		return watched.PrimaryNow(t.Context()) == watched.Replica.Addr
	})
	promoted, sent := time.Since(killed), s.sent()
	s.eventually("payments leave again", 10*time.Second, func() bool { return s.sent() > sent })
	t.Logf("%s after the kill there was a new primary, %s after it payments left again",
		promoted.Round(100*time.Millisecond), time.Since(killed).Round(100*time.Millisecond))
	shop.Wait()

	t.Logf("Redis would not take %d payments; they were handed in again", again)
	s.handAllInAgain()
	s.endsWell(12 * time.Second)
}

// TestWhatAFailoverForgets shows the limits of asynchronous replication: what a
// primary has acknowledged and its replica has not heard of is gone, a claim
// included. It takes a replica that lags at the moment the primary dies. The
// worker that claimed puts it back; with min-replicas-to-write 1 a primary that
// has lost touch with its replica soon takes no claim any more.
func TestWhatAFailoverForgets(t *testing.T) {
	t.Parallel()
	t.Run("a claim", func(t *testing.T) {
		t.Parallel()
		watched := redistest.Sentinel(t)
		s := newStage(t, watched.URL(t))
		s.enter()
		replica := ledger.NewReader(watched.Replica.Client(t))
		s.eventually("the replica has heard of the payment", 5*time.Second, func() bool {
			_, err := replica.Read(t.Context(), aPayment)
			return err == nil
		})
		watched.Replica.Pause(t)
		// What is written already would still arrive over a link that stands.
		if err := watched.Primary.Client(t).Do(t.Context(), "CLIENT", "KILL", "TYPE", "replica").Err(); err != nil {
			t.Fatal(err)
		}
		if _, verdict, err := s.claim(); err != nil || verdict != ledger.Claimed {
			t.Fatalf("claim: %s, %v", verdict, err)
		}
		watched.Primary.Kill()
		watched.Replica.Resume(t)
		s.eventually("the replica is the primary", 15*time.Second, func() bool {
			return watched.PrimaryNow(t.Context()) == watched.Replica.Addr
		})
		if r := s.read(aPayment); r.Status != payment.Queued {
			t.Errorf("it stands in %s: nothing was forgotten, so this shows nothing", r.Status)
		}
		s.eventually("the claim is put back", 10*time.Second, func() bool {
			_, verdict, err := s.claim()
			if verdict == ledger.Claimed {
				t.Fatal("the payment was claimed twice")
			}
			return err == nil && verdict == ledger.Busy
		})
		if r := s.read(aPayment); r.Status != payment.Submitting || len(r.Attempts) != 1 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("no claim", func(t *testing.T) {
		t.Parallel()
		watched := redistest.Sentinel(t, "--min-replicas-to-write", "1", "--min-replicas-max-lag", "1")
		s := newStage(t, watched.URL(t))
		s.enter()
		watched.Replica.Pause(t)
		s.eventually("the primary notices", 10*time.Second, func() bool {
			return redis.HasErrorPrefix(s.redis.Set(t.Context(), "k", "v", 0).Err(), "NOREPLICAS")
		})
		if r, verdict, err := s.claim(); !redis.HasErrorPrefix(err, "NOREPLICAS") {
			t.Errorf("claim: %s, %+v, %v", verdict, r, err)
		}
		watched.Replica.Resume(t)
		s.eventually("there are replicas again", 10*time.Second, func() bool {
			_, verdict, err := s.claim()
			return err == nil && verdict == ledger.Claimed
		})
		if r := s.read(aPayment); r.Status != payment.Submitting || len(r.Attempts) != 1 {
			t.Errorf("%+v", r)
		}
	})
}
