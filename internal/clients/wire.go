package clients

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"syscall"

	"terbayar/internal/retrypolicy"
)

// countedConn counts the bytes that leave through a connection. While a write
// is under way all of it counts as gone.
type countedConn struct {
	net.Conn

	sent atomic.Int64
	// mayLeave is asked, once, before the next byte leaves.
	mayLeave atomic.Pointer[func() error]
}

func (c *countedConn) Write(b []byte) (int, error) {
	if ask := c.mayLeave.Swap(nil); ask != nil {
		if err := (*ask)(); err != nil {
			return 0, &notAllowedError{err}
		}
	}
	c.sent.Add(int64(len(b)))
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n - len(b)))
	return n, err
}

// notAllowedError says that the request was not allowed to leave any more.
type notAllowedError struct{ why error }

func (e *notAllowedError) Error() string { return "may not leave any more: " + e.why.Error() }

// counted finds the counting connection below TLS; nil where a foreign
// transport has none.
func counted(conn net.Conn) *countedConn {
	for {
		secured, ok := conn.(*tls.Conn)
		if !ok {
			c, _ := conn.(*countedConn)
			return c
		}
		conn = secured.NetConn()
	}
}

// stage is how far a request has come.
type stage int

const (
	begin stage = iota // nothing heard of a connection
	dial
	handshake
	send
	wait
)

func (s stage) String() string {
	return [...]string{"begin", "dial", "TLS handshake", "send", "wait for the answer"}[s]
}

// wire watches one request on its way onto the wire. The hooks are called from
// goroutines of the transport's, some after the request has ended.
type wire struct {
	mayLeave func() error // nil: it may

	mu    sync.Mutex
	stage stage
	used  []use
}

// use is a connection the request was given, with what had left through it
// before.
type use struct {
	conn *countedConn
	sent int64
}

// watch returns a context that reports to the wire.
func (w *wire) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:           func(string) { w.reach(dial) },
		TLSHandshakeStart: func() { w.reach(handshake) },
		GotConn: func(info httptrace.GotConnInfo) {
			u := use{conn: counted(info.Conn)}
			if u.conn != nil {
				u.sent = u.conn.sent.Load()
				if w.mayLeave == nil {
					u.conn.mayLeave.Store(nil)
				} else {
					u.conn.mayLeave.Store(&w.mayLeave)
				}
			}
			w.mu.Lock()
			w.used = append(w.used, u)
			w.mu.Unlock()
			w.reach(send)
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				w.reach(wait)
			}
		},
	})
}

// reach moves on, never back: a dial that lost the race against an idle
// connection still reports.
func (w *wire) reach(s stage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stage = max(w.stage, s)
}

func (w *wire) at() stage {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stage
}

// code is the code of a request that got no answer. It is unsent only when that
// is certain: the transport looked for a connection, and through none that it
// found a byte has left since. net/http ends its writing before it returns an
// error, so the counts are final.
func (w *wire) code() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stage == begin { // a transport that does not report may have sent anything
		return retrypolicy.CodeUnknown
	}
	for _, u := range w.used {
		if u.conn == nil || u.conn.sent.Load() != u.sent {
			return retrypolicy.CodeUnknown
		}
	}
	return retrypolicy.CodeUnsent
}

// reason says in our own words why a request failed. The error's own text may
// hold the URL, a header or what a stranger wrote, so none of it is used.
func reason(ctx context.Context, err error) string {
	var (
		refused   *notAllowedError
		timeout   net.Error
		name      *net.DNSError
		untrusted *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &refused):
		return refused.Error() // words of our own
	case errors.Is(ctx.Err(), context.Canceled):
		return "cancelled"
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return "time-out"
	case errors.As(err, &name):
		return "host name not resolved"
	case errors.As(err, &untrusted):
		return "certificate not trusted"
	}
	for _, known := range []struct {
		err  error
		word string
	}{
		{syscall.ECONNREFUSED, "connection refused"},
		{syscall.ECONNRESET, "connection reset"},
		{syscall.EPIPE, "connection closed"},
		{syscall.EHOSTUNREACH, "host unreachable"},
		{syscall.ENETUNREACH, "network unreachable"},
		{io.EOF, "connection closed"},
		{io.ErrUnexpectedEOF, "connection closed"},
	} {
		if errors.Is(err, known.err) {
			return known.word
		}
	}
	return "connection broken, or not HTTP"
}
