package retention

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/redistest"
)

const (
	stream  = ledger.DefaultStream
	keepFor = 100 * time.Hour
)

// env is a Trimmer with the groups that it has reported, and its log.
type env struct {
	*Trimmer
	groups map[string]Group
	log    bytes.Buffer
}

func newEnv(t *testing.T, client redis.UniversalClient, retention time.Duration, streams ...string) *env {
	t.Helper()
	e := &env{}
	e.Trimmer = &Trimmer{
		Redis: client, Streams: streams, Retention: retention, Log: slog.New(slog.NewTextHandler(&e.log, nil)),
		OnGroups: func(groups map[string]Group) { e.groups = groups },
	}
	// A node of one event: whole nodes are deleted. miniredis has neither nodes nor this command.
	_ = client.ConfigSet(t.Context(), "stream-node-max-entries", "1").Err()
	return e
}

func (e *env) trim(t *testing.T) {
	t.Helper()
	if err := e.Trim(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// now sets the clock of a miniredis, and returns the time of Redis, in ms.
func now(t *testing.T, client redis.UniversalClient) int64 {
	t.Helper()
	redistest.SetTime(client, time.UnixMilli(1_800_000_000_000))
	at, err := client.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return at.UnixMilli()
}

// add adds events with these ids, in order.
func add(t *testing.T, client redis.UniversalClient, stream string, ids ...string) {
	t.Helper()
	_, err := client.Pipelined(t.Context(), func(pipe redis.Pipeliner) error {
		for _, id := range ids {
			pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: stream, ID: id, Values: []string{"event", "{}"}})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ids returns the ids of a stream's events.
func ids(t *testing.T, client redis.UniversalClient, stream string) []string {
	t.Helper()
	entries, err := client.XRange(t.Context(), stream, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.ID)
	}
	return all
}

// read makes a consumer of a group read n events, and acknowledges those at the indexes.
func read(t *testing.T, client redis.UniversalClient, group, consumer string, n int, acknowledge ...int) {
	t.Helper()
	streams, err := client.XReadGroup(t.Context(), &redis.XReadGroupArgs{
		Group: group, Consumer: consumer, Streams: []string{stream, ">"}, Count: int64(n), Block: -1,
	}).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range acknowledge {
		if err := client.XAck(t.Context(), stream, group, streams[0].Messages[i].ID).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTrim: which of six events, 300 to 0 hours old, stay with a retention of 100 hours.
func TestTrim(t *testing.T) {
	t.Parallel()
	ages := []int{300, 200, 150, 120, 50, 0} // hours
	create := func(t *testing.T, client redis.UniversalClient, group, start string) {
		t.Helper()
		if err := client.XGroupCreate(t.Context(), stream, group, start).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name   string
		groups func(t *testing.T, client redis.UniversalClient)
		left   int                      // number of events that stay
		lags   map[string]time.Duration // before the trim, rounded to hours
		warn   string                   // a part of the only warning; empty: there is none
	}{
		{"no group", func(*testing.T, redis.UniversalClient) {}, 2, nil, ""},
		{"up to date", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", "0")
			read(t, client, "g", "c", 6, 0, 1, 2, 3, 4, 5)
		}, 2, map[string]time.Duration{"g": 0}, ""},
		{"lags less than the retention", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", "0")
			read(t, client, "g", "c", 4, 0, 1, 2, 3)
		}, 2, map[string]time.Duration{"g": 50 * time.Hour}, ""},
		{"not given", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", "0")
			read(t, client, "g", "c", 1, 0)
		}, 5, map[string]time.Duration{"g": 200 * time.Hour}, "consumer group lags"},
		{"pending", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", "0")
			read(t, client, "g", "c", 6, 0, 1, 3, 4, 5)
		}, 4, map[string]time.Duration{"g": 150 * time.Hour}, "consumer group lags"},
		{"pending and not given", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", "0")
			read(t, client, "g", "c", 3, 0, 2)
		}, 5, map[string]time.Duration{"g": 200 * time.Hour}, "consumer group lags"},
		{"pending for another consumer of the group", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", "0")
			read(t, client, "g", "c1", 2)
			read(t, client, "g", "c2", 4, 0, 1, 2, 3)
		}, 6, map[string]time.Duration{"g": 300 * time.Hour}, "consumer group lags"},
		{"acknowledged up to an event that was set back", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", "0")
			read(t, client, "g", "c", 6, 0, 1, 2, 3, 4, 5)
			if err := client.Do(t.Context(), "XGROUP", "SETID", stream, "g", "0").Err(); err != nil {
				t.Skipf("no XGROUP SETID: %v", err)
			}
		}, 6, map[string]time.Duration{"g": 300 * time.Hour}, "consumer group lags"},
		{"the slowest of several groups counts", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g1", "0")
			create(t, client, "g2", "0")
			read(t, client, "g1", "c", 6, 0, 1, 2, 3, 4, 5)
			read(t, client, "g2", "c", 3, 0, 1, 2)
		}, 3, map[string]time.Duration{"g1": 0, "g2": 120 * time.Hour}, "group=g2"},
		{"without consumers", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", "0")
		}, 2, map[string]time.Duration{"g": 300 * time.Hour}, "consumer group is idle"},
		{"without consumers, and its oldest event is younger than the warning of a lag", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", ids(t, client, stream)[3])
		}, 2, map[string]time.Duration{"g": 50 * time.Hour}, "consumer group is idle"},
		{"without consumers, and its oldest event is younger than the interval", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", ids(t, client, stream)[4])
		}, 2, map[string]time.Duration{"g": 0}, ""},
		{"created now, without consumers", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", "$")
		}, 2, map[string]time.Duration{"g": 0}, ""},
		{"a consumer that was deleted", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", "0")
			read(t, client, "g", "c", 1)
			if err := client.XGroupDelConsumer(t.Context(), stream, "g", "c").Err(); err != nil {
				t.Fatal(err)
			}
		}, 2, map[string]time.Duration{"g": 200 * time.Hour}, "consumer group is idle"},
		{"events that are pending and were deleted hold nothing back", func(t *testing.T, client redis.UniversalClient) {
			create(t, client, "g", "0")
			read(t, client, "g", "c", 6, 2, 3, 4, 5)
			for _, id := range ids(t, client, stream)[:2] {
				if err := client.XDel(t.Context(), stream, id).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}, 2, map[string]time.Duration{"g": 0}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
				e := newEnv(t, client, keepFor, stream)
				at := now(t, client)
				for _, hours := range ages {
					add(t, client, stream, fmt.Sprintf("%d-0", at-int64(hours)*time.Hour.Milliseconds()))
				}
				row.groups(t, client)
				all := ids(t, client, stream)
				want := all[max(0, len(all)-row.left):]
				e.trim(t)
				if n := strings.Count(e.log.String(), "level=WARN"); !strings.Contains(e.log.String(), row.warn) || n > 1 || (n == 1) != (row.warn != "") {
					t.Errorf("want the warning %q, got\n%s", row.warn, e.log.String())
				}
				lags := map[string]time.Duration{}
				for name, g := range e.groups {
					lags[name] = g.Lag.Round(time.Hour)
					if g.Idle != strings.Contains(e.log.String(), "consumer group is idle") {
						t.Errorf("%s: %+v\n%s", name, g, e.log.String())
					}
				}
				if !maps.Equal(lags, row.lags) {
					t.Errorf("lags %v, want %v", lags, row.lags)
				}
				for range 2 { // the second trim changes nothing
					if diff := cmp.Diff(want, ids(t, client, stream)); diff != "" {
						t.Fatalf("want -, got +\n%s\n%s", diff, e.log.String())
					}
					e.trim(t)
				}
			})
		})
	}
}

