package redistest

import (
	"bytes"
	"net"
	"slices"
	"strconv"
	"sync"
)

// Proxy is the address by which others know a Redis: a proxy before it. What goes to
// its replicas can be held back there, so that they lag though they are connected; or
// everything can be cut off, as by a network that fails.
type Proxy struct {
	Addr string

	target string
	mu     sync.Mutex
	change *sync.Cond // held or closed
	held   map[string]bool
	cut    bool
	relays map[*relay]bool
}

// newFront puts a front before the Redis that listens, or will, at the target.
func newFront(t TB, target string) *Proxy {
	t.Helper()
	// Not a port of the system's choice: a client that keeps dialling one that is
	// closed might be given that very port for its own end.
	addr := freeAddr(t)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	f := &Proxy{Addr: addr, target: target, held: map[string]bool{}, relays: map[*relay]bool{}}
	f.change = sync.NewCond(&f.mu)
	t.Cleanup(func() {
		_ = l.Close()
		f.Cut()
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
	return f
}

// Hold keeps what the Redis writes from now on away from the replica of that address.
// The connection stands, and what the replica says still passes: it tells again and
// again how little it has.
func (f *Proxy) Hold(replica *Proxy) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[replica.Addr] = true
}

// Release lets the replica have what was held back, unless it has left meanwhile: then
// that is gone, as with a primary that dies.
func (f *Proxy) Release(replica *Proxy) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.held, replica.Addr)
	f.change.Broadcast()
}

// Drop ends the replication to a held replica for good: what was held back is gone.
// The replica may connect again, and is no longer held then.
func (f *Proxy) Drop(replica *Proxy) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.held, replica.Addr)
	for r := range f.relays {
		if r.replica == replica.Addr {
			r.close()
		}
	}
	f.change.Broadcast()
}

// Cut closes every connection through the front and lets none pass until Mend, but for
// the replication to replicas that are named. Connections that were made to the Redis
// itself stay.
func (f *Proxy) Cut(but ...*Proxy) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = true
	for r := range f.relays {
		if !slices.ContainsFunc(but, func(b *Proxy) bool { return b.Addr == r.replica }) {
			r.close()
		}
	}
	f.change.Broadcast()
}

// Restore ends a Cut.
func (f *Proxy) Restore() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = false
}

// relay is one connection through a front. The front's lock guards it.
type relay struct {
	outside, inside net.Conn
	replica         string // whose replication it carries, by its front's address; empty: nobody's
	closed          bool
}

// close ends the relay. The caller holds the front's lock.
func (r *relay) close() {
	r.closed = true
	_ = r.outside.Close() // it may be closed already, and so may the other one
	_ = r.inside.Close()
}

func (f *Proxy) serve(outside net.Conn) {
	inside, err := net.Dial("tcp", f.target)
	if err != nil {
		_ = outside.Close()
		return
	}
	r := &relay{outside: outside, inside: inside}
	f.mu.Lock()
	f.relays[r] = true
	if f.cut {
		r.close()
	}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		r.close()
		delete(f.relays, r)
	}()
	go func() {
		f.inward(r)
		f.mu.Lock()
		defer f.mu.Unlock()
		r.close()
		f.change.Broadcast()
	}()
	f.outward(r)
}

// inward carries what comes from outside, and looks at its beginning: a replica says
// where it listens before it asks for anything.
func (f *Proxy) inward(r *relay) {
	buf := make([]byte, 64<<10)
	for beginning := 0; ; {
		n, err := r.outside.Read(buf)
		if err != nil {
			return
		}
		if beginning < 4096 {
			beginning += n
			if port := listeningPort(buf[:n]); port != "" {
				f.mu.Lock()
				r.replica = net.JoinHostPort("127.0.0.1", port)
				f.mu.Unlock()
			}
		}
		if _, err := r.inside.Write(buf[:n]); err != nil {
			return
		}
	}
}

// listeningPort finds "REPLCONF listening-port PORT" in what a connection sends.
func listeningPort(sent []byte) string {
	_, rest, found := bytes.Cut(sent, []byte("listening-port\r\n$"))
	if !found {
		return ""
	}
	_, rest, _ = bytes.Cut(rest, []byte("\r\n"))
	port, _, _ := bytes.Cut(rest, []byte("\r\n"))
	if _, err := strconv.Atoi(string(port)); err != nil {
		return ""
	}
	return string(port)
}

// outward carries what the Redis writes, unless it is for a replica that is held.
func (f *Proxy) outward(r *relay) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.inside.Read(buf)
		if err != nil {
			return
		}
		f.mu.Lock()
		for r.replica != "" && f.held[r.replica] && !r.closed {
			f.change.Wait()
		}
		closed := r.closed
		f.mu.Unlock()
		if closed {
			return
		}
		if _, err := r.outside.Write(buf[:n]); err != nil {
			return
		}
	}
}
