// Package tasks is the only door to asynq: task types, payloads, ids, queues,
// enqueueing, serving, and "again in d".
//
// A task is a reminder, not a record. It names a payment and carries nothing
// that must not be seen or could be lost: what is so stands in the ledger. So a
// task may come twice, or late, or not at all, and no money moves for it.
package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/payment"
)

// The task types.
const (
	TypeSubmit = "payment:submit" // one payment, to be submitted
	TypePoll   = "payment:poll"   // one gateway, to be polled
)

// version of the payloads this code writes.
const version = 1

// ErrPayload says that a payload cannot be read, or is of a newer version. Such
// a task is archived: its payment stands in the ledger all the same.
var ErrPayload = errors.New("payload cannot be read by this version")

// ErrNoPayment says that a task names a payment that the ledger does not have. Such a
// task is archived: there is nothing that it could do.
var ErrNoPayment = errors.New("the ledger has no such payment")

// Payload is what a task carries. It may be shown to anyone who may see the web
// UI.
type Payload struct {
	Version       int             `json:"v"`
	Gateway       payment.Gateway `json:"gateway"`
	TransactionID string          `json:"transaction_id,omitempty"` // TypeSubmit
	Amount        payment.Rupiah  `json:"amount,omitempty"`         // TypeSubmit, for people to read
	Tick          int64           `json:"tick,omitempty"`           // TypePoll, Unix milliseconds
}

// Key is the payment that a TypeSubmit task is about.
func (p Payload) Key() payment.Key {
	return payment.Key{Gateway: p.Gateway, TransactionID: p.TransactionID}
}

// Decode reads a payload.
func Decode(b []byte) (Payload, error) {
	var p Payload
	if err := json.Unmarshal(b, &p); err != nil {
		// The cause may quote the payload, which is not known to be ours.
		return Payload{}, fmt.Errorf("tasks: not a JSON object of ours: %w", ErrPayload)
	}
	if p.Version != version {
		return Payload{}, fmt.Errorf("tasks: version %d: %w", p.Version, ErrPayload)
	}
	if _, err := payment.ParseGateway(string(p.Gateway)); err != nil {
		return Payload{}, fmt.Errorf("tasks: gateway: %w", ErrPayload)
	}
	return p, nil
}

// A gateway has two queues, each with a server of its own: so a gateway that
// answers slowly holds up neither the other nor its own polls, and a dequeue
// never asks more than one queue (an empty one costs a round trip per task).

// SubmitQueue is the queue of a gateway's submits.
func SubmitQueue(g payment.Gateway) string { return string(g) }

// PollQueue is the queue of a gateway's polls.
func PollQueue(g payment.Gateway) string { return string(g) + "-poll" }

const (
	// maxRetry is out of reach: running out of attempts is for the ledger to tell,
	// asynq's archive is no storage. Only a killed worker spends one of these.
	maxRetry = 10_000
	// SubmitTimeout is what asynq gives a submit. At that deadline it would forget
	// the handler's own answer and run the task again beside it, so it must be out
	// of reach: two requests and a claim's margin are far shorter (config checks).
	SubmitTimeout = 5 * time.Minute
	// pollTimeout ends a poll that hangs; what it took is due again long before.
	pollTimeout = 10 * time.Minute
	// pollRetention keeps a tick's id taken, so that no replica runs it again.
	pollRetention = time.Minute
)

// Enqueuer puts tasks into the queues.
type Enqueuer struct {
	redis     redis.UniversalClient
	client    *asynq.Client
	inspector *asynq.Inspector
	now       func() time.Time
}

// NewEnqueuer makes an Enqueuer.
func NewEnqueuer(client redis.UniversalClient, now func() time.Time) *Enqueuer {
	return &Enqueuer{client, asynq.NewClientFromRedisClient(client), asynq.NewInspectorFromRedisClient(client), now}
}

// Submit enqueues the submission of a payment. The task's id is the payment's,
// escaped so that it can stand in the web UI's paths. A task that is still to be
// run stays the only one; one that asynq has archived, and that would keep the
// id taken for 90 days, makes room.
func (e *Enqueuer) Submit(ctx context.Context, key payment.Key, amount payment.Rupiah) error {
	queue, id := SubmitQueue(key.Gateway), taskID(key)
	taken, err := e.submit(ctx, key, amount, id)
	if !taken || err != nil {
		return err
	}
	switch info, err := e.inspector.GetTaskInfo(queue, id); {
	case errors.Is(err, asynq.ErrTaskNotFound): // it has just been run, and may have found nothing to do
	case err != nil:
		return fmt.Errorf("tasks: look at the task of %s: %w", key, err)
	case info.State != asynq.TaskStateArchived && info.State != asynq.TaskStateCompleted:
		return nil
	default:
		if err := e.inspector.DeleteTask(queue, id); err != nil && !errors.Is(err, asynq.ErrTaskNotFound) {
			return fmt.Errorf("tasks: make room for the task of %s: %w", key, err)
		}
	}
	_, err = e.submit(ctx, key, amount, id)
	return err
}

