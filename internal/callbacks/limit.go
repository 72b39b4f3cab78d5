package callbacks

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits are the rate limits of client addresses in this process. At the maximum number of addresses
// it forgets the least recently used one.
type limits struct {
	rate  rate.Limit
	burst int
	max   int

	mu     sync.Mutex
	byAddr map[netip.Addr]*list.Element
	recent *list.List // of *limit, the most recently used first
}

type limit struct {
	addr    netip.Addr
	limiter *rate.Limiter
}

func newLimits(r rate.Limit, burst, maxAddrs int) *limits {
	return &limits{rate: r, burst: burst, max: maxAddrs, byAddr: map[netip.Addr]*list.Element{}, recent: list.New()}
}

// allow reports whether an address may make a request now. The addresses of one IPv6 network of 64
// bits, which one client may have, share a limit.
func (l *limits) allow(addr netip.Addr, now time.Time) bool {
	if addr.Is6() {
		if prefix, err := addr.WithZone("").Prefix(64); err == nil {
			addr = prefix.Addr()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	element := l.byAddr[addr]
	if element == nil {
		if len(l.byAddr) >= l.max {
			oldest := l.recent.Remove(l.recent.Back()).(*limit) //nolint:forcetypeassert // the list has no other type
			delete(l.byAddr, oldest.addr)
		}
		element = l.recent.PushFront(&limit{addr, rate.NewLimiter(l.rate, l.burst)})
		l.byAddr[addr] = element
	}
	l.recent.MoveToFront(element)
	return element.Value.(*limit).limiter.AllowN(now, 1) //nolint:forcetypeassert // the list has no other type
}

// clientAddr returns the address that a request comes from. A header X-Forwarded-For is believed as
// far as the proxies that wrote it are trusted: the last address that is not one of theirs.
func clientAddr(r *http.Request, trusted []netip.Prefix) netip.Addr {
	isTrusted := func(addr netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	addr, _ := parseAddr(r.RemoteAddr)
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, text := range slices.Backward(forwarded) {
		before, ok := parseAddr(strings.TrimSpace(text))
		if !ok || !isTrusted(addr) {
			break
		}
		addr = before
	}
	return addr
}

// parseAddr parses an address, with or without a port.
func parseAddr(text string) (netip.Addr, bool) {
	host, _, err := net.SplitHostPort(text)
	if err != nil {
		host = strings.Trim(text, "[]")
	}
	addr, err := netip.ParseAddr(host)
	return addr.Unmap(), err == nil
}
