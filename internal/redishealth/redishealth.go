// Package redishealth checks in the background whether Redis answers and accepts writes, and
// how full its memory is. It sends a write, because a Redis whose memory or disk is full
// still answers PING.
package redishealth

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
)

const (
	// interval is the time between two checks. A check is two commands in one round trip.
	interval = time.Second
	// checkTimeout is the timeout of one check.
	checkTimeout = time.Second
	// failuresUntilDown is how many checks in a row must get no answer before Redis counts as
	// down, so that one slow answer is no outage. An error that Redis returns counts at once.
	failuresUntilDown = 2
	// maxStateAge is the age after which a state no longer counts.
	maxStateAge = 5 * time.Second
	// logInterval is the interval of the log line while Redis is down or refuses writes.
	logInterval = time.Minute
)

// probeKey is the key that each check writes. It has the ledger's hash tag: in a Redis
// Cluster, the primary that must accept writes is the ledger's.
const probeKey = "{" + ledger.DefaultStream + "}:write-probe"

// State is the result of a check.
type State struct {
	Up       bool   // it answers
	Writable bool   // it accepts writes
	Problem  string // completes a sentence that begins with "redis"; contains no secrets; empty: no problem
	Full     bool   // it refuses writes because its memory is full

	// Of the fullest primary, in bytes. MaxMemory is maxmemory, or without it the memory of the
	// machine; 0 if INFO does not show them.
	UsedMemory, MaxMemory int64
}

// PaymentsLeft assumes the size of a payment while the ledger has too few to measure it: what
// one takes that is looked up, with its event and task.
const (
	assumedPaymentSize = 2048 // bytes
	minPayments        = 1000
	tombstoneSize      = 128 // bytes
)

// PaymentsLeft estimates how many more payments fit into Redis, if the ledger now has the
// given numbers of records and tombstones. It divides the free memory of the fullest primary by
// the memory that a payment takes there: its used memory, with queues and events, divided by all
// payments of the ledger, of which a tombstone counts as 1/16. So it is right for a primary that
// has only some of the ledger's partitions, and it changes when payments are compressed or
// events deleted.
func (s State) PaymentsLeft(payments, tombstones int64) (left int64, known bool) {
	if s.MaxMemory <= 0 {
		return 0, false
	}
	size := float64(assumedPaymentSize)
	payments += tombstones * tombstoneSize / assumedPaymentSize
	if payments >= minPayments {
		size = float64(s.UsedMemory) / float64(payments)
	}
	return int64(float64(max(0, s.MaxMemory-s.UsedMemory)) / size), true
}

// MemoryRatio returns the share of MaxMemory that Redis uses, if it is known.
func (s State) MemoryRatio() (ratio float64, known bool) {
	if s.MaxMemory <= 0 {
		return 0, false
	}
	return float64(s.UsedMemory) / float64(s.MaxMemory), true
}

// Err returns the problem as an error, or nil.
func (s State) Err() error {
	if s.Problem == "" {
		return nil
	}
	return errors.New("redis " + s.Problem)
}

// Check checks Redis once. The context bounds it.
func Check(ctx context.Context, client redis.UniversalClient) State {
	s := State{Up: true, Writable: true}
	err := writeProbe(ctx, client, &s)
	switch message, returned := redisError(err); {
	case err == nil:
	case !returned:
		s.Up, s.Writable, s.Problem = false, false, "does not answer"
	case strings.HasPrefix(message, "LOADING"):
		s.Up, s.Writable, s.Problem = false, false, "is loading its data"
	default:
		s.Writable = false
		s.Full, s.Problem = writeProblem(err, message)
	}
	return s
}

// writeProblem explains an error that Redis returned for a write.
func writeProblem(err error, message string) (full bool, problem string) {
	switch {
	case strings.HasPrefix(message, "OOM"):
		return true, "is full and refuses writes: raise maxmemory, or delete what is not needed"
	case strings.HasPrefix(message, "MISCONF"):
		return false, "refuses writes because it cannot write to its disk (MISCONF): see its log"
	case strings.HasPrefix(message, "NOREPLICAS"):
		return false, "refuses writes because too few of its replicas are connected (NOREPLICAS)"
	case strings.Contains(message, "READONLY"):
		return false, "refuses writes because it is a replica (READONLY)"
	case redis.IsAuthError(err):
		return false, "refuses the login: see REDIS_URL and REDIS_PASSWORD"
	default:
		code, _, _ := strings.Cut(message, " ")
		return false, "refuses writes (" + code + ")"
	}
}

