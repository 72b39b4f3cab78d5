package e2e_test

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// turnstile is a TCP proxy between a worker and Redis. Once armed, it stops
// everything for good when a text it waits for comes by, and says so: what came
// before has been delivered, the text and all after it have not.
type turnstile struct {
	addr     string
	target   string
	request  string // stop before this request is delivered
	response bool   // or let the request through, and stop before its answer is
	armed    atomic.Bool
	stopped  chan struct{}
	once     sync.Once
	passed   atomic.Bool // the request went through; its answer must not
}

func newTurnstile(t *testing.T, target, request string, response bool) *turnstile {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p := &turnstile{addr: l.Addr().String(), target: target, request: request, response: response, stopped: make(chan struct{})}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
	return p
}

func (p *turnstile) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	var marked atomic.Bool // this connection carried the request
	go func() {
		defer client.Close()
		p.pump(client, server, func([]byte) bool { return p.response && marked.Load() })
	}()
	p.pump(server, client, func(chunk []byte) bool {
		if !p.armed.Load() || !bytes.Contains(chunk, []byte(p.request)) || p.passed.Swap(true) {
			return false
		}
		marked.Store(true)
		return !p.response
	})
}

// pump copies from one side to the other, until a chunk is one to stop at.
func (p *turnstile) pump(to io.Writer, from io.Reader, stop func(chunk []byte) bool) {
	buf := make([]byte, 256<<10) // a request of ours is far smaller, and is written in one go
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if stop(buf[:n]) {
				p.once.Do(func() { close(p.stopped) })
				return
			}
			select {
			case <-p.stopped:
				return // nothing more passes
			default:
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// TestKillAtEveryStep kills a worker with SIGKILL between any two steps of a
// payment, and lets another go on. Never two, never none without a person
// knowing, every event once.
func TestKillAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		request  string // of the worker to Redis
		response bool
		sent     int // how often the gateway has it in the end
		ends     payment.Status
	}{
		{"before the claim", `"kind":"submit","code":""`, false, 1, payment.Paid},
		{"before the send", `"kind":"submit","code":""`, true, 0, payment.NeedsReview},
		{"before the record", `"code":"2006300"`, false, 1, payment.Paid},
		{"after the record", `"code":"2006300"`, true, 1, payment.Paid},
		{"before the acknowledgement", `asynq:{paydia}:processed`, false, 1, payment.Paid},
		{"after the acknowledgement", `asynq:{paydia}:processed`, true, 1, payment.Paid},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			gate := newTurnstile(t, s.server.Addr, c.request, c.response)
			victim := s.worker("REDIS_URL=redis://"+gate.addr+"/0", "GATEWAY_TIMEOUT=1s")
			warm := s.warmUp()
			gate.armed.Store(true)
			one := samples(t, 2, "PAY")[1:]
			s.create(one, "enqueued")
			select {
			case <-gate.stopped:
			case <-time.After(20 * time.Second):
				t.Fatalf("%q never came by\n%s", c.request, tail(victim.stderr.String()))
			}
			s.signal(victim, syscall.SIGKILL)
			s.exit(victim, 5*time.Second)
			s.killed(one[0], c.sent, c.ends, warm)
		})
	}
	t.Run("mid-request", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, slow(5*time.Second))
		victim := s.worker("GATEWAY_TIMEOUT=8s")
		one := samples(t, 2, "PAY")[1:]
		s.create(one, "enqueued")
		s.eventually("the request is under way", 20*time.Second, func() bool { return s.gateway.underWay() == 1 })
		s.signal(victim, syscall.SIGKILL)
		s.exit(victim, 5*time.Second)
		s.killed(one[0], 1, payment.Paid)
	})
}

// warmUp has a payment made by the worker that is there, so that Redis knows its
// scripts: the first call of one is refused and sent again.
func (s *stage) warmUp() sample {
	s.Helper()
	warm := samples(s.T, 4, "PAY")[3:]
	s.create(warm, "enqueued")
	s.eventually("the first payment is paid", 20*time.Second, func() bool { return s.status(warm[0].key) == payment.Paid })
	// The task is done with as well: nothing of it comes by any more.
	s.eventually("its task is done", 20*time.Second, func() bool {
		n, err := s.redis.Exists(s.Context(), "asynq:{paydia}:t:"+string(warm[0].key.Gateway)+":"+url.PathEscape(warm[0].key.TransactionID)).Result()
		return err == nil && n == 0
	})
	return warm[0]
}

// killed lets another worker go on after a kill, and looks at what became of the
// payment.
func (s *stage) killed(one sample, sent int, ends payment.Status, before ...sample) {
	s.Helper()
	killed := time.Now()
	s.worker()
	// What was not claimed yet is brought back by the ledger; asynq's two minutes are
	// not waited for.
	s.eventually("it has ended in "+string(ends), ledger.TaskGrace+15*time.Second, func() bool { return s.status(one.key) == ends })
	s.Logf("%s after %s", s.story(one.key), time.Since(killed).Round(100*time.Millisecond))
	if rows := s.rows()[one.key]; len(rows) != sent {
		s.Errorf("the gateway has it %d times, want %d", len(rows), sent)
	}
	var all []*payment.Payment
	for _, made := range append(before, one) {
		r, err := s.book.Read(s.Context(), made.key)
		if err != nil {
			s.Fatal(err)
		}
		all = append(all, &r.Payment)
	}
	// A claim of a killed worker lasts for the gateway time-out and 5 s; its payment
	// must be looked up within 15 s after.
	attempts := all[len(all)-1].Attempts
	if len(attempts) > 1 {
		if late := attempts[1].At.Sub(attempts[0].End()); late > 15*time.Second || attempts[1].Kind != payment.KindLookup {
			s.Errorf("%s %s after its claim had ended", attempts[1].Kind, late)
		}
	}
	s.noDoubles()
	s.checkEvents(all)
}

func (s *stage) status(key payment.Key) payment.Status {
	s.Helper()
	r, err := s.book.Read(s.Context(), key)
	if err != nil {
		s.Fatal(err)
	}
	return r.Status
}
