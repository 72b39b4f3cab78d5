// Consumer-go reads Terbayar's result events from Redis with a consumer group, and acts on
// each change of a payment once. docs/consuming.md explains every step.
//
// Start several to share the work: when one dies, the others take over what it was given.
// Copy it: it needs github.com/redis/go-redis/v9 and nothing of Terbayar.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	batch = 100             // events per read
	block = 2 * time.Second // how long a read waits for events; SIGTERM waits as long
	// maxDeliveries is how often an event is tried before it is parked.
	maxDeliveries = 5
	// rewind is how far before its position a lost group is created again: the clocks of two
	// Redis servers differ, and so may the ids of entries before and after a failover.
	rewind = time.Hour
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	partitions, err := strconv.Atoi(env("LEDGER_PARTITIONS", "1"))
	if err != nil || partitions < 1 {
		return errors.New("LEDGER_PARTITIONS must be a number, 1 or more")
	}
	claimAfter, err := strconv.Atoi(env("CLAIM_AFTER", "60"))
	if err != nil {
		return errors.New("CLAIM_AFTER must be a number of seconds")
	}
	store, err := openStore(env("STATE_DIR", "state"))
	if err != nil {
		return err
	}
	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:         strings.Split(env("REDIS_ADDRS", "127.0.0.1:6379"), ","), // of Sentinels, if there is REDIS_MASTER
		MasterName:    os.Getenv("REDIS_MASTER"),
		IsClusterMode: os.Getenv("REDIS_CLUSTER") != "",
		Username:      os.Getenv("REDIS_USERNAME"),
		Password:      os.Getenv("REDIS_PASSWORD"),
	})
	defer client.Close()
	host, err := os.Hostname()
	if err != nil {
		return err
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var readers sync.WaitGroup
	for _, stream := range streamNames(env("EVENTS_STREAM", "terbayar:events"), partitions) {
		r := &reader{
			redis: client, store: store, stream: stream, claimAfter: time.Duration(claimAfter) * time.Second,
			group: env("GROUP", "orders"), consumer: env("CONSUMER", host), start: env("START", "0"),
			cursor: "0-0",
		}
		readers.Go(func() { r.run(ctx) })
	}
	readers.Wait()
	return nil
}

func env(name, otherwise string) string { return cmp.Or(os.Getenv(name), otherwise) }

// streamNames returns the streams of all partitions. In a name that contains the hash tag
// {terbayar:events}, the tag has the number of the partition.
func streamNames(name string, partitions int) []string {
	const tag = "{terbayar:events}"
	names := []string{name}
	for i := 1; i < partitions; i++ {
		if strings.Contains(name, tag) {
			names = append(names, strings.Replace(name, tag, fmt.Sprintf("{terbayar:events:%d}", i), 1))
		} else {
			names = append(names, fmt.Sprintf("%s:%d", name, i))
		}
	}
	return names
}

// reader reads the events of one stream. Each stream has its own, because the streams of a
// Cluster are on several nodes, and one read has one node.
type reader struct {
	redis                          redis.UniversalClient
	store                          *store
	stream, group, consumer, start string
	claimAfter                     time.Duration
	cursor                         string // of XAUTOCLAIM
	position                       string // that is stored
}

