package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"terbayar/internal/payment"
	"terbayar/internal/tasks"
)

// TestQueueMisbehaves: the queue has four tasks of each payment, and an operator cancels
// a task whose request is in flight. Each payment is sent once, and the answer is recorded.
func TestQueueMisbehaves(t *testing.T) {
	slow(t)
	e := newEnv(t, slowSends(2*time.Second))
	e.Worker()
	e.Worker()
	all := samples(8, "PAY")
	e.create(all, "enqueued")
	client := asynq.NewClientFromRedisClient(e.Redis)
	for _, p := range all {
		payload, err := json.Marshal(tasks.Payload{Version: 1, Gateway: p.Key.Gateway, TransactionID: p.Key.TransactionID})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			_, err := client.Enqueue(asynq.NewTask(tasks.TypeSubmit, payload),
				asynq.TaskID(fmt.Sprint(i, p.Key)), asynq.Queue(tasks.SubmitQueue(p.Key.Gateway, payment.Normal)), asynq.MaxRetry(10))
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	e.Eventually("all requests are in flight", func() bool { return e.gateway.inFlight() == len(all) })
	inspector := asynq.NewInspectorFromRedisClient(e.Redis)
	for _, p := range all {
		if err := inspector.CancelProcessing(string(p.Key.Gateway) + ":" + url.PathEscape(p.Key.TransactionID)); err != nil {
			t.Fatal(err)
		}
	}
	payments := e.finish()
	for _, p := range payments {
		if p.Attempts[0].Action != "accept" {
			t.Errorf("the answer was not recorded: %s", e.details(p.Key()))
		}
		for _, a := range p.Attempts[1:] {
			if a.Kind == payment.KindSubmit {
				t.Errorf("sent again: %s", e.details(p.Key()))
			}
		}
	}
}
