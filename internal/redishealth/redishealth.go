// Package redishealth looks after the Redis that everything hangs on: whether it
// answers, takes writes, and how full it is. A Redis that is full, or whose disk
// is, still answers every PING; only a write tells.
package redishealth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
)

const (
	// every is how often Redis is looked at: two commands, in one round trip.
	every = time.Second
	// patience bounds one look.
	patience = time.Second
	// misses is how many looks in a row may go unanswered before Redis is called
	// down: one slow answer is no outage. A refusal counts at once.
	misses = 2
	// stale is how old a state may be that is believed.
	stale = 5 * time.Second
	// reminder is how often a Redis that stays unfit is told of.
	reminder = time.Minute
)

// probeKey is written with every look. Its hash tag is the ledger's: in a Redis
// Cluster it is the ledger's primary that has to take writes.
const probeKey = "{" + ledger.DefaultStream + "}:write-probe"

// State is what a look at Redis has found.
type State struct {
	Up       bool   // it answers
	Writable bool   // it takes writes
	Problem  string // what is wrong, in words, safe to show anywhere; "" when nothing is
	Full     bool   // it refuses writes because its memory is used up

	UsedMemory, MaxMemory int64 // bytes, of the fullest primary; MaxMemory 0: no limit, or not told
}

// MemoryRatio is the part of its memory that is used, where it has a limit and
// tells it.
func (s State) MemoryRatio() (ratio float64, known bool) {
	if s.MaxMemory <= 0 {
		return 0, false
	}
	return float64(s.UsedMemory) / float64(s.MaxMemory), true
}

// Err is nil when Redis answers and takes writes, and says what is wrong
// otherwise.
func (s State) Err() error {
	if s.Problem == "" {
		return nil
	}
	return errors.New("redis " + s.Problem)
}

// Look looks at a Redis once. The context bounds it.
func Look(ctx context.Context, client redis.UniversalClient) State {
	s := State{Up: true, Writable: true}
	err := write(ctx, client, &s)
	switch refusal, refused := refusalOf(err); {
	case err == nil:
	case refused && strings.HasPrefix(refusal, "OOM"):
		s.Writable, s.Full = false, true
		s.Problem = "is full and refuses writes: raise maxmemory, or delete what is not needed"
	case refused && strings.HasPrefix(refusal, "MISCONF"):
		s.Writable, s.Problem = false, "refuses writes because it cannot write to its disk (MISCONF): see its log"
	case refused && strings.HasPrefix(refusal, "NOREPLICAS"):
		s.Writable, s.Problem = false, "refuses writes because too few of its replicas are connected (NOREPLICAS)"
	case refused && strings.Contains(refusal, "READONLY"):
		s.Writable, s.Problem = false, "refuses writes because it is a replica (READONLY)"
	case refused && redis.IsAuthError(err):
		s.Writable, s.Problem = false, "refuses the login: see REDIS_URL and REDIS_PASSWORD"
	case refused && strings.HasPrefix(refusal, "LOADING"):
		s.Up, s.Writable, s.Problem = false, false, "is loading its data"
	case refused:
		s.Writable, s.Problem = false, "refuses writes ("+strings.SplitN(refusal, " ", 2)[0]+")"
	default:
		s.Up, s.Writable, s.Problem = false, false, "does not answer"
	}
	return s
}

// write writes the probe, and reads how full Redis is beside it. The error is that
// of the write.
func write(ctx context.Context, client redis.UniversalClient, s *State) error {
	cluster, ok := client.(*redis.ClusterClient)
	if !ok {
		var info *redis.StringCmd
		var set *redis.StatusCmd
		_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			set = pipe.Set(ctx, probeKey, "1", time.Minute)
			info = pipe.Info(ctx, "memory")
			return nil
		})
		s.memory(info.Val())
		if set.Val() == "OK" {
			return nil // INFO may be forbidden
		}
		return cmp.Or(set.Err(), err) // a refused login is the pipeline's alone
	}
	err := cluster.Set(ctx, probeKey, "1", time.Minute).Err()
	if err != nil && ctx.Err() != nil {
		return err
	}
	var mu sync.Mutex
	// A primary that does not answer holds other slots: its queue's trouble is told by
	// asynq, and here the memory of the others.
	_ = cluster.ForEachMaster(ctx, func(ctx context.Context, primary *redis.Client) error {
		info := primary.Info(ctx, "memory").Val()
		mu.Lock()
		defer mu.Unlock()
		s.memory(info)
		return nil
	})
	return err
}

