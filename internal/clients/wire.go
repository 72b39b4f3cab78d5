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

// countedConn counts the bytes sent on a connection. During a write all of its bytes count
// as sent.
type countedConn struct {
	net.Conn

	sent atomic.Int64
	// beforeSend is called once, before the next byte is sent.
	beforeSend atomic.Pointer[func() error]
}

func (c *countedConn) Write(b []byte) (int, error) {
	if beforeSend := c.beforeSend.Swap(nil); beforeSend != nil {
		if err := (*beforeSend)(); err != nil {
			return 0, &notAllowedError{err}
		}
	}
	c.sent.Add(int64(len(b)))
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n - len(b)))
	return n, err
}

// notAllowedError is the error of a request that BeforeSend did not allow to be sent.
type notAllowedError struct{ why error }

func (e *notAllowedError) Error() string { return "no longer allowed to be sent: " + e.why.Error() }

// counted returns the counting connection below TLS; nil if a transport other than
// NewTransport dialled.
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

// stage is the progress of a request.
type stage int

const (
	begin stage = iota // no connection requested yet
	dial
	handshake
	send
	wait
)

func (s stage) String() string {
	return [...]string{"begin", "dial", "TLS handshake", "send", "wait for the answer"}[s]
}

// wire records how far one request has got. The transport calls its hooks from several
// goroutines, sometimes after the request has ended.
type wire struct {
	beforeSend func() error // may be nil

	mu    sync.Mutex
	stage stage
	used  []use
}

// use is a connection that the request used, and the number of bytes sent on it before.
type use struct {
	conn *countedConn
	sent int64
}

// trace returns a context whose requests report to the wire.
func (w *wire) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:           func(string) { w.reach(dial) },
		TLSHandshakeStart: func() { w.reach(handshake) },
		GotConn: func(info httptrace.GotConnInfo) {
			u := use{conn: counted(info.Conn)}
			if u.conn != nil {
				u.sent = u.conn.sent.Load()
				if w.beforeSend == nil {
					u.conn.beforeSend.Store(nil)
				} else {
					u.conn.beforeSend.Store(&w.beforeSend)
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

// reach advances the stage and never moves it back: a dial whose connection is no longer
// needed, because an idle one became free first, still reports.
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

// code returns the code of a request without an answer. It is net:unsent only if that is
// certain: the transport requested a connection, and no byte was sent on any that it got.
// net/http stops writing before it returns an error, so the counts are final.
func (w *wire) code() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stage == begin { // a transport without tracing may have sent the request
		return retrypolicy.CodeUnknown
	}
	for _, u := range w.used {
		if u.conn == nil || u.conn.sent.Load() != u.sent {
			return retrypolicy.CodeUnknown
		}
	}
	return retrypolicy.CodeUnsent
}

// reason describes why a request failed. It does not use the text of the error, which may
// contain the URL, a header or data from the other side.
func reason(ctx context.Context, err error) string {
	var (
		denied    *notAllowedError
		timeout   net.Error
		name      *net.DNSError
		untrusted *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &denied):
		return denied.Error() // the text is our own
	case errors.Is(ctx.Err(), context.Canceled):
		return "cancelled"
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.As(err, &name):
		return "host name not resolved"
	case errors.As(err, &untrusted):
		return "certificate not trusted"
	}
	for _, known := range []struct {
		err         error
		description string
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
			return known.description
		}
	}
	return "connection broken, or not HTTP"
}
