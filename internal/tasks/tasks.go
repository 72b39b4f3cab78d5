// Package tasks is the only package that uses asynq's queues: task types, payloads, ids,
// enqueueing, serving, and retrying later.
//
// A task is a reminder, not a record. It only names a payment; everything else, secrets
// included, is in the ledger. So a task may run twice, late or never without a duplicate
// charge or a lost payment.
package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/payment"
)

// The task types.
const (
	TypeSubmit = "payment:submit" // submits one payment
	TypePoll   = "payment:poll"   // polls one gateway
)

// version is the version of the payloads that this code writes.
const version = 1

// ErrPayload says that a payload cannot be read or has another version. Its task is
// archived; the payment stays in the ledger and gets a new task.
var ErrPayload = errors.New("payload cannot be read by this version")

// ErrNoPayment says that the ledger does not have a task's payment. The task is archived.
var ErrNoPayment = errors.New("the ledger has no such payment")

// Payload is a task's payload. The web UI may show all of it.
type Payload struct {
	Version       int             `json:"v"`
	Gateway       payment.Gateway `json:"gateway"`
	TransactionID string          `json:"transaction_id,omitempty"` // TypeSubmit
	Amount        payment.Rupiah  `json:"amount,omitempty"`         // TypeSubmit, only to be shown
	Tick          int64           `json:"tick,omitempty"`           // TypePoll, Unix milliseconds
}

// Key returns the payment of a TypeSubmit task.
func (p Payload) Key() payment.Key {
	return payment.Key{Gateway: p.Gateway, TransactionID: p.TransactionID}
}

// Decode reads a payload.
func Decode(b []byte) (Payload, error) {
	var p Payload
	if err := json.Unmarshal(b, &p); err != nil {
		// The cause is dropped: it may quote a secret from another program's payload.
		return Payload{}, fmt.Errorf("tasks: not a payload of Terbayar: %w", ErrPayload)
	}
	if p.Version != version {
		return Payload{}, fmt.Errorf("tasks: version %d: %w", p.Version, ErrPayload)
	}
	if _, err := payment.ParseGateway(string(p.Gateway)); err != nil {
		return Payload{}, fmt.Errorf("tasks: gateway: %w", ErrPayload)
	}
	return p, nil
}

// A gateway's polls have a queue and an asynq server of their own. So a slow gateway delays
// neither the other gateway nor its own polls. Its submits have two queues, by priority, and
// share their asynq servers.

// SubmitQueue returns the queue of a gateway's submits that have a priority.
func SubmitQueue(g payment.Gateway, p payment.Priority) string {
	if p == payment.Interactive {
		return string(g) + "-interactive"
	}
	return string(g)
}

// PollQueue returns the queue of a gateway's polls.
func PollQueue(g payment.Gateway) string { return string(g) + "-poll" }

const (
	// maxRetry is never reached: the ledger counts attempts, not asynq. Only a killed worker
	// uses one up.
	maxRetry = 10_000
	// SubmitTimeout is asynq's deadline for a submit. At the deadline asynq would ignore the
	// handler's result and run the task a second time next to it. So it must never be
	// reached: the longest submit is far shorter, which the worker checks at its start.
	SubmitTimeout = 5 * time.Minute
	// pollTimeout ends a poll that hangs. Its payments are due again long before.
	pollTimeout = 10 * time.Minute
	// pollRetention keeps the id of a finished poll in use, so that no worker enqueues the
	// same tick again.
	pollRetention = time.Minute
)

// Enqueuer enqueues tasks.
type Enqueuer struct {
	redis     redis.UniversalClient
	client    *asynq.Client
	inspector *asynq.Inspector
	now       func() time.Time
}

// NewEnqueuer creates an Enqueuer.
func NewEnqueuer(client redis.UniversalClient, now func() time.Time) *Enqueuer {
	return &Enqueuer{client, asynq.NewClientFromRedisClient(batchClient{client}), asynq.NewInspectorFromRedisClient(client), now}
}

// Submit enqueues the submits of payments, all in one round trip, and returns one error per
// payment. A task's id is its payment's, escaped for the paths of the web UI. If the payment's
// task is still waiting, nothing happens. An archived task, which would keep the id in use for
// 90 days, is replaced.
func (e *Enqueuer) Submit(ctx context.Context, payments []*payment.Payment) []error {
	all := make([]submitTask, len(payments))
	batch := make([]*submitTask, len(payments))
	for i, p := range payments {
		all[i] = submitTask{payment: p, id: taskID(p.Key())}
		batch[i] = &all[i]
	}
	e.submit(ctx, batch)
	e.submit(ctx, e.replaceable(ctx, batch))
	errs := make([]error, len(all))
	for i := range all {
		errs[i] = all[i].err
	}
	return errs
}