// memory takes note of a primary's INFO memory, if it is the fullest so far. One
// that tells nothing (miniredis, some managed ones) changes nothing.
func (s *State) memory(info string) {
	var other State
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		n, err := strconv.ParseInt(value, 10, 64)
		switch {
		case err != nil:
		case name == "used_memory":
			other.UsedMemory = n
		case name == "maxmemory":
			other.MaxMemory = n
		}
	}
	before, _ := s.MemoryRatio()
	if ratio, known := other.MemoryRatio(); known && ratio >= before || s.MaxMemory == 0 && !known && other.UsedMemory > s.UsedMemory {
		s.UsedMemory, s.MaxMemory = other.UsedMemory, other.MaxMemory
	}
}

// refusalOf is what Redis itself answered, if it did.
func refusalOf(err error) (string, bool) {
	var refusal redis.Error
	if err == nil || !errors.As(err, &refusal) {
		return "", false
	}
	return strings.TrimPrefix(refusal.Error(), "ERR "), true
}

// Watch looks at a Redis in the background, so that whoever wants to know how it is
// need not wait for it. It is safe for concurrent use.
type Watch struct {
	look func(context.Context) State
	now  func() time.Time
	log  *slog.Logger

	mu     sync.Mutex
	state  State
	at     time.Time // of the latest look
	missed int       // looks in a row without an answer
	since  time.Time // when it became unfit; zero: it is fit
	told   time.Time
}

// New makes a watch over a client's Redis. It has not looked yet: Redis is down as
// far as it knows.
func New(client redis.UniversalClient, now func() time.Time, log *slog.Logger) *Watch {
	return &Watch{
		look: func(ctx context.Context) State { return Look(ctx, client) }, now: now, log: log,
		state: State{Problem: "has not been asked yet"},
	}
}

// Run looks every second until the context ends.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		w.once(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// once looks once, and tells what has changed.
func (w *Watch) once(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found := w.look(bounded)
	if ctx.Err() != nil { // we end, not Redis
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = w.now()
	if found.Up {
		w.missed = 0
	} else if w.missed++; w.missed < misses && w.state.Up {
		return
	}
	w.state = found
	w.tell()
}

// tell logs when Redis becomes unfit, once a minute while it stays so, and when it
// is well again. The caller holds mu.
func (w *Watch) tell() {
	switch {
	case w.state.Problem == "" && w.since.IsZero():
	case w.state.Problem == "":
		w.log.Info("redis answers and takes writes again", "after", w.at.Sub(w.since).Round(time.Second).String())
		w.since, w.told = time.Time{}, time.Time{}
	default:
		if w.since.IsZero() {
			w.since = w.at
		}
		if w.told.IsZero() || w.at.Sub(w.told) >= reminder {
			w.told = w.at
			w.log.Error(fmt.Sprintf("redis %s: no payment is taken or sent meanwhile", w.state.Problem),
				"since", w.since.UTC().Format(time.RFC3339), "used_memory", w.state.UsedMemory, "maxmemory", w.state.MaxMemory)
		}
	}
}

// State is how Redis was when it was last looked at, at once.
func (w *Watch) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.at.IsZero() && w.now().Sub(w.at) > stale {
		return State{Problem: "has not answered for a while"}
	}
	return w.state
}

// Err says why Redis is not fit to work with, at once; nil when it is.
func (w *Watch) Err() error { return w.State().Err() }
