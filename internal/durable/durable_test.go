package durable_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/redistest"
)

const key = "{terbayar:events}:durability"

var setScript = redis.NewScript(`redis.call('HSET', KEYS[1], 'x', ARGV[1]) return 'done'`)

func call(value string) durable.Call {
	return durable.Call{Script: setScript, Keys: []string{key}, Args: []any{value}}
}

func writer(client redis.UniversalClient, mode durable.Mode, replicas int, timeout time.Duration) *durable.Writer {
	return durable.New(durable.Options{
		Client: client, Mode: mode, Replicas: replicas, Timeout: timeout, Key: key, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
}

// TestSettings: what each mode makes of a Redis' settings.
func TestSettings(t *testing.T) {
	server := redistest.Server(t)
	client := server.Client(t)
	waitsForFsync := server.HasCommand(t, "waitaof")
	for _, row := range []struct {
		mode     durable.Mode
		settings string
		unfit    string // a part of what is said; empty: it is fit
		fsync    bool   // where Redis knows WAITAOF it is fit, and an fsync is waited for
	}{
		{durable.Auto, "appendonly yes,appendfsync always", "", false},
		{durable.Auto, "appendonly no", "appendonly is no; set appendonly yes and appendfsync always", false},
		{durable.Auto, "appendonly yes,appendfsync everysec", "set appendfsync always", true},
		{durable.Auto, "appendfsync no", "set appendfsync always", false},
		{durable.Auto, "appendfsync always,no-appendfsync-on-rewrite yes", "no-appendfsync-on-rewrite is yes", true},
		{durable.Replicas, "no-appendfsync-on-rewrite no,appendonly no", "no replica is connected", false},
		{durable.Trusted, "appendonly no", "", false},
		{durable.None, "appendonly no", "", false},
	} {
		for setting := range strings.SplitSeq(row.settings, ",") {
			name, value, _ := strings.Cut(setting, " ")
			if err := client.ConfigSet(t.Context(), name, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
		w := writer(client, row.mode, durable.EveryReplica, 0)
		err := w.Start(t.Context())
		fit := row.unfit == "" || row.fsync && waitsForFsync
		switch {
		case fit && err != nil:
			t.Errorf("%s with %s: %v", row.mode, row.settings, err)
		case fit && w.Status().Fsync != (row.fsync && waitsForFsync):
			t.Errorf("%s with %s: waits for an fsync: %v", row.mode, row.settings, w.Status().Fsync)
		case !fit && (!errors.Is(err, durable.ErrUnfit) || !strings.Contains(err.Error(), row.unfit)):
			t.Errorf("%s with %s: %v, want %q", row.mode, row.settings, err, row.unfit)
		}
		if _, err := w.Do(t.Context(), call("1")); errors.Is(err, durable.ErrUnfit) == fit {
			t.Errorf("%s with %s: a write came to %v", row.mode, row.settings, err)
		}
	}
}

// TestReplicas: a write is acknowledged by the replicas that are there, and after one was
// seen never by none.
func TestReplicas(t *testing.T) {
	g := redistest.NewReplicated(t, 1)
	primary := g.Nodes[0]
	client := primary.Client(t)
	w := writer(client, durable.Auto, durable.EveryReplica, time.Second)
	if _, err := w.Do(t.Context(), call("1")); err != nil {
		t.Fatal(err)
	}
	if s := w.Status(); s.Replicas != 1 || s.Needed != 1 {
		t.Errorf("%+v", s)
	}
	g.Nodes[1].Pause(t)
	replies, err := w.Do(t.Context(), call("2"))
	if !errors.Is(err, durable.ErrNotAcknowledged) || len(replies) != 1 || replies[0].Val() != "done" {
		t.Errorf("acknowledged by a replica that does not answer: %v, %v", replies, err)
	}
	w.Pause(err)
	if w.Paused() == "" {
		t.Error("not paused")
	}
	g.Nodes[1].Kill()
	fresh := writer(client, durable.Auto, durable.EveryReplica, 200*time.Millisecond) // another process
	if _, err := fresh.Do(t.Context(), call("3")); !errors.Is(err, durable.ErrNotAcknowledged) {
		t.Errorf("acknowledged without the replica that there was: %v", err)
	}
	if _, err := writer(client, durable.Auto, 0, 0).Do(t.Context(), call("4")); err != nil {
		t.Errorf("an operator has said that none is needed: %v", err)
	}
	if _, err := writer(client, durable.Trusted, 1, 200*time.Millisecond).Do(t.Context(), call("5")); !errors.Is(err, durable.ErrNotAcknowledged) {
		t.Errorf("acknowledged without the one replica that is wanted: %v", err)
	}

	g.Rejoin(t, g.Nodes[1])
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go w.Watch(ctx)
	for w.Paused() != "" {
		if ctx.Err() != nil {
			t.Fatal("still paused, though the replica is back")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestScriptsGoAgainWithTheirWait: a Redis that has forgotten a script, or refuses for a
// while, is asked again.
func TestScriptsGoAgainWithTheirWait(t *testing.T) {
	client := redistest.Server(t).Client(t)
	w := writer(client, durable.Auto, durable.EveryReplica, 0)
	for range 2 {
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if replies, err := w.Do(t.Context(), call("1"), call("2")); err != nil || replies[1].Val() != "done" {
			t.Fatal(replies, err)
		}
	}
	if err := client.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err(); err != nil { // NOREPLICAS
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := w.Do(ctx, call("3")); err == nil || errors.Is(err, durable.ErrNotAcknowledged) {
		t.Errorf("a refused write came to %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := w.Do(t.Context(), call("4"))
		done <- err
	}()
	if err := client.ConfigSet(t.Context(), "min-replicas-to-write", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestClock: only time that this process has measured is added to Redis' clock.
func TestClock(t *testing.T) {
	client := redistest.Server(t).Client(t)
	ahead := func() time.Time { return time.Now().Add(10 * time.Minute) }
	w := durable.New(durable.Options{
		Client: client, Mode: durable.None, Replicas: durable.EveryReplica, Key: key, Now: ahead, Log: slog.New(slog.DiscardHandler),
	})
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if off := time.Until(w.Time().At(ahead())).Abs(); off > 5*time.Second {
		t.Errorf("Redis' time is off by %s", off)
	}
	if skew := w.Status().Skew; skew > -9*time.Minute || len(w.Warnings()) != 2 {
		t.Errorf("skew %s, warnings %q", skew, w.Warnings())
	}
}