// TestAge: an event of exactly the retention stays, an older one does not.
func TestAge(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t) // its clock stands still
	e := newEnv(t, client, keepFor, stream)
	limit := now(t, client) - keepFor.Milliseconds()
	older, exactly := fmt.Sprintf("%d-5", limit-1), fmt.Sprintf("%d-0", limit)
	add(t, client, stream, older, exactly)
	e.trim(t)
	if diff := cmp.Diff([]string{exactly}, ids(t, client, stream)); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

// TestSeveralStreams: each partition's stream is trimmed by its own groups, a stream that does
// not exist or is empty is no error, and the largest lag of a group counts.
func TestSeveralStreams(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		streams := ledger.StreamNames(stream, 4)
		e := newEnv(t, client, keepFor, streams...)
		old := fmt.Sprintf("%d-0", now(t, client)-2*keepFor.Milliseconds())
		for _, s := range streams[:3] {
			add(t, client, s, old)
		}
		if err := client.XDel(t.Context(), streams[2], old).Err(); err != nil {
			t.Fatal(err)
		}
		for _, s := range streams[:2] {
			if err := client.XGroupCreate(t.Context(), s, "g", "0").Err(); err != nil {
				t.Fatal(err)
			}
		}
		read(t, client, "g", "c", 1) // of the first stream
		e.trim(t)
		if first, second := ids(t, client, streams[0]), ids(t, client, streams[1]); len(first) != 1 || len(second) != 0 {
			t.Errorf("%v %v", first, second)
		}
		if g := e.groups["g"]; g.Lag.Round(time.Hour) != 2*keepFor || !g.Idle { // idle in the second stream
			t.Errorf("%+v", g)
		}
		if err := client.Del(t.Context(), streams[0]).Err(); err != nil {
			t.Fatal(err)
		}
		if err := client.Set(t.Context(), streams[0], "x", 0).Err(); err != nil {
			t.Fatal(err)
		}
		add(t, client, streams[3], old)
		if err := e.Trim(t.Context()); err == nil || !strings.Contains(err.Error(), streams[0]) {
			t.Errorf("error %v", err)
		}
		if left := ids(t, client, streams[3]); len(left) != 0 {
			t.Errorf("after the error of another stream %v is left", left)
		}
	})
}

