package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"terbayar/internal/ledger"
	"terbayar/internal/redistest"
)

// host gives the set-ups of redistest what they need of a test.
type host struct {
	//nolint:containedctx // redistest asks for it, as testing.TB does
	ctx      context.Context
	dir      string
	folders  int
	cleanups []func()
}

// failure is the panic by which a set-up ends.
type failure struct{ err error }

func (*host) Helper()                    {}
func (h *host) Context() context.Context { return h.ctx }
func (h *host) Cleanup(f func())         { h.cleanups = append(h.cleanups, f) }
func (*host) Fatal(args ...any)          { panic(failure{fmt.Errorf("%s", fmt.Sprint(args...))}) }
func (*host) Fatalf(format string, args ...any) {
	panic(failure{fmt.Errorf(format, args...)})
}
func (h *host) Skipf(format string, args ...any) { h.Fatalf(format, args...) }

func (h *host) TempDir() string {
	h.folders++
	dir := filepath.Join(h.dir, fmt.Sprintf("redis-%d", h.folders))
	if err := os.Mkdir(dir, 0o700); err != nil {
		h.Fatal(err)
	}
	return dir
}

func (h *host) close() {
	for len(h.cleanups) > 0 {
		last := len(h.cleanups) - 1
		h.cleanups[last]()
		h.cleanups = h.cleanups[:last]
	}
}

// try runs what uses the host, and returns what it fails with.
func (h *host) try(do func()) (err error) {
	defer func() {
		switch f := recover().(type) {
		case nil:
		case failure:
			err = fmt.Errorf("redis: %w", f.err)
		default:
			panic(f)
		}
	}()
	do()
	return nil
}

// deployment is the Redis of a run.
type deployment struct {
	url string
	// fail lets it fail once and returns when it is whole again; in the moment in which it
	// fails it calls moment.
	fail func(chance *rand.Rand, moment func(how string))
}

// deploy starts the Redis that the flags want.
func (s *stage) deploy() *deployment {
	switch s.Redis {
	case "sentinel1":
		return s.group(1)
	case "sentinel2":
		return s.group(2)
	case "cluster":
		return s.shards()
	default:
		return s.standalone()
	}
}

// standalone is one Redis that is killed and comes back with its append-only file.
func (s *stage) standalone() *deployment {
	server := redistest.Server(s.host)
	return &deployment{url: server.URL(), fail: func(chance *rand.Rand, moment func(string)) {
		away := s.RedisAway
		if away == 0 {
			away = 100*time.Millisecond + time.Duration(chance.Int64N(int64(4*time.Second)))
		}
		moment(fmt.Sprintf("kill -9 redis-server, away for %s", away.Round(time.Millisecond)))
		server.Kill()
		pause(s.host.ctx, away)
		server.Start(s.host)
	}}
}

// lag is how long a replica lags before it is promoted: long enough for claims to be
// made and sent that it does not hear of, if nobody waits for it.
func lag(chance *rand.Rand) time.Duration {
	return time.Duration(chance.Int64N(int64(1500 * time.Millisecond)))
}

// group is a primary with replicas and a Sentinel. One replica lags and is promoted:
// the primary is killed, or frozen for a while, or well and told to go.
func (s *stage) group(replicas int) *deployment {
	g := redistest.NewReplicated(s.host, replicas)
	return &deployment{url: g.URL(), fail: func(chance *rand.Rand, moment func(string)) {
		primary := g.Primary(s.host.ctx)
		if primary == nil {
			s.host.Fatal("the Sentinel knows no primary")
		}
		others := make([]*redistest.Node, 0, replicas)
		for _, n := range g.Nodes {
			if n != primary {
				others = append(others, n)
			}
		}
		late := others[chance.IntN(len(others))]
		for _, n := range g.Nodes {
			n.Prefer(s.host, n == late)
		}
		pause(s.host.ctx, 700*time.Millisecond) // until the Sentinel has seen whom to prefer
		primary.Proxy.Hold(late.Proxy)
		pause(s.host.ctx, lag(chance))
		how := chance.IntN(3)
		switch how {
		case 0:
			moment("the primary is killed, and the replica that lags promoted")
			primary.Kill()
		case 1:
			moment("the primary is frozen, and the replica that lags promoted")
			primary.Pause(s.host)
		default:
			moment("the replica that lags is promoted, the primary being well")
			if err := g.Failover(s.host.ctx); err != nil {
				s.host.Fatal(err)
			}
		}
		now := g.AwaitPromotion(s.host, primary)
		primary.Proxy.Drop(late.Proxy)
		if now == late {
			s.lateWon++
		}
		switch how {
		case 0:
			pause(s.host.ctx, lag(chance))
			g.Rejoin(s.host, primary)
		case 1:
			pause(s.host.ctx, 2*lag(chance))
			primary.Resume(s.host)
		}
		g.AwaitReplicas(s.host, replicas)
	}}
}

// shards is a Cluster. The replica of the ledger's primary lags and takes over.
func (s *stage) shards() *deployment {
	c := redistest.NewReplicatedCluster(s.host)
	return &deployment{url: c.URL(), fail: func(chance *rand.Rand, moment func(string)) {
		primary, late := c.Pair(s.host, ledger.DefaultStream)
		primary.Proxy.Hold(late.Proxy)
		pause(s.host.ctx, lag(chance))
		moment("the replica that lags takes over")
		kill := chance.IntN(2) == 0
		if kill {
			primary.Kill()
		}
		if err := c.TakeOver(s.host.ctx, late); err != nil {
			s.host.Fatal(err)
		}
		s.lateWon++
		if kill {
			pause(s.host.ctx, lag(chance))
			primary.Start(s.host) // it finds out by itself that it is a replica now
		}
		c.AwaitHolder(s.host, ledger.DefaultStream, late)
		primary.Proxy.Drop(late.Proxy)
		c.Pair(s.host, ledger.DefaultStream)
	}}
}
