package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
)

// storm hands the payments in, while workers, Redis and gateways fail. When it
// returns, every payment was taken, Redis is up, and all workers are there.
func (s *stage) storm(ctx context.Context, c *evidence) error {
	group, ctx := errgroup.WithContext(ctx)
	raging, cancel := context.WithTimeout(ctx, s.Duration)
	defer cancel()
	group.Go(func() error { return s.handIn(ctx, c) })
	if s.KillEvery > 0 {
		group.Go(func() error { return s.killWorkers(raging, c) })
	}
	if s.RedisFailsEvery > 0 {
		group.Go(func() error { return s.failRedis(raging, c) })
	}
	if s.GatewayDown != "" {
		group.Go(func() error { s.loseGateway(raging, c); return nil })
	}
	return group.Wait()
}

// chance is a source of chance of its own for each who needs one, so that they do
// not disturb each other's.
func (s *stage) chance(who uint64) *rand.Rand {
	return rand.New(rand.NewPCG(s.Seed, who)) //nolint:gosec // a run can be repeated
}

// about is a time of that length on average.
func about(d time.Duration, chance *rand.Rand) time.Duration {
	return d/2 + time.Duration(chance.Int64N(int64(d)+1))
}

// pause waits, and reports whether there is still something to wait for.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// handIn enqueues all payments, a few at a time, over most of the storm.
func (s *stage) handIn(ctx context.Context, c *evidence) error {
	const largest = 15
	chance := s.chance(1)
	gap := s.Duration * 8 / 10 * (largest + 1) / 2 / time.Duration(len(c.payments))
	for left := c.payments; len(left) > 0; {
		n := min(1+chance.IntN(largest), len(left))
		if err := s.create(ctx, c, left[:n]); err != nil {
			return err
		}
		left = left[n:]
		if !pause(ctx, about(gap, chance)) {
			return ctx.Err()
		}
	}
	return nil
}

// create enqueues payments as a user does: what was not taken is handed in again.
func (s *stage) create(ctx context.Context, c *evidence, batch []entry) error {
	var file strings.Builder
	for _, p := range batch {
		file.WriteString(p.line)
	}
	for patience := time.Now().Add(s.RedisAway + 3*time.Minute); ; {
		code, err := s.enqueueOnce(ctx, c, file.String())
		switch {
		case err != nil:
			return err
		case code == 0:
			return nil
		case time.Now().After(patience):
			return fmt.Errorf("enqueue create cannot hand payments in: exit code %d", code)
		case !pause(ctx, 200*time.Millisecond):
			return ctx.Err()
		}
	}
}

// enqueueOnce runs enqueue create once and takes note of its answers.
func (s *stage) enqueueOnce(ctx context.Context, c *evidence, file string) (code int, err error) {
	c.shop.Lock()
	defer c.shop.Unlock()
	stdout, code, err := s.enqueue(ctx, file, "create")
	if err != nil {
		return code, err
	}
	if code != 0 {
		c.runAgain++
	}
	return code, c.hear(stdout)
}

// hear takes note of what enqueue create answered. Taken once is taken for good.
func (c *evidence) hear(stdout []byte) error {
	for dec := json.NewDecoder(bytes.NewReader(stdout)); dec.More(); {
		var a struct {
			Gateway       payment.Gateway `json:"gateway"`
			TransactionID string          `json:"transaction_id"`
			Result        string          `json:"result"`
			Error         string          `json:"error"`
		}
		if err := dec.Decode(&a); err != nil {
			return fmt.Errorf("an answer of enqueue create: %w", err)
		}
		key := payment.Key{Gateway: a.Gateway, TransactionID: a.TransactionID}
		switch a.Result {
		case "enqueued", "duplicate":
			if c.taken[key] && a.Result == "enqueued" {
				c.accuse("lost", key, "enqueue had taken it, and later took it as new")
			}
			c.taken[key] = true
		case "failed": // Redis is away
		default:
			return fmt.Errorf("enqueue create answers %s: %s: %s", key, a.Result, a.Error)
		}
	}
	return nil
}