// writeProbe writes the probe key and reads how much memory Redis uses. The error is that of
// the write.
func writeProbe(ctx context.Context, client redis.UniversalClient, s *State) error {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		var info *redis.StringCmd
		var set *redis.StatusCmd
		_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			set = pipe.Set(ctx, probeKey, "1", time.Minute)
			info = pipe.Info(ctx, "memory")
			return nil
		})
		s.addMemory(info.Val())
		if set.Val() == "OK" {
			return nil // only INFO failed, which may not be allowed
		}
		return cmp.Or(set.Err(), err) // after a refused login only the pipeline has the error
	}
	err := cluster.Set(ctx, probeKey, "1", time.Minute).Err()
	if err != nil && ctx.Err() != nil {
		return err
	}
	var mu sync.Mutex
	// This reads the memory of the primaries that answer. If another one does not answer, it
	// has no slot of the ledger, and asynq reports the problem with its queues.
	_ = cluster.ForEachMaster(ctx, func(ctx context.Context, primary *redis.Client) error {
		info := primary.Info(ctx, "memory").Val()
		mu.Lock()
		defer mu.Unlock()
		s.addMemory(info)
		return nil
	})
	return err
}

// addMemory stores the memory of a primary's INFO if it is the fullest so far. It ignores an
// INFO that does not show the memory (miniredis, some managed services).
func (s *State) addMemory(info string) {
	var other State
	var machine int64
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case err != nil:
		case name == "used_memory":
			other.UsedMemory = n
		case name == "maxmemory":
			other.MaxMemory = n
		case name == "total_system_memory":
			machine = n
		}
	}
	other.MaxMemory = cmp.Or(other.MaxMemory, machine)
	before, _ := s.MemoryRatio()
	if ratio, known := other.MemoryRatio(); known && ratio >= before || s.MaxMemory == 0 && !known && other.UsedMemory > s.UsedMemory {
		s.UsedMemory, s.MaxMemory = other.UsedMemory, other.MaxMemory
	}
}

// redisError returns the error text if Redis itself returned the error.
func redisError(err error) (message string, returned bool) {
	var redisErr redis.Error
	if err == nil || !errors.As(err, &redisErr) {
		return "", false
	}
	return strings.TrimPrefix(redisErr.Error(), "ERR "), true
}

// Monitor checks Redis in the background, so that its state can be read without waiting for
// Redis. It is safe for concurrent use.
type Monitor struct {
	check func(context.Context) State
	now   func() time.Time
	log   *slog.Logger

	mu           sync.Mutex
	state        State
	checkedAt    time.Time // of the latest check
	failures     int       // checks in a row without an answer
	problemSince time.Time // zero: there is no problem
	loggedAt     time.Time // of the latest log line about the problem
}

// New returns a Monitor. Until its first check, Redis counts as down.
func New(client redis.UniversalClient, now func() time.Time, log *slog.Logger) *Monitor {
	return &Monitor{
		check: func(ctx context.Context) State { return Check(ctx, client) }, now: now, log: log,
		state: State{Problem: "has not been checked yet"},
	}
}

// Run checks Redis every second until the context ends.
func (m *Monitor) Run(ctx context.Context) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		m.checkOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// checkOnce checks Redis once, and logs a change.
func (m *Monitor) checkOnce(ctx context.Context) {
	checkCtx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	state := m.check(checkCtx)
	if ctx.Err() != nil { // the check failed because Run ends
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checkedAt = m.now()
	if state.Up {
		m.failures = 0
	} else if m.failures++; m.failures < failuresUntilDown && m.state.Up {
		return
	}
	m.state = state
	m.logState()
}

// logState logs a problem when it begins, every logInterval, and when it ends. The caller
// holds mu.
func (m *Monitor) logState() {
	if m.state.Problem == "" {
		if !m.problemSince.IsZero() {
			m.log.Info("redis is back", "after", m.checkedAt.Sub(m.problemSince).Round(time.Second).String())
			m.problemSince, m.loggedAt = time.Time{}, time.Time{}
		}
		return
	}
	if m.problemSince.IsZero() {
		m.problemSince = m.checkedAt
	}
	if !m.loggedAt.IsZero() && m.checkedAt.Sub(m.loggedAt) < logInterval {
		return
	}
	m.loggedAt = m.checkedAt
	message := "redis refuses writes: no payment is recorded or sent"
	if !m.state.Up {
		message = "redis is down: no payment is recorded or sent"
	}
	m.log.Error(message, "problem", m.state.Problem, "since", m.problemSince.UTC().Format(time.RFC3339),
		"used_memory", m.state.UsedMemory, "maxmemory", m.state.MaxMemory)
}

// State returns the result of the latest check. It does not wait for Redis.
func (m *Monitor) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.checkedAt.IsZero() && m.now().Sub(m.checkedAt) > maxStateAge {
		return State{Problem: "has not answered for a while"}
	}
	return m.state
}

// Err returns the problem of the latest check, or nil. It does not wait for Redis.
func (m *Monitor) Err() error { return m.State().Err() }
