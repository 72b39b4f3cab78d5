package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/redistest"
	"terbayar/internal/secret"
	"terbayar/internal/testenv"
)

// interrupter presses Ctrl-C before the first command to Redis.
type interrupter struct{ press func() }

func (i interrupter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (i interrupter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { i.press(); return next(ctx, cmd) }
}

func (i interrupter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { i.press(); return next(ctx, cmds) }
}

// create submits the input, and presses Ctrl-C before the first command to Redis.
func create(t *testing.T, in io.Reader) (answers, notes string, err error) {
	t.Helper()
	ctx, press := context.WithCancel(t.Context())
	client := redistest.Mini(t)
	client.AddHook(interrupter{press})
	var all cli
	all.Events.Stream = "events"
	all.Payload.Keys = secret.NewKey()
	all.Redis.URL, all.Redis.Durability = secret.NewText("redis://"+client.(*redis.Client).Options().Addr), durable.None
	var out, noted strings.Builder
	err = (&createCmd{File: "-"}).run(ctx, &all, client, in, &out, &noted)
	return out.String(), noted.String(), err
}

// TestInterruptedInFlight: a payment in flight to Redis at Ctrl-C is still answered.
func TestInterruptedInFlight(t *testing.T) {
	in, more := io.Pipe()
	go func() { _, _ = more.Write(append(testenv.PaydiaOrder("ORD-1"), '\n')) }() // the input stays open
	answers, notes, err := create(t, in)
	const want = "interrupted: 1 answered (1 enqueued), nothing submitted from line 2 on"
	if !strings.Contains(answers, `"transaction_id":"ORD-1","result":"enqueued"`) || strings.Count(answers, "\n") != 1 || notes != "" ||
		!errors.Is(err, errInterrupted) || !strings.Contains(err.Error(), want) || exitCode(err) != exitRefused {
		t.Errorf("%s%s%v", answers, notes, err)
	}
}
