package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"terbayar/internal/ledger"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// deployment is the Redis of a run.
type deployment struct {
	url string
	// fail makes Redis fail once, and returns when it works again. It calls moment at the
	// moment of the failure. late: the replica that lagged was promoted.
	fail func(random *rand.Rand, moment func(how string)) (late bool)
}

// deploy starts the Redis that the flags name.
func deploy(t *testenv.ProgramTB, f flags) *deployment {
	switch f.Redis {
	case "sentinel1":
		return sentinel(t, 1)
	case "sentinel2":
		return sentinel(t, 2)
	case "cluster":
		return cluster(t)
	default:
		return standalone(t, f.RedisDown)
	}
}

// standalone returns one Redis that is killed and restarted with its append-only file. It is
// down for the fixed time, or if that is 0 for up to about 4 s.
func standalone(t *testenv.ProgramTB, fixed time.Duration) *deployment {
	server := redistest.Server(t)
	return &deployment{url: server.URL(), fail: func(random *rand.Rand, moment func(string)) bool {
		down := fixed
		if down == 0 {
			down = 100*time.Millisecond + time.Duration(random.Int64N(int64(4*time.Second)))
		}
		moment(fmt.Sprintf("kill -9 redis-server, down for %s", down.Round(time.Millisecond)))
		server.Kill()
		sleep(t.Context(), down)
		server.Start(t)
		return false
	}}
}

// lag is how long a replica lags before it is promoted: long enough that workers which do
// not wait for it can claim and send payments whose claims the replica does not have.
func lag(random *rand.Rand) time.Duration {
	return time.Duration(random.Int64N(int64(1500 * time.Millisecond)))
}

// sentinel returns a primary with replicas and a Sentinel. One replica lags and is promoted, with
// the primary killed, frozen for a while, or alive.
func sentinel(t *testenv.ProgramTB, replicas int) *deployment {
	g := redistest.NewReplicated(t, replicas)
	return &deployment{url: g.URL(), fail: func(random *rand.Rand, moment func(string)) bool {
		primary := g.Primary(t.Context())
		if primary == nil {
			t.Fatal("the Sentinel reports no primary")
		}
		others := make([]*redistest.Node, 0, replicas)
		for _, n := range g.Nodes {
			if n != primary {
				others = append(others, n)
			}
		}
		late := others[random.IntN(len(others))]
		g.Prefer(t, late)
		primary.Proxy.Hold(late.Proxy)
		sleep(t.Context(), lag(random))
		const killed, frozen = 0, 1
		how := random.IntN(3)
		switch how {
		case killed:
			moment("the primary is killed, the replica that lags is promoted")
			primary.Kill()
		case frozen:
			moment("the primary is frozen, the replica that lags is promoted")
			primary.Pause(t)
		default:
			moment("the primary is alive, the replica that lags is promoted")
			if err := g.Failover(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		now := g.AwaitPromotion(t, primary)
		primary.Proxy.Drop(late.Proxy)
		switch how {
		case killed:
			sleep(t.Context(), lag(random))
			g.Rejoin(t, primary)
		case frozen:
			sleep(t.Context(), 2*lag(random))
			primary.Resume(t)
		}
		g.AwaitReplicas(t, replicas)
		return now == late
	}}
}

// cluster returns a Cluster. The replica of the ledger's primary lags and takes over.
func cluster(t *testenv.ProgramTB) *deployment {
	c := redistest.NewReplicatedCluster(t)
	return &deployment{url: c.URL(), fail: func(random *rand.Rand, moment func(string)) bool {
		primary, late := c.Pair(t, ledger.DefaultStream)
		primary.Proxy.Hold(late.Proxy)
		sleep(t.Context(), lag(random))
		moment("the replica that lags takes over")
		kill := random.IntN(2) == 0
		if kill {
			primary.Kill()
		}
		if err := c.TakeOver(t.Context(), late); err != nil {
			t.Fatal(err)
		}
		if kill {
			sleep(t.Context(), lag(random))
			primary.Start(t) // the other nodes make it a replica
		}
		c.AwaitHolder(t, ledger.DefaultStream, late)
		primary.Proxy.Drop(late.Proxy)
		c.Pair(t, ledger.DefaultStream)
		return true
	}}
}