// run reads until the context ends. It finishes the batch that it has been given.
func (r *reader) run(ctx context.Context) {
	commands := context.WithoutCancel(ctx) // a read that is cut off leaves events pending
	for ctx.Err() == nil {
		err := r.round(commands)
		if redis.HasErrorPrefix(err, "NOGROUP") { // the first start, or Redis has lost the group
			err = r.createGroup(commands)
		}
		if err == nil {
			continue
		}
		log.Printf("%s: %v, will retry", r.stream, err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// createGroup creates the group at the position up to which everything has been processed,
// less the rewind. Events that come again have been processed already, see store.once. It
// never creates a lost group at "$": that would skip what was written meanwhile.
func (r *reader) createGroup(ctx context.Context) error {
	start := r.start
	position, err := r.store.position(r.stream)
	if err != nil {
		return err
	}
	if position != "" {
		ms, _, _ := strings.Cut(position, "-")
		n, err := strconv.ParseInt(ms, 10, 64)
		if err != nil {
			return fmt.Errorf("the stored position %q: %w", position, err)
		}
		start = strconv.FormatInt(max(0, n-rewind.Milliseconds()), 10)
	}
	err = r.redis.XGroupCreateMkStream(ctx, r.stream, r.group, start).Err()
	if redis.HasErrorPrefix(err, "BUSYGROUP") { // another consumer was faster
		return nil
	}
	if err == nil {
		log.Printf("%s: group %s created at %s", r.stream, r.group, start)
	}
	return err
}

// round takes over events of consumers that died, reads new events, and stores the position.
func (r *reader) round(ctx context.Context) error {
	claimed, cursor, err := r.redis.XAutoClaim(ctx, &redis.XAutoClaimArgs{
		Stream: r.stream, Group: r.group, Consumer: r.consumer, MinIdle: r.claimAfter, Start: r.cursor, Count: batch,
	}).Result()
	if err != nil {
		return err
	}
	r.cursor = cursor
	for _, m := range claimed {
		if err := r.again(ctx, m); err != nil {
			return err
		}
	}

	wait := block
	if len(claimed) > 0 {
		wait = -1 // there may be more of them
	}
	streams, err := r.redis.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: r.group, Consumer: r.consumer, Streams: []string{r.stream, ">"}, Count: batch, Block: wait,
	}).Result()
	if err != nil && !errors.Is(err, redis.Nil) { // Nil: no events
		return err
	}
	for _, s := range streams {
		for _, m := range s.Messages {
			if err := r.handle(ctx, m); err != nil {
				return err
			}
		}
	}
	return r.storePosition(ctx)
}

// again handles an event that was delivered before. After too many deliveries it is parked:
// one event that fails, or kills the consumer, must not stop the others.
func (r *reader) again(ctx context.Context, m redis.XMessage) error {
	pending, err := r.redis.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: r.stream, Group: r.group, Start: m.ID, End: m.ID, Count: 1,
	}).Result()
	if err != nil {
		return err
	}
	if len(pending) == 0 || pending[0].RetryCount <= maxDeliveries {
		return r.handle(ctx, m)
	}
	log.Printf("%s: event %s was delivered %d times and is parked: needs a person", r.stream, m.ID, pending[0].RetryCount)
	text, _ := m.Values["event"].(string)
	if err := r.store.park(r.stream, m.ID, []byte(text)); err != nil {
		return err
	}
	return r.redis.XAck(ctx, r.stream, r.group, m.ID).Err()
}

// handle processes an event, and acknowledges it when its effect is durable. An event that
// fails stays pending: XAUTOCLAIM delivers it again after CLAIM_AFTER.
func (r *reader) handle(ctx context.Context, m redis.XMessage) error {
	text, _ := m.Values["event"].(string)
	if err := process(r.store, []byte(text)); err != nil {
		log.Printf("%s: event %s: %v, will retry", r.stream, m.ID, err)
		return nil
	}
	return r.redis.XAck(ctx, r.stream, r.group, m.ID).Err()
}

// storePosition stores up to where everything is processed: up to the oldest event that is
// pending, for any consumer, or else the last one that was delivered. The id of the event
// that was processed last is no such position: another consumer may still have an older one.
func (r *reader) storePosition(ctx context.Context) error {
	var groups *redis.XInfoGroupsCmd
	var pending *redis.XPendingCmd
	if _, err := r.redis.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		groups, pending = tx.XInfoGroups(ctx, r.stream), tx.XPending(ctx, r.stream, r.group)
		return nil
	}); err != nil {
		return err
	}
	position := pending.Val().Lower
	for _, g := range groups.Val() {
		if g.Name == r.group && pending.Val().Count == 0 {
			position = g.LastDeliveredID
		}
	}
	if position == r.position {
		return nil
	}
	if err := r.store.setPosition(r.stream, position); err != nil {
		return err
	}
	r.position = position
	return nil
}
