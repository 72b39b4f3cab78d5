package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"terbayar/internal/payment"
	"terbayar/internal/tasks"
)

// bareQueue is the only queue of bare asynq.
var bareQueue = tasks.SubmitQueue(payment.AMDigiPay, payment.Normal)

// bareAsynq is asynq without a ledger: a task has the whole order, and its handler sends it.
type bareAsynq struct{}

func (bareAsynq) enqueue(e *env, file string, connections int, _ ...string) *process {
	self, err := os.Executable()
	e.redis.require(err)
	return start(e, self, []string{"bare-enqueue", "-redis", e.redis.addr, "-connections", fmt.Sprint(connections), file})
}

func (bareAsynq) work(e *env, concurrency int, _ ...string) *process {
	p, _ := startChild(e, "bare", "-redis", e.workerRedis, "-gateway", e.gateway.url, "-concurrency", fmt.Sprint(concurrency))
	return p
}

func (bareAsynq) recorded(e *env, n int) bool { return e.gateway.await(n).N >= n && e.drained() }

func (bareAsynq) creator(e *env) func(int) {
	client := asynq.NewClientFromRedisClient(e.redis.client)
	return func(i int) { e.redis.require(enqueueBare(e.Context(), client, i, line(i))) }
}

func enqueueBare(ctx context.Context, client *asynq.Client, i int, order []byte) error {
	_, err := client.EnqueueContext(ctx, asynq.NewTask("post", order),
		asynq.TaskID(reference(i)), asynq.Queue(bareQueue), asynq.Timeout(tasks.SubmitTimeout))
	return err
}

// bareEnqueueMain is "bench bare-enqueue": it enqueues the payments of a file.
func bareEnqueueMain(args []string) error {
	flags := flag.NewFlagSet("bare-enqueue", flag.ExitOnError)
	addr := flags.String("redis", "", "address of Redis")
	connections := flags.Int("connections", 1, "payments enqueued at the same time; 1: a plain loop")
	_ = flags.Parse(args) // it exits
	file, err := os.Open(flags.Arg(0))
	if err != nil {
		return err
	}
	defer file.Close()
	client := asynq.NewClientFromRedisClient(redis.NewClient(&redis.Options{Addr: *addr}))
	var group errgroup.Group
	group.SetLimit(*connections)
	lines := bufio.NewScanner(file)
	for i := 0; lines.Scan(); i++ {
		if *connections == 1 {
			if err := enqueueBare(context.Background(), client, i, lines.Bytes()); err != nil {
				return err
			}
			continue
		}
		order := bytes.Clone(lines.Bytes())
		group.Go(func() error { return enqueueBare(context.Background(), client, i, order) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return lines.Err()
}

// bareMain is "bench bare": an asynq server with the intervals of Terbayar's worker and a
// handler that only sends the same signed POST.
func bareMain(args []string) error {
	flags := flag.NewFlagSet("bare", flag.ExitOnError)
	addr := flags.String("redis", "", "address of Redis")
	url := flags.String("gateway", "", "URL of the gateway")
	concurrency := flags.Int("concurrency", 0, "tasks at the same time")
	_ = flags.Parse(args) // it exits
	sender := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *concurrency}, Timeout: 15 * time.Second}
	client := redis.NewClient(&redis.Options{Addr: *addr, PoolSize: 128})
	server := asynq.NewServerFromRedisClient(client, asynq.Config{
		Concurrency: *concurrency, Queues: map[string]int{bareQueue: 1}, LogLevel: asynq.FatalLevel,
		TaskCheckInterval: 200 * time.Millisecond, DelayedTaskCheckInterval: time.Second,
	})
	if err := server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		return post(ctx, sender, *url, task.Payload())
	})); err != nil {
		return err
	}
	return serve("ready")
}

// post sends a create-transaction request, with as little code as possible.
func post(ctx context.Context, sender *http.Client, url string, payload []byte) error {
	var order struct {
		Payment map[string]any `json:"payment"`
	}
	if err := json.Unmarshal(payload, &order); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(username + order.Payment["transaction_id"].(string)))
	order.Payment["username"], order.Payment["signature"] = username, hex.EncodeToString(sum[:])
	text, err := json.Marshal(order.Payment)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/payment/transaction", bytes.NewReader(text))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer t")
	res, err := sender.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var answer struct {
		Error bool `json:"error"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Error {
		return fmt.Errorf("refused: %w", err)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}