// replaceable returns the tasks that could not be enqueued because of a task with the same id
// that is no longer waiting or running. It deletes those that are archived.
func (e *Enqueuer) replaceable(ctx context.Context, batch []*submitTask) []*submitTask {
	var existing, again []*submitTask
	for _, t := range batch {
		if t.exists {
			existing = append(existing, t)
		}
	}
	for i, state := range e.states(ctx, existing) {
		t := existing[i]
		switch {
		case t.err != nil:
			continue
		case state == "archived", state == "completed":
			if err := e.inspector.DeleteTask(t.queue(), t.id); err != nil && !errors.Is(err, asynq.ErrTaskNotFound) {
				t.err = fmt.Errorf("tasks: replace the task of %s: %w", t.payment.Key(), err)
				continue
			}
		case state != "": // else it has run since; whether it submitted the payment is not known
			continue
		}
		again = append(again, t)
	}
	return again
}

// Requeue makes sure that payments of one gateway, whose tasks should have run long ago,
// have a task. In a long queue most tasks are only waiting: one round trip finds out for all
// of them. A task that asynq believes to be running most likely belonged to a crashed worker;
// asynq runs it again after up to two minutes, or never (docs/asynq.md 23). Until then a
// standby task runs in its place, once. The claim prevents that both submit.
func (e *Enqueuer) Requeue(ctx context.Context, payments []*payment.Payment) error {
	batch := make([]*submitTask, len(payments))
	for i, p := range payments {
		batch[i] = &submitTask{payment: p, id: taskID(p.Key())}
	}
	var errs []error
	var standby []*submitTask
	var lost []*payment.Payment
	for i, state := range e.states(ctx, batch) {
		switch t := batch[i]; {
		case t.err != nil:
			errs = append(errs, t.err)
		case state == "pending", state == "scheduled", state == "retry":
		case state == "active":
			standby = append(standby, &submitTask{payment: t.payment, id: e.standbyID(t.payment.Key())})
		default:
			lost = append(lost, t.payment)
		}
	}
	e.submit(ctx, standby)
	for _, t := range standby {
		errs = append(errs, t.err)
	}
	return errors.Join(append(errs, e.Submit(ctx, lost)...)...)
}

func taskID(key payment.Key) string {
	return string(key.Gateway) + ":" + url.PathEscape(key.TransactionID)
}

// standbyPrefix begins the id of a standby task: it runs in place of a task that asynq
// believes to be running.
const standbyPrefix = "standby:"

// standbyInterval is how often another standby task may be enqueued for the same payment. A
// standby task, too, may be lost with its worker and then keeps its id in use forever.
const standbyInterval = 5 * time.Minute

func (e *Enqueuer) standbyID(key payment.Key) string {
	return standbyPrefix + strconv.FormatInt(e.now().Unix()/int64(standbyInterval.Seconds()), 36) + ":" + taskID(key)
}

// parseTaskID returns the payment of a submit with an id of taskID or standbyID. Other ids are
// not of this code.
func parseTaskID(id string) (key payment.Key, standby, ok bool) {
	rest, standby := strings.CutPrefix(id, standbyPrefix)
	if standby {
		if _, rest, ok = strings.Cut(rest, ":"); !ok {
			return payment.Key{}, false, false
		}
	}
	name, escaped, _ := strings.Cut(rest, ":")
	gateway, err := payment.ParseGateway(name)
	if err != nil {
		return payment.Key{}, false, false
	}
	transactionID, err := url.PathUnescape(escaped)
	key = payment.Key{Gateway: gateway, TransactionID: transactionID}
	if err != nil || transactionID == "" || taskID(key) != rest {
		return payment.Key{}, false, false
	}
	return key, standby, true
}

// Poll enqueues the poll of a gateway for one tick of the clock. Every worker may enqueue the
// same tick; it runs once.
func (e *Enqueuer) Poll(ctx context.Context, g payment.Gateway, tick time.Time) error {
	err := e.enqueue(ctx, TypePoll,
		Payload{Version: version, Gateway: g, Tick: tick.UnixMilli()},
		asynq.TaskID("poll:"+string(g)+":"+strconv.FormatInt(tick.UnixMilli(), 10)),
		asynq.Queue(PollQueue(g)),
		asynq.Timeout(pollTimeout),
		asynq.Retention(pollRetention),
	)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil
	}
	return err
}

// enqueue enqueues a task. The error is asynq.ErrTaskIDConflict if a task with its id exists.
func (e *Enqueuer) enqueue(ctx context.Context, taskType string, p Payload, opts ...asynq.Option) error {
	payload, err := json.Marshal(p)
	if err == nil {
		_, err = e.client.EnqueueContext(ctx, asynq.NewTask(taskType, payload), append(opts, asynq.MaxRetry(maxRetry))...)
	}
	if err != nil {
		return fmt.Errorf("tasks: enqueue %s for %s: %w", taskType, p.Key(), err)
	}
	return nil
}