// Requeue is for payments of one gateway whose tasks should have run long ago. In a
// long queue most are only waiting, which one round trip tells of all of them. One
// that asynq takes for running most likely was a dead worker's, and comes back after
// up to two minutes, or never (shared/asynq.md 23): until then a standby task runs in
// its place, once. The claim lets one of the two through.
func (e *Enqueuer) Requeue(ctx context.Context, payments []*payment.Payment) error {
	states := make([]*redis.StringCmd, len(payments))
	// Each command carries its own error; a task that is not there is one.
	_, _ = e.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, p := range payments {
			states[i] = pipe.HGet(ctx, taskKey(SubmitQueue(p.Gateway), taskID(p.Key())), "state")
		}
		return nil
	})
	var errs []error
	for i, p := range payments {
		state, err := states[i].Result()
		switch {
		case err != nil && !errors.Is(err, redis.Nil):
			err = fmt.Errorf("tasks: look at the task of %s: %w", p.Key(), err)
		case state == "pending", state == "scheduled", state == "retry":
			err = nil
		case state == "active":
			_, err = e.submit(ctx, p.Key(), p.Amount, e.standbyID(p.Key()))
		default:
			err = e.Submit(ctx, p.Key(), p.Amount)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func taskID(key payment.Key) string {
	return string(key.Gateway) + ":" + url.PathEscape(key.TransactionID)
}

// taskKey is asynq's own key of a task, a hash with a field "state" (asynq v0.26.0,
// internal/base.TaskKey).
func taskKey(queue, id string) string { return "asynq:{" + queue + "}:t:" + id }

// standby begins the id of a task that runs in place of another.
const standby = "standby:"

// standbyEvery is how often another standby task may be enqueued for the same payment:
// a standby task may be orphaned as well, and then keeps its id taken for ever.
const standbyEvery = 5 * time.Minute

func (e *Enqueuer) standbyID(key payment.Key) string {
	return standby + strconv.FormatInt(e.now().Unix()/int64(standbyEvery.Seconds()), 36) + ":" + taskID(key)
}

// submit enqueues a submission under that id, and reports whether it is taken.
func (e *Enqueuer) submit(ctx context.Context, key payment.Key, amount payment.Rupiah, id string) (taken bool, err error) {
	return e.enqueue(ctx, TypeSubmit,
		Payload{Version: version, Gateway: key.Gateway, TransactionID: key.TransactionID, Amount: amount},
		asynq.TaskID(id), asynq.Queue(SubmitQueue(key.Gateway)), asynq.Timeout(SubmitTimeout))
}

// Poll enqueues the poll of a gateway for one tick of the clock. Every replica
// may ask for the same tick; it runs once.
func (e *Enqueuer) Poll(ctx context.Context, g payment.Gateway, tick time.Time) error {
	_, err := e.enqueue(ctx, TypePoll,
		Payload{Version: version, Gateway: g, Tick: tick.UnixMilli()},
		asynq.TaskID("poll:"+string(g)+":"+strconv.FormatInt(tick.UnixMilli(), 10)),
		asynq.Queue(PollQueue(g)),
		asynq.Timeout(pollTimeout),
		asynq.Retention(pollRetention),
	)
	return err
}

// enqueue reports whether the task's id is taken, which is no error.
func (e *Enqueuer) enqueue(ctx context.Context, taskType string, p Payload, opts ...asynq.Option) (taken bool, err error) {
	payload, err := json.Marshal(p)
	if err != nil {
		return false, fmt.Errorf("tasks: enqueue %s: %w", taskType, err)
	}
	_, err = e.client.EnqueueContext(ctx, asynq.NewTask(taskType, payload), append(opts, asynq.MaxRetry(maxRetry))...)
	switch {
	case errors.Is(err, asynq.ErrTaskIDConflict):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("tasks: enqueue %s for %s: %w", taskType, p.Key(), err)
	default:
		return false, nil
	}
}
