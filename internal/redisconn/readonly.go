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

// A demoted primary rejects writes: Redis with "READONLY ...", a proxy with "ERR READONLY ..."
// or words of its own. go-redis closes the connection in the first case only, and in a
// pipeline never, so a client would keep using a node that accepts no writes. The
// connections here look for such errors in what they read, and after one all connections to
// that address are closed. The next connection that is dialed goes to the new primary.

// connections are the open connections of one client.
type connections struct {
	mu   sync.Mutex
	open map[*watchedConn]struct{}
}

// dialer returns a dialer like go-redis's that registers its connections.
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

// closeAll closes every connection to an address.
func (c *connections) closeAll(addr string) {
	c.mu.Lock()
	var conns []*watchedConn
	for conn := range c.open {
		if conn.addr == addr {
			conns = append(conns, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // it is not used again in any case
	}
}

// watchedConn is a connection that looks for read-only errors in what it reads.
type watchedConn struct {
	net.Conn

	addr string
	all  *connections
}

// Read implements net.Conn.
func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if hasReadOnlyError(b[:n]) {
		go c.all.closeAll(c.addr) // the caller still gets what was read, with the error
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

// SyscallConn implements syscall.Conn, by which go-redis checks whether an idle connection
// is still open.
func (c *watchedConn) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported // TLS
	}
	return conn.SyscallConn()
}

// hasReadOnlyError reports whether one of the replies is a read-only error. A string that
// only looks like one costs a new connection, nothing else.
func hasReadOnlyError(replies []byte) bool {
	if !bytes.HasPrefix(replies, []byte("-")) && !bytes.Contains(replies, []byte("\n-")) {
		return false
	}
	for line := range bytes.Lines(replies) {
		if line[0] == '-' && IsReadOnly(string(line)) {
			return true
		}
	}
	return false
}

// IsReadOnly reports whether an error text from Redis says that the node is a replica. A
// demoted primary says READONLY; proxies of managed services have words of their own.
func IsReadOnly(message string) bool {
	text := strings.ToLower(message)
	return strings.Contains(text, "readonly") || strings.Contains(text, "read only") || strings.Contains(text, "read-only")
}