// killWorkers kills a worker now and then, or tells it to end, and starts another.
func (s *stage) killWorkers(raging context.Context, c *evidence) error {
	chance := s.chance(2)
	for pause(raging, about(s.KillEvery, chance)) {
		if err := s.killWorker(chance, c); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) killWorker(chance *rand.Rand, c *evidence) error {
	s.crew.Lock()
	defer s.crew.Unlock()
	i := chance.IntN(len(s.workers))
	victim := s.workers[i]
	s.workers = slices.Delete(s.workers, i, i+1)
	switch {
	case victim.hasEnded():
		s.say("%s has ended by itself", victim.name)
		c.crashes = append(c.crashes, victim.name)
	case chance.IntN(4) == 0:
		s.say("SIGTERM to %s", victim.name)
		c.terms++
		s.leaving = append(s.leaving, leaver{victim, time.Now()})
		_ = victim.cmd.Process.Signal(syscall.SIGTERM) // it may end this very moment
	default:
		s.say("kill -9 %s", victim.name)
		c.kills++
		victim.kill()
	}
	return s.hire()
}

// failRedis lets Redis fail now and then, half the time in the moment in which a worker
// is ended too. (Others are ended meanwhile whenever their time has come.)
func (s *stage) failRedis(raging context.Context, c *evidence) error {
	chance, victims := s.chance(3), s.chance(4)
	for pause(raging, about(s.RedisFailsEvery, chance)) {
		var outage span
		ended := make(chan error, 1)
		err := s.host.try(func() {
			s.server.fail(chance, func(how string) {
				s.say("%s", how)
				outage.from = time.Now()
				if s.KillEvery == 0 || victims.IntN(2) == 0 {
					ended <- nil
					return
				}
				c.coincidences++
				go func() { ended <- s.killWorker(victims, c) }()
			})
		})
		if err != nil {
			return err
		}
		outage.to = time.Now()
		c.outages = append(c.outages, outage)
		if err := <-ended; err != nil {
			return err
		}
	}
	c.lateWon = s.lateWon
	return nil
}

// loseGateway lets the gateway that is to be down work for a tenth of the storm,
// so that payments are under way there, and then lose every connection.
func (s *stage) loseGateway(raging context.Context, c *evidence) {
	if !pause(raging, s.Duration/10) {
		return
	}
	s.say("%s is down", s.GatewayDown)
	c.down.from = time.Now()
	s.sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostBefore, Operation: gatewaysim.Operation(s.GatewayDown)})
	<-raging.Done()
	c.down.to = time.Now()
}

// settle waits until every payment is where its customer has brought it, or before
// a person. It takes no longer than allowed: what is open then is for the judge.
func (s *stage) settle(ctx context.Context, payments []entry) (took time.Duration, err error) {
	begun := time.Now()
	told := -1
	for {
		open := 0
		rows := s.rows()
		for _, p := range payments {
			r, err := s.book.Read(ctx, p.key)
			if err != nil && ctx.Err() != nil {
				return 0, err
			}
			if err != nil || r.Status != payment.NeedsReview && (r.Status != p.ends || !agrees(&r.Payment, p.amount, rows[p.key])) {
				open++
			}
		}
		took = time.Since(begun)
		if open != told {
			s.say("%d of %d payments have not settled", open, len(payments))
			told = open
		}
		if open == 0 || took > s.Settle {
			return took, nil
		}
		if !pause(ctx, 500*time.Millisecond) {
			return 0, ctx.Err()
		}
	}
}

// leaver is a worker that was told to end.
type leaver struct {
	*process

	told time.Time
}

// dismiss tells the workers to end, and names those that ended by themselves, not
// in time, or not well.
func (s *stage) dismiss() (crashes []string) {
	for _, w := range s.workers {
		if w.hasEnded() {
			crashes = append(crashes, w.name)
			continue
		}
		_ = w.cmd.Process.Signal(syscall.SIGTERM) // it may end this very moment
		s.leaving = append(s.leaving, leaver{w, time.Now()})
	}
	s.workers = nil
	for _, l := range s.leaving {
		inTime := l.told.Add(shutdownGrace)
		select {
		case <-l.ended:
		case <-time.After(time.Until(inTime)):
			l.kill()
		}
		if code := l.cmd.ProcessState.ExitCode(); code != 0 || l.endAt.After(inTime) {
			crashes = append(crashes, fmt.Sprintf("%s (exit code %d, %s after SIGTERM)", l.name, code, l.endAt.Sub(l.told).Round(time.Millisecond)))
		}
	}
	return crashes
}
