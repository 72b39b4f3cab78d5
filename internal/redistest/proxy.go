package redistest

import (
	"bytes"
	"net"
	"slices"
	"strconv"
	"sync"
)

// Proxy is a TCP proxy in front of a Redis. Clients, replicas and Sentinels connect to it.
// It can hold back the replication to a replica, which then lags although it is connected,
// or cut off everything, like a network partition.
type Proxy struct {
	Addr string

	target string
	mu     sync.Mutex
	change *sync.Cond // signalled when held changes or a relay is closed
	held   map[string]bool
	cut    bool
	relays map[*relay]bool
}

// newProxy starts a proxy in front of the Redis that listens, or will listen, at target.
func newProxy(t TB, target string) *Proxy {
	t.Helper()
	addr := freeAddr(t)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: addr, target: target, held: map[string]bool{}, relays: map[*relay]bool{}}
	p.change = sync.NewCond(&p.mu)
	t.Cleanup(func() {
		_ = l.Close()
		p.Cut()
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

// Hold stops the replication to a replica from now on. The connection stays open in the other
// direction: the replica continues to acknowledge its old offset.
func (p *Proxy) Hold(replica *Proxy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[replica.Addr] = true
}

// Release ends a Hold: the replica receives what was held back, unless it has disconnected
// meanwhile.
func (p *Proxy) Release(replica *Proxy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, replica.Addr)
	p.change.Broadcast()
}

// Drop ends a Hold by closing the connection: what was held back is lost. The replica may
// connect again.
func (p *Proxy) Drop(replica *Proxy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, replica.Addr)
	for r := range p.relays {
		if r.replica == replica.Addr {
			r.close()
		}
	}
	p.change.Broadcast()
}

// Cut closes every connection through the proxy and refuses new ones until Restore, except
// the replication to the given replicas. Connections to the Redis that do not use the proxy
// stay open.
func (p *Proxy) Cut(except ...*Proxy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for r := range p.relays {
		if !slices.ContainsFunc(except, func(e *Proxy) bool { return e.Addr == r.replica }) {
			r.close()
		}
	}
	p.change.Broadcast()
}

// Restore ends a Cut.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// relay is one connection through a proxy, whose mutex guards it.
type relay struct {
	outside, inside net.Conn
	replica         string // address of the replica's proxy if this is its replication
	closed          bool
}

// close ends the relay. The caller holds the proxy's mutex.
func (r *relay) close() {
	r.closed = true
	_ = r.outside.Close() // both may be closed already
	_ = r.inside.Close()
}

func (p *Proxy) serve(outside net.Conn) {
	inside, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = outside.Close()
		return
	}
	r := &relay{outside: outside, inside: inside}
	p.mu.Lock()
	p.relays[r] = true
	if p.cut {
		r.close()
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		r.close()
		delete(p.relays, r)
	}()
	go func() {
		p.inward(r)
		p.mu.Lock()
		defer p.mu.Unlock()
		r.close()
		p.change.Broadcast()
	}()
	p.outward(r)
}

// inward copies what the client sends. A client that sends REPLCONF listening-port is a
// replica, and sends it before the replication starts.
func (p *Proxy) inward(r *relay) {
	buf := make([]byte, 64<<10)
	for beginning := 0; ; {
		n, err := r.outside.Read(buf)
		if err != nil {
			return
		}
		if beginning < 4096 {
			beginning += n
			if port := listeningPort(buf[:n]); port != "" {
				p.mu.Lock()
				r.replica = net.JoinHostPort("127.0.0.1", port)
				p.mu.Unlock()
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

// outward copies what the Redis sends, and waits while its replica is held.
func (p *Proxy) outward(r *relay) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.inside.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		for r.replica != "" && p.held[r.replica] && !r.closed {
			p.change.Wait()
		}
		closed := r.closed
		p.mu.Unlock()
		if closed {
			return
		}
		if _, err := r.outside.Write(buf[:n]); err != nil {
			return
		}
	}
}
