package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"terbayar/internal/intake"
)

// postBatch accepts payments as enqueue create does, and answers them while the input still
// comes. If the input ends early, or the server shuts down before its end, the answer is cut off:
// lines without an answer may or may not be recorded.
func (s *Server) postBatch(w *response, r *http.Request, key Key) {
	p := checkQuery(r)
	switch {
	case key.ReadOnly:
		p = errReadOnly
	case p != nil:
	case len(r.Header.Values("Idempotency-Key")) > 0:
		p = newProblem(http.StatusBadRequest, "a batch has no Idempotency-Key: each transaction id is one")
	default:
		p = checkEncoding(r)
	}
	if p != nil {
		p.write(w)
		return
	}
	if p, err := s.checkRedis(r.Context()); p != nil {
		w.fail(p, err)
		return
	}
	release, ok := acquire(s.batches)
	if !ok {
		unavailable("too many batches at the same time. Nothing was done", retryBusy).write(w)
		return
	}
	defer release()
	w.untimed = true
	if r.ProtoMajor == 1 {
		if err := w.control.EnableFullDuplex(); err != nil {
			w.fail(newProblem(http.StatusInternalServerError, "input and answers cannot be sent at the same time"), err)
			return
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would answer at the end
	w.WriteHeader(http.StatusOK)
	if w.flush() != nil {
		return
	}
	if err := s.answerBatch(w, r, key); err != nil {
		w.abort = true
		s.o.Log.Debug("a batch has ended early", "caller", w.caller, "error", err)
	}
}

// answerBatch answers all lines. The error is that of the input, or of the client that does not
// receive the answers.
func (s *Server) answerBatch(w *response, r *http.Request, key Key) error {
	// The end of the connection's other direction is no end of the batch: the client may only have
	// sent its last line. If it has gone, reading or writing fails.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(s.cut, cancel)()
	f := &feed{budget: s.bodies, lines: make(chan intake.Line, intake.Batch), sent: make(chan sentBatch, maxInFlight), end: make(chan struct{})}
	read := make(chan error, 1)
	filled := make(chan struct{})
	raw := make(chan intake.Line)
	body := &bodyReader{body: r.Body, control: w.control}
	keepReading := context.AfterFunc(ctx, body.interrupt)
	go func() { read <- intake.Read(ctx, body, raw) }()
	go func() {
		defer close(filled)
		f.fill(ctx, raw, key)
	}()
	defer func() {
		keepReading()
		cancel()
		<-filled
		f.releaseAll()
	}()

	write := func(answers []intake.Answer) error {
		if err := s.writeAnswers(w, answers); err != nil {
			cancel()
			_ = <-read // it is interrupted
			return err
		}
		return nil
	}
	// What was read is recorded although the client has gone.
	for answers := range s.o.Intake.CreateAll(context.WithoutCancel(ctx), f.batches(ctx)) {
		b := <-f.sent
		if err := write(answers); err != nil {
			return err
		}
		f.release(b.bytes)
	}
	// After a batch for which Redis could not be reached, CreateAll records no other.
	close(f.end)
	for b := range f.rest(ctx) {
		if err := write(s.o.Intake.Refuse(b.lines, intake.ErrUnreachable)); err != nil {
			return err
		}
		f.release(b.bytes)
	}
	return <-read
}

// writeAnswers writes answers as enqueue create does, without the causes of errors in Redis, and
// sends them.
func (s *Server) writeAnswers(w *response, answers []intake.Answer) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	var failure, notEnqueued error
	for _, a := range answers {
		if a.Result == intake.Failed {
			a.Error, failure = intake.RetryAdvice, a.Cause
		}
		if a.EnqueueErr != nil {
			notEnqueued = a.EnqueueErr
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	if failure != nil {
		s.o.Log.Error("payments of a batch are answered failed", "caller", w.caller, "error", failure)
	}
	if notEnqueued != nil {
		s.o.Log.Warn("payments are recorded but could not be enqueued: a worker's poll enqueues them later", "error", notEnqueued)
	}
	if _, err := w.Write(text.Bytes()); err != nil {
		return err
	}
	return w.flush()
}

// bodyReader reads a body with a timeout for each part.
type bodyReader struct {
	body    io.Reader
	control *http.ResponseController

	mu          sync.Mutex
	interrupted bool
}

func (b *bodyReader) Read(p []byte) (int, error) {
	b.mu.Lock()
	if b.interrupted {
		b.mu.Unlock()
		return 0, errInterrupted
	}
	_ = b.control.SetReadDeadline(time.Now().Add(lineTimeout))
	b.mu.Unlock()
	n, err := b.body.Read(p)
	if err != nil { // at the end of the body the server reads on, to notice that the client goes
		b.mu.Lock()
		defer b.mu.Unlock()
		if !b.interrupted {
			_ = b.control.SetReadDeadline(time.Time{})
		}
	}
	return n, err
}

var errInterrupted = errors.New("api: the batch was interrupted")

// interrupt ends a Read, and all further ones.
func (b *bodyReader) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.interrupted = true
	_ = b.control.SetReadDeadline(time.Unix(1, 0))
}

const (
	// maxInFlight is more than the number of batches that are submitted and not yet answered.
	maxInFlight = 16
	// maxBatchBytes ends a batch of large lines early.
	maxBatchBytes = 1 << 20
	// lineOverhead is counted for each line besides its text.
	lineOverhead = 512
)

// feed has the lines of a batch between reader and intake. Their memory is part of a budget of
// all requests: when it is used up, reading waits until lines of any request are answered.
type feed struct {
	budget *semaphore.Weighted
	lines  chan intake.Line
	sent   chan sentBatch // the batches that were submitted
	end    chan struct{}  // closed: no further batch is submitted

	mu   sync.Mutex
	held int64 // bytes
	done chan struct{}
}

type sentBatch struct {
	lines []intake.Line
	bytes int64
}

func weight(l intake.Line) int64 { return int64(len(l.Text)) + lineOverhead }

// fill passes lines on to f.lines.
func (f *feed) fill(ctx context.Context, raw <-chan intake.Line, key Key) {
	defer close(f.lines)
	for line := range raw {
		line.Allowed = key.Includes
		n := weight(line)
		if f.budget.Acquire(ctx, n) != nil {
			return
		}
		f.mu.Lock()
		f.held += n
		f.mu.Unlock()
		select {
		case f.lines <- line:
		case <-ctx.Done():
			return
		}
	}
}

func (f *feed) release(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held -= n
	f.budget.Release(n)
}

func (f *feed) releaseAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.budget.Release(f.held)
	f.held = 0
}

// batches yields the lines in batches, as they come. It ends with the lines, the context or end.
func (f *feed) batches(ctx context.Context) iter.Seq[[]intake.Line] {
	f.done = make(chan struct{})
	return func(yield func([]intake.Line) bool) {
		defer close(f.done)
		for {
			b, ok := f.next(ctx)
			if !ok {
				return
			}
			f.sent <- b
			if !yield(b.lines) {
				return
			}
		}
	}
}

// rest yields the batches that were submitted and not answered, and then the remaining lines.
func (f *feed) rest(ctx context.Context) iter.Seq[sentBatch] {
	return func(yield func(sentBatch) bool) {
		<-f.done
		close(f.sent)
		for b := range f.sent {
			if !yield(b) {
				return
			}
		}
		f.end = nil
		for {
			b, ok := f.next(ctx)
			if !ok || !yield(b) {
				return
			}
		}
	}
}

// next returns the lines that are there, at least one.
func (f *feed) next(ctx context.Context) (b sentBatch, ok bool) {
	select {
	case line, ok := <-f.lines:
		if !ok {
			return b, false
		}
		b.add(line)
	case <-f.end:
		return b, false
	case <-ctx.Done():
		return b, false
	}
	for len(b.lines) < intake.Batch && b.bytes < maxBatchBytes {
		select {
		case line, ok := <-f.lines:
			if !ok {
				return b, true
			}
			b.add(line)
		default:
			return b, true
		}
	}
	return b, true
}

func (b *sentBatch) add(line intake.Line) {
	b.lines = append(b.lines, line)
	b.bytes += weight(line)
}
