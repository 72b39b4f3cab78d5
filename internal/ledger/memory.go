package ledger

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/payment"
)

// What Redis forgets, the living remember (docs/adr/0009).
//
// A Redis that has acknowledged a claim may lose it all the same: with
// appendfsync everysec up to two seconds of writes die with the process, and a
// promoted replica has not heard of the last ones. The payment stands in queued
// again, and the next claim would send it a second time.
//
// So every ledger keeps what it wrote last in mind. Its claim script carries a
// nonce of its own, and what Redis does not keep over a restart or a failover
// are its scripts: one that does not know this script is a Redis that may have
// forgotten. It is reminded first, and then, because other workers remember too
// and need a moment to notice, nobody claims anything for a while.

const (
	// memorySpan is how long a deed is kept in mind: several times what a
	// Redis that is alive can be behind with its disk or its replicas.
	memorySpan = 10 * time.Second
	// vigil is how long nothing is claimed after Redis has come back: longer than
	// any living worker takes to notice, which looks every second and may hang in
	// a dial for three.
	vigil = 5 * time.Second
)

// Held says that nothing may be claimed right now: Redis has just come back, and
// what it may have forgotten is still being put back.
type Held struct{ Wait time.Duration }

func (h *Held) Error() string { return "redis has come back: nothing is claimed for a moment" }

// memory is what a ledger has claimed and saved lately.
type memory struct {
	// claiming is held for reading from a claim until it stands in deeds, so that
	// nobody is reminded of less than was claimed.
	claiming sync.RWMutex
	met      bool // this ledger has used a Redis before

	mu    sync.Mutex
	deeds []deed    // oldest first
	until time.Time // nothing is claimed before; zero: there is no vigil
}

// deed is a call that brings back what was written; one that finds it still
// written changes nothing.
type deed struct {
	at   time.Time
	call call
}

func (m *memory) remember(now time.Time, c call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	past := 0
	for past < len(m.deeds) && now.Sub(m.deeds[past].at) > memorySpan {
		past++
	}
	m.deeds = append(m.deeds[past:], deed{now, c})
}

// putBack is the call that writes a claim again, from the fields that the claim
// left in Redis.
func putBack(key payment.Key, r *Record, fields []string) call {
	g := key.Gateway
	args := make([]any, 0, 3+len(fields))
	args = append(args, key.TransactionID, r.rev, r.lease.UnixMilli())
	for _, f := range fields {
		args = append(args, f)
	}
	return call{script: putBackScript, keys: []string{paymentKey(key), openKey(g), unknownKey(g), countsKey(g)}, args: args}
}

// remind puts back what Redis has forgotten of what this ledger remembers, and
// reports how many payments that were.
func (l *Ledger) remind(ctx context.Context) (forgotten int, err error) {
	l.memory.mu.Lock()
	var claims, saves []call
	for _, d := range l.memory.deeds {
		if d.call.script == putBackScript {
			claims = append(claims, d.call)
		} else {
			saves = append(saves, d.call)
		}
	}
	l.memory.mu.Unlock()
	// A save is refused until its claim is back.
	for _, calls := range [][]call{claims, saves} {
		l.runAll(ctx, calls, func(_ call, cmd *redis.Cmd) {
			word, e := cmd.Text()
			if e != nil {
				err = fmt.Errorf("ledger: remind redis: %w", e)
			}
			if word == "put back" {
				forgotten++
			}
		})
	}
	return forgotten, err
}

// meet is for a Redis that may have forgotten.
func (l *Ledger) meet(ctx context.Context) error {
	l.memory.claiming.Lock()
	defer l.memory.claiming.Unlock()
	if known, err := l.knows(ctx, l.claimScript); known || err != nil {
		return err // another goroutine was faster
	}
	forgotten, err := l.remind(ctx)
	if err != nil {
		return err
	}
	// Whoever has kept the vigil leaves a script behind: it need not be kept again.
	kept, err := l.knows(ctx, vigilScript)
	if err != nil {
		return err
	}
	if !kept && !l.memory.met {
		// The first worker of all finds payments that were never claimed.
		if kept, err = l.untouched(ctx); err == nil && kept {
			err = l.introduce(ctx, vigilScript)
		}
		if err != nil {
			return err
		}
	}
	var hold time.Duration
	if !kept {
		hold = vigil
		l.memory.mu.Lock()
		l.memory.until = l.now().Add(vigil)
		l.memory.mu.Unlock()
	}
	// Only now: a Redis that knows the claim script has been reminded.
	if err := l.introduce(ctx, l.claimScript); err != nil {
		return err
	}
	if l.OnReturn != nil && (l.memory.met || hold > 0) {
		l.OnReturn(forgotten, hold)
	}
	l.memory.met = true
	return nil
}

// held is for how much longer nothing may be claimed.
func (l *Ledger) held(ctx context.Context) (time.Duration, error) {
	l.memory.mu.Lock()
	defer l.memory.mu.Unlock()
	if l.memory.until.IsZero() {
		return 0, nil
	}
	if wait := l.memory.until.Sub(l.now()); wait > 0 {
		return wait, nil
	}
	// Another Redis may have come back meanwhile, and that one has not been kept a
	// vigil for.
	if same, err := l.knows(ctx, l.claimScript); !same || err != nil {
		return 0, err
	}
	if err := l.introduce(ctx, vigilScript); err != nil {
		return 0, err
	}
	l.memory.until = time.Time{}
	return 0, nil
}

// nobody is a payment that cannot be; the scripts find nothing there.
var nobody = []string{paymentKey(payment.Key{}), openKey(""), countsKey(""), newestKey("")}

// knows reports whether Redis has been given a script since it started.
func (l *Ledger) knows(ctx context.Context, script *redis.Script) (bool, error) {
	return known(script.EvalSha(ctx, l.redis, nobody))
}

func known(cmd *redis.Cmd) (bool, error) {
	switch err := cmd.Err(); {
	case redis.HasErrorPrefix(err, "NOSCRIPT"):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("ledger: meet redis: %w", err)
	default:
		return true, nil
	}
}

// introduce gives Redis a script. Before Redis 7 a SCRIPT LOAD would outlive a
// restart; an EVAL does not.
func (l *Ledger) introduce(ctx context.Context, script *redis.Script) error {
	if err := script.Eval(ctx, l.redis, nobody).Err(); err != nil {
		return fmt.Errorf("ledger: meet redis: %w", err)
	}
	return nil
}

// untouched reports whether nothing in the ledger has ever been claimed.
func (l *Ledger) untouched(ctx context.Context) (bool, error) {
	for _, g := range payment.Gateways() {
		switch claimed, err := l.redis.HExists(ctx, countsKey(g), "claims").Result(); {
		case err != nil:
			return false, fmt.Errorf("ledger: meet redis: %w", err)
		case claimed:
			return false, nil
		}
	}
	return true, nil
}
