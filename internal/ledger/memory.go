package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
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
// So every ledger keeps what it wrote last in mind. A Redis has a lineage, its
// master_replid, which is new whenever it starts or is promoted; the scripts that
// claim and save refuse where it is not the one the caller knows. Then Redis may
// have forgotten: it is reminded first, and because other workers remember too and
// need a moment to notice, for a while only those go on who hold a claim already.

const (
	// memorySpan is how long a deed is kept in mind at least: several times what a
	// Redis that is well can be behind with its disk or its replicas.
	memorySpan = 10 * time.Second
	// vigil is how long nothing is claimed after Redis has come back: longer than
	// a living worker takes to notice. It looks every second, and a connection that
	// has silently died costs it a time-out of three.
	vigil = 6 * time.Second
	// reminders is how many calls go to Redis together: all of them have one time-out.
	reminders = 1000
)

// Held says that a payment may not be claimed right now, or what was found out about it
// not be recorded, and for how long.
type Held struct {
	Wait   time.Duration
	Reason string // in words of our own
}

func (h *Held) Error() string { return h.Reason }

func vigilHeld(wait time.Duration) *Held {
	return &Held{Wait: wait, Reason: "redis has come back: what it forgot is being put back"}
}

// errStranger says that Redis is of another lineage than the one last met.
var errStranger = errors.New("redis has restarted or failed over")

// memory is what a ledger has claimed and saved lately, and in which Redis.
type memory struct {
	meeting sync.Mutex // one at a time

	mu      sync.Mutex
	deeds   []deed    // oldest first
	lineage string    // of the Redis last met; empty before and while one is met
	met     bool      // there was one before
	until   time.Time // nothing is claimed before
}

// deed is a call that brings back what was written; one that finds it still
// written changes nothing.
type deed struct {
	call call
	keep time.Time // until when it is kept in mind, if Redis is alive then
}

// known is the lineage of the Redis last met.
func (m *memory) known() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lineage
}

// hold is for how much longer nothing may be claimed.
func (m *memory) hold(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, m.until.Sub(now))
}

// remember keeps a deed in mind. It reports false when another Redis has been met
// meanwhile, which may not have been reminded of it.
func (m *memory) remember(lineage string, now time.Time, d deed) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deeds = append(m.deeds, d)
	m.alive(lineage, now)
	return m.lineage == lineage
}

// alive lets go of what a Redis that is alive now has had time enough to keep. While
// Redis is away, and during a vigil, nothing is let go: what it forgot may be as old as
// the outage is long.
func (m *memory) alive(lineage string, now time.Time) {
	if m.lineage != lineage || now.Before(m.until) {
		return
	}
	past := 0
	for past < len(m.deeds) && m.deeds[past].keep.Before(now) {
		past++
	}
	m.deeds = m.deeds[past:]
	if len(m.deeds) == 0 {
		m.deeds = nil // what a burst has filled is given back
	}
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

// look asks Redis for its lineage, and which of the gateways have a payment that is
// due.
func (l *Ledger) look(ctx context.Context, gateways []payment.Gateway) (lineage string, due []payment.Gateway, err error) {
	keys := make([]string, len(gateways))
	for i, g := range gateways {
		keys[i] = openKey(g)
	}
	answer, err := lookScript.Run(ctx, l.redis, keys, l.now().UnixMilli()).StringSlice()
	if err == nil && len(answer) != 1+len(gateways) {
		err = errors.New("unexpected answer of a script")
	}
	if err != nil {
		return "", nil, err
	}
	for i, g := range gateways {
		if answer[1+i] != "" {
			due = append(due, g)
		}
	}
	return answer[0], due, nil
}

// Meet gets to know a Redis, which may have forgotten. Whoever works with it later
// meets it by himself; a worker does so at its start, so that it does not take other
// workers' first claims for a sign that there is something to wait for.
func (l *Ledger) Meet(ctx context.Context) error {
	m := &l.memory
	m.meeting.Lock()
	defer m.meeting.Unlock()
	lineage, until, err := l.vigil(ctx)
	if err != nil {
		return fmt.Errorf("ledger: meet redis: %w", err)
	}
	if lineage == m.known() {
		return nil // another goroutine was faster
	}
	m.mu.Lock()
	m.lineage = "" // what is written from here on is not among what is put back
	m.mu.Unlock()
	forgotten, err := l.remind(ctx, lineage)
	if err != nil {
		return err
	}
	first := !m.met
	if first {
		// The first worker of all finds payments that were never claimed.
		untouched, err := l.untouched(ctx)
		if err != nil {
			return err
		}
		if untouched {
			until = time.Time{}
		}
	}
	m.mu.Lock()
	m.lineage, m.met, m.until = lineage, true, until
	m.mu.Unlock()
	if hold := m.hold(l.now()); l.OnReturn != nil && (!first || hold > 0) {
		l.OnReturn(forgotten, hold)
	}
	return nil
}

// vigil says which Redis this is, and until when its vigil is kept. It begins with
// the first who asks: whoever comes later waits for what is left of it.
func (l *Ledger) vigil(ctx context.Context) (lineage string, until time.Time, err error) {
	answer, err := meetScript.Run(ctx, l.redis, []string{vigilKey}, l.now().Add(vigil).UnixMilli()).StringSlice()
	if err != nil {
		return "", time.Time{}, err
	}
	if len(answer) != 2 {
		return "", time.Time{}, errors.New("unexpected answer of a script")
	}
	ms, err := strconv.ParseInt(answer[1], 10, 64)
	return answer[0], time.UnixMilli(ms), err
}

// remind puts back what Redis has forgotten of what this ledger remembers, and
// reports how many payments that were.
func (l *Ledger) remind(ctx context.Context, lineage string) (forgotten int, err error) {
	var claims, saves []call
	l.memory.mu.Lock()
	for _, d := range l.memory.deeds {
		if d.call.script == putBackScript {
			claims = append(claims, d.call)
		} else {
			saves = append(saves, d.call.under(lineage))
		}
	}
	l.memory.mu.Unlock()
	// A save is refused until its claim is back.
	for _, calls := range [][]call{claims, saves} {
		for some := range slices.Chunk(calls, reminders) {
			l.runAll(ctx, some, func(_ call, cmd *redis.Cmd) {
				word, e := cmd.Text()
				if e != nil {
					err = fmt.Errorf("ledger: remind redis: %w", e)
				}
				if word == "put back" {
					forgotten++
				}
			})
			if err != nil {
				return forgotten, err
			}
		}
	}
	return forgotten, nil
}

// attend is what a living worker does every second: it notices a Redis that has come
// back, and reminds it while the vigil lasts.
func (l *Ledger) attend(ctx context.Context, lineage string) error {
	m := &l.memory
	if lineage != m.known() {
		return l.Meet(ctx)
	}
	now := l.now()
	if m.hold(now) > 0 {
		// Once more: some of it builds on claims that others have put back meanwhile.
		_, err := l.remind(ctx, lineage)
		return err
	}
	m.mu.Lock()
	m.alive(lineage, now)
	m.mu.Unlock()
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