// TestIdleGroup: events are kept for a group until its last consumer has been idle for the
// retention. (A consumer of miniredis is never idle.)
func TestIdleGroup(t *testing.T) {
	t.Parallel()
	client := redistest.Server(t).Client(t)
	add(t, client, stream, fmt.Sprintf("%d-0", now(t, client)-keepFor.Milliseconds()))
	if err := client.XGroupCreate(t.Context(), stream, "g", "0").Err(); err != nil {
		t.Fatal(err)
	}
	read(t, client, "g", "c", 1)
	newEnv(t, client, time.Hour, stream).trim(t)
	if left := ids(t, client, stream); len(left) != 1 {
		t.Fatalf("left: %v", left)
	}

	// The idle time cannot be set: await that of all consumers.
	awaitIdle := func(short time.Duration) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; {
			consumers, err := client.XInfoConsumers(t.Context(), stream, "g").Result()
			if err != nil || time.Now().After(deadline) {
				t.Fatal(consumers, err)
			}
			if !slices.ContainsFunc(consumers, func(c redis.XInfoConsumer) bool { return c.Idle < short }) {
				return
			}
		}
	}
	const short = time.Second
	awaitIdle(short)
	if err := client.XGroupCreateConsumer(t.Context(), stream, "g", "another").Err(); err != nil {
		t.Fatal(err)
	}
	newEnv(t, client, short, stream).trim(t) // within a second
	if left := ids(t, client, stream); len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
	awaitIdle(short)
	e := newEnv(t, client, short, stream)
	e.trim(t)
	if left := ids(t, client, stream); len(left) != 0 || !strings.Contains(e.log.String(), "consumer group is idle") {
		t.Errorf("left: %v\n%s", left, e.log.String())
	}
}

