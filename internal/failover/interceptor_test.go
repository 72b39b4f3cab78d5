package failover_test

import (
	"bytes"
	"net"
	"sync/atomic"
	"testing"
)

// interceptor is a proxy between one worker and Redis. Once armed, it acts when the
// answer to the first request that holds a text comes by, and passes the answer on
// afterwards.
type interceptor struct {
	addr  string
	text  []byte
	act   func()
	armed atomic.Bool
	done  chan struct{} // closed when it has acted
}

func newInterceptor(t *testing.T, target, text string, act func()) *interceptor {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p := &interceptor{addr: l.Addr().String(), text: []byte(text), act: act, done: make(chan struct{})}
	go func() {
		for {
			outside, err := l.Accept()
			if err != nil {
				return
			}
			inside, err := net.Dial("tcp", target)
			if err != nil {
				_ = outside.Close()
				continue
			}
			go p.serve(outside, inside)
		}
	}()
	return p
}

func (p *interceptor) arm() { p.armed.Store(true) }

func (p *interceptor) serve(outside, inside net.Conn) {
	defer outside.Close()
	defer inside.Close()
	var asked atomic.Bool
	go func() {
		defer inside.Close()
		pump(inside, outside, func(chunk []byte) {
			if bytes.Contains(chunk, p.text) && p.armed.CompareAndSwap(true, false) {
				asked.Store(true)
			}
		})
	}()
	pump(outside, inside, func([]byte) {
		if asked.CompareAndSwap(true, false) {
			p.act()
			close(p.done)
		}
	})
}

// pump copies until an end is closed, and shows every chunk before it is passed on.
func pump(to, from net.Conn, show func(chunk []byte)) {
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		show(buf[:n])
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
