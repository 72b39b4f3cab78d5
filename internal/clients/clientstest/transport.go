package clientstest

import (
	"net/http"
	"net/url"
	"strings"
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
