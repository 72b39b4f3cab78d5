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

// TestQueueMisbehaves: asynq gives the same payment out twice at once, and an
// operator cancels a task while its request is under way. One request each, and
// its answer is not thrown away.
func TestQueueMisbehaves(t *testing.T) {
	t.Parallel()
	s := newStage(t, slow(2*time.Second))
	s.worker()
	s.worker()
	all := samples(t, 8, "PAY")
	s.create(all, "enqueued")
	client := asynq.NewClientFromRedisClient(s.redis)
	for _, p := range all {
		payload, err := json.Marshal(tasks.Payload{Version: 1, Gateway: p.key.Gateway, TransactionID: p.key.TransactionID})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			_, err := client.Enqueue(asynq.NewTask(tasks.TypeSubmit, payload),
				asynq.TaskID(fmt.Sprint(i, p.key)), asynq.Queue(tasks.SubmitQueue(p.key.Gateway)), asynq.MaxRetry(10))
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	s.eventually("all requests are under way", 20*time.Second, func() bool { return s.gateway.underWay() == len(all) })
	inspector := asynq.NewInspectorFromRedisClient(s.redis)
	for _, p := range all {
		if err := inspector.CancelProcessing(string(p.key.Gateway) + ":" + url.PathEscape(p.key.TransactionID)); err != nil {
			t.Fatal(err)
		}
	}
	defer s.noDoubles()
	payments := s.await(all, 40*time.Second, sample.ended)
	s.checkEvents(payments)
	for _, p := range payments {
		if p.Attempts[0].Action != "accept" {
			t.Errorf("the answer was thrown away: %s", s.story(p.Key()))
		}
		for _, a := range p.Attempts[1:] {
			if a.Kind == payment.KindSubmit {
				t.Errorf("sent again: %s", s.story(p.Key()))
			}
		}
	}
}
