package clientstest

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// roundTripper is a function as a transport.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// diversion sends requests for one address to another, once it is on.
type diversion struct {
	inner    http.RoundTripper
	from, to string
	on       bool
}

// RoundTrip implements http.RoundTripper.
func (d *diversion) RoundTrip(r *http.Request) (*http.Response, error) {
	if d.on {
		r = r.Clone(r.Context())
		target, err := url.Parse(strings.Replace(r.URL.String(), d.from, d.to, 1))
		if err != nil {
			return nil, err
		}
		r.URL, r.Host = target, target.Host
	}
	return d.inner.RoundTrip(r)
}

// expiring is a context whose deadline passes when the test calls expire, so that no test
// depends on the speed of the machine.
type expiring struct {
	context.Context

	done chan struct{}
	once sync.Once
}

func newExpiring(parent context.Context) *expiring {
	return &expiring{Context: parent, done: make(chan struct{})}
}

func (c *expiring) expire() { c.once.Do(func() { close(c.done) }) }

// Done implements context.Context.
func (c *expiring) Done() <-chan struct{} { return c.done }

// Err implements context.Context.
func (c *expiring) Err() error {
	select {
	case <-c.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}