// TestManyEvents: one trim deletes more events than one script does, in whole nodes.
func TestManyEvents(t *testing.T) {
	t.Parallel()
	client := redistest.Server(t, "--appendfsync", "no").Client(t)
	e := newEnv(t, client, keepFor, stream)
	if err := client.ConfigSet(t.Context(), "stream-node-max-entries", "100").Err(); err != nil {
		t.Fatal(err)
	}
	old := now(t, client) - 2*keepFor.Milliseconds()
	var many []string
	for i := range 2*maxDeleted + 250 {
		many = append(many, fmt.Sprintf("%d-%d", old, i+1))
	}
	add(t, client, stream, many...)
	add(t, client, stream, "*")
	e.trim(t)
	if n := len(ids(t, client, stream)); n < 1 || n > 100 {
		t.Errorf("%d events are left", n)
	}
}

// TestCluster: each stream is trimmed on the node of its slot.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.NewCluster(t)
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{cluster.Primaries[0].Addr}})
	t.Cleanup(func() { _ = client.Close() })
	streams := ledger.StreamNames(stream, 6)
	for _, p := range cluster.Primaries {
		newEnv(t, p.Client(t), keepFor) // nodes of one event
	}
	e := newEnv(t, client, keepFor, streams...)
	for _, s := range streams {
		add(t, client, s, "1-0", "*")
	}
	e.trim(t)
	for _, s := range streams {
		if left := ids(t, client, s); len(left) != 1 {
			t.Errorf("%s: %v", s, left)
		}
	}
}

// TestRun: Run trims at once and at every interval, survives errors, and ends with its context.
func TestRun(t *testing.T) {
	t.Parallel()
	client := redistest.Mini(t)
	e := newEnv(t, client, time.Second, stream) // an interval of a second
	if err := client.Set(t.Context(), stream, "no stream", 0).Err(); err != nil {
		t.Fatal(err)
	}
	trims := make(chan struct{})
	e.OnGroups = func(map[string]Group) { trims <- struct{}{} }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.Run(ctx)
	}()
	<-trims
	if err := client.Del(t.Context(), stream).Err(); err != nil {
		t.Fatal(err)
	}
	add(t, client, stream, "1-0")
	<-trims
	cancel()
	<-ended
	if left := ids(t, client, stream); len(left) != 0 || !strings.Contains(e.log.String(), "trimming the events failed") {
		t.Errorf("left: %v\n%s", left, e.log.String())
	}
}

func TestInterval(t *testing.T) {
	for retention, want := range map[time.Duration]time.Duration{
		90 * 24 * time.Hour: time.Hour, 36 * time.Hour: time.Hour, time.Hour: 6 * time.Minute, time.Second: time.Second,
	} {
		if got := (&Trimmer{Retention: retention}).Interval(); got != want {
			t.Errorf("%s: %s, want %s", retention, got, want)
		}
	}
}

// TestHold: events that a webhook endpoint needs stay, however old they are.
func TestHold(t *testing.T) {
	t.Parallel()
	const cursor, heads = "{terbayar:events}:webhook:shop:cursor", "{terbayar:events}:webhook:shop:heads"
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client, keepFor, stream)
		at := now(t, client)
		var all []string
		for _, hours := range []int64{300, 250, 200, 50} {
			all = append(all, fmt.Sprintf("%d-0", at-hours*time.Hour.Milliseconds()))
		}
		add(t, client, stream, all...)
		e.Hold = func(string) []string { return []string{cursor, heads} }
		for _, row := range []struct {
			cursor string
			head   string // of the oldest delivery that is not over; "": there is none
			left   int
		}{
			{"0-0", "", 4},      // nothing was read
			{all[0], "", 3},     // the second event is not read
			{all[3], all[2], 2}, // all were read, the third is not delivered
			{all[3], all[3], 1}, // nothing old is needed
			{all[3], "", 1},
		} {
			client.Set(t.Context(), cursor, row.cursor, 0)
			client.Del(t.Context(), heads)
			if row.head != "" {
				ms, _ := strconv.ParseFloat(strings.TrimSuffix(row.head, "-0"), 64)
				client.ZAdd(t.Context(), heads, redis.Z{Score: ms, Member: "paydia:A"})
			}
			e.trim(t)
			if left := ids(t, client, stream); len(left) != row.left {
				t.Errorf("%+v: %v is left", row, left)
			}
		}
	})
}
