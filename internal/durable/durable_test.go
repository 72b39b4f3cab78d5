package durable_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
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

func newWriter(client redis.UniversalClient, mode durable.Mode, replicas int, timeout time.Duration) *durable.Writer {
	return durable.New(durable.Options{
		Client: client, Mode: mode, Replicas: replicas, Timeout: timeout, Key: key, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
}

// TestSettings: each mode checks the settings of Redis, and a write fails if they are not
// enough.
func TestSettings(t *testing.T) {
	t.Parallel()
	server := redistest.Server(t)
	client := server.Client(t)
	hasWaitAOF := server.HasCommand(t, "waitaof")
	for _, row := range []struct {
		mode     durable.Mode
		settings string
		unfit    string // part of the error; empty: the settings are enough
		fsync    bool   // if Redis has WAITAOF, the settings are enough and writes wait for an fsync
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
		w := newWriter(client, row.mode, durable.EveryReplica, 0)
		err := w.Start(t.Context())
		ok := row.unfit == "" || row.fsync && hasWaitAOF
		switch {
		case ok && err != nil:
			t.Errorf("%s with %s: %v", row.mode, row.settings, err)
		case ok && w.Status().Fsync != (row.fsync && hasWaitAOF):
			t.Errorf("%s with %s: Fsync is %v", row.mode, row.settings, w.Status().Fsync)
		case !ok && (!errors.Is(err, durable.ErrUnfit) || !strings.Contains(err.Error(), row.unfit)):
			t.Errorf("%s with %s: %v, want %q", row.mode, row.settings, err, row.unfit)
		}
		if _, err := w.Do(t.Context(), call("1")); errors.Is(err, durable.ErrUnfit) == ok {
			t.Errorf("%s with %s: write: %v", row.mode, row.settings, err)
		}
	}
}

// TestReplicas: all connected replicas must acknowledge a write and, once a replica was
// seen, at least one.
func TestReplicas(t *testing.T) {
	t.Parallel()
	const (
		long  = 30 * time.Second // the replica acknowledges
		short = 200 * time.Millisecond
	)
	primary := redistest.Server(t, "--repl-diskless-sync-delay", "0")
	client := primary.Client(t)
	_, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica := redistest.Server(t, "--replicaof", "127.0.0.1 "+port)
	for deadline := time.Now().Add(time.Minute); !strings.Contains(client.Info(t.Context(), "replication").Val(), "state=online"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the replica does not connect")
		}
	}

	w := newWriter(client, durable.Auto, durable.EveryReplica, long)
	if _, err := w.Do(t.Context(), call("1")); err != nil {
		t.Fatal(err)
	}
	if s := w.Status(); s.Replicas != 1 || s.Needed != 1 {
		t.Errorf("%+v", s)
	}
	replica.Pause(t)
	replies, err := newWriter(client, durable.Auto, durable.EveryReplica, short).Do(t.Context(), call("2"))
	if !errors.Is(err, durable.ErrNotAcknowledged) || len(replies) != 1 || replies[0].Val() != "done" {
		t.Errorf("write while the replica is paused: %v, %v", replies, err)
	}
	w.Pause(err)
	if w.Paused() == "" {
		t.Error("claims are not paused")
	}
	replica.Kill()
	// Another process, which has never seen the replica.
	if _, err := newWriter(client, durable.Auto, durable.EveryReplica, short).Do(t.Context(), call("3")); !errors.Is(err, durable.ErrNotAcknowledged) {
		t.Errorf("write without the former replica: %v", err)
	}
	if _, err := newWriter(client, durable.Auto, 0, 0).Do(t.Context(), call("4")); err != nil {
		t.Errorf("write that needs no replica: %v", err)
	}
	if _, err := newWriter(client, durable.Trusted, 1, short).Do(t.Context(), call("5")); !errors.Is(err, durable.ErrNotAcknowledged) {
		t.Errorf("write that needs one replica: %v", err)
	}

	replica.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go w.Watch(ctx)
	for w.Paused() != "" {
		if ctx.Err() != nil {
			t.Fatal("claims are still paused after the replica is back")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestDoRetries: Do retries if Redis has not cached a script, or rejects writes for a while.
func TestDoRetries(t *testing.T) {
	t.Parallel()
	client := redistest.Server(t).Client(t)
	rejected := make(rejections, 1)
	client.AddHook(rejected)
	w := newWriter(client, durable.Auto, durable.EveryReplica, 0)
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
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := w.Do(ctx, call("3")); err == nil || errors.Is(err, durable.ErrNotAcknowledged) {
		t.Errorf("rejected write: %v", err)
	}
	select {
	case <-rejected: // of the write above
	default:
	}
	done := make(chan error, 1)
	go func() {
		_, err := w.Do(t.Context(), call("4"))
		done <- err
	}()
	select {
	case <-rejected:
	case err := <-done:
		t.Fatalf("write that Redis rejects at first: %v", err)
	}
	if err := client.ConfigSet(t.Context(), "min-replicas-to-write", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// rejections is a hook that receives a value when Redis rejects a write with NOREPLICAS.
type rejections chan struct{}

func (rejections) DialHook(next redis.DialHook) redis.DialHook { return next }

func (rejections) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (r rejections) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			if redis.HasErrorPrefix(cmd.Err(), "NOREPLICAS") {
				select {
				case r <- struct{}{}:
				default:
				}
			}
		}
		return err
	}
}

// TestClock: Time follows Redis' clock although this process' clock is wrong.
func TestClock(t *testing.T) {
	t.Parallel()
	client := redistest.Server(t).Client(t)
	ahead := func() time.Time { return time.Now().Add(10 * time.Minute) }
	w := durable.New(durable.Options{
		Client: client, Mode: durable.None, Replicas: durable.EveryReplica, Key: key, Now: ahead, Log: slog.New(slog.DiscardHandler),
	})
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if off := time.Until(w.Time().At(ahead())).Abs(); off > time.Minute {
		t.Errorf("Redis' time is off by %s", off)
	}
	if skew := w.Status().Skew; skew > -9*time.Minute || len(w.Warnings()) != 2 {
		t.Errorf("skew %s, warnings %q", skew, w.Warnings())
	}
}
