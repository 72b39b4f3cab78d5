package redisconn

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// A primary that was demoted refuses writes: "READONLY ..." in Redis' own words, "ERR
// READONLY ..." or others' behind a proxy. go-redis drops the connection in the first
// case only, and in a pipeline in none, so a client would stay with a node that takes
// nothing any more. Here every connection to an address is dropped once one of them
// hears of it; the next one dialled finds the new primary.

// connections are the open connections of one client.
type connections struct {
	mu   sync.Mutex
	open map[*watchedConn]struct{}
}

// dialer dials like go-redis, and watches what it has dialled.
func (c *connections) dialer(o *redis.UniversalOptions) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := redis.NewDialer(&redis.Options{DialTimeout: o.DialTimeout, TLSConfig: o.TLSConfig})
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		watched := &watchedConn{Conn: conn, addr: addr, all: c}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.open[watched] = struct{}{}
		return watched, nil
	}
}

// drop closes every connection to an address.
func (c *connections) drop(addr string) {
	c.mu.Lock()
	var dropped []*watchedConn
	for conn := range c.open {
		if conn.addr == addr {
			dropped = append(dropped, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range dropped {
		_ = conn.Close() // it is broken for us, whatever closing it says
	}
}

// watchedConn is a connection that looks for a refusal of writes in what it reads.
type watchedConn struct {
	net.Conn

	addr string
	all  *connections
}

// Read implements net.Conn.
func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if refusesWrites(b[:n]) {
		// What was read is still handed on: its reader learns why.
		go c.all.drop(c.addr)
	}
	return n, err
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	c.all.mu.Lock()
	delete(c.all.open, c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// SyscallConn implements syscall.Conn: go-redis looks there whether an idle connection
// is still open.
func (c *watchedConn) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported // TLS
	}
	return conn.SyscallConn()
}

// refusesWrites reports whether one of the replies is an error that says that the node
// is a replica. A text that only looks like one costs a new connection, nothing else.
func refusesWrites(replies []byte) bool {
	if !bytes.HasPrefix(replies, []byte("-")) && !bytes.Contains(replies, []byte("\n-")) {
		return false
	}
	for line := range bytes.Lines(replies) {
		if line[0] == '-' && ReadOnly(string(line)) {
			return true
		}
	}
	return false
}

// ReadOnly reports whether a refusal says, in whatever words, that the node is a
// replica: a primary that was demoted says READONLY, and proxies of managed services
// have words of their own.
func ReadOnly(refusal string) bool {
	text := strings.ToLower(refusal)
	return strings.Contains(text, "readonly") || strings.Contains(text, "read only") || strings.Contains(text, "read-only")
}
