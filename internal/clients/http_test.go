package clients

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"terbayar/internal/payment"
)

// breakable is a connection whose writes fail once it is broken, after a number of bytes.
type breakable struct {
	net.Conn

	broken *atomic.Bool
	writes int // bytes of a write before it fails
}

var errBroken = errors.New("broken by the test")

func (c *breakable) Write(b []byte) (int, error) {
	if !c.broken.Load() {
		return c.Conn.Write(b)
	}
	n, err := c.Conn.Write(b[:min(c.writes, len(b))])
	return n, errors.Join(errBroken, err)
}

// TestUnsentIsCertain breaks a reused connection. The request is net:unsent only if no byte
// was sent.
func TestUnsentIsCertain(t *testing.T) {
	for _, row := range []struct {
		name    string
		secured bool
		writes  int
		counted bool
		code    string
	}{
		{"no byte sent", false, 0, true, "net:unsent"},
		{"one byte sent", false, 1, true, "net:unknown"},
		{"bytes not counted", false, 0, false, "net:unknown"},
		{"no byte sent, TLS", true, 0, true, "net:unsent"},
		{"one byte sent, TLS", true, 1, true, "net:unknown"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var posts, dials atomic.Int32
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				posts.Add(1)
				if r.ProtoMajor != 1 {
					t.Errorf("%s, want HTTP/1.1: over HTTP/2 the bytes of a request cannot be counted", r.Proto)
				}
			}))
			server.EnableHTTP2 = true
			defer server.Close()
			broken := &atomic.Bool{}
			transport := NewTransport()
			if row.secured {
				server.StartTLS()
				roots := x509.NewCertPool()
				roots.AddCert(server.Certificate())
				transport.TLSClientConfig = &tls.Config{RootCAs: roots}
			} else {
				server.Start()
			}
			transport.DialContext = func(_ context.Context, network, address string) (net.Conn, error) {
				dials.Add(1)
				conn, err := net.Dial(network, address)
				if err != nil {
					return nil, err
				}
				conn = &breakable{conn, broken, row.writes}
				if row.counted {
					conn = &countedConn{Conn: conn}
				}
				return conn, nil
			}
			sender := newSender(t, server.URL, transport)
			post := Request{Method: http.MethodPost, Path: "/x", Body: []byte("{}")}
			if a, _ := sender.Send(t.Context(), "test", post); a.Code != "http:200" {
				t.Fatalf("code %s (%v), want http:200", a.Code, a.Err)
			}
			broken.Store(true)
			a, body := sender.Send(t.Context(), "test", post)
			if a.Code != row.code || body != nil {
				t.Errorf("code %s (%v), want %s", a.Code, a.Err, row.code)
			}
			if dials.Load() != 1 || posts.Load() != 1 {
				t.Errorf("%d dials, %d requests handled; want 1 of each: the Transport must not send it again", dials.Load(), posts.Load())
			}
			if strings.Contains(a.Err.Error(), errBroken.Error()) {
				t.Errorf("error %q contains the text of another error", a.Err)
			}
		})
	}
}

// TestReuse: as many connections as there were requests at the same time are used again. The
// Transport may give up a connection if the machine is slow, so a few more are allowed.
func TestReuse(t *testing.T) {
	const concurrency = 200
	var conns atomic.Int32
	var round sync.WaitGroup // until all requests of a round have arrived
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		round.Done()
		round.Wait()
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	sender := newSender(t, server.URL, nil)
	for range 3 {
		round.Add(concurrency)
		var senders sync.WaitGroup
		for range concurrency {
			senders.Go(func() {
				if a, _ := sender.Send(t.Context(), "test", Request{Method: http.MethodPost}); a.Code != "http:200" {
					t.Errorf("code %s (%v), want http:200", a.Code, a.Err)
				}
			})
		}
		senders.Wait()
	}
	if n := conns.Load(); n > concurrency*3/2 {
		t.Errorf("%d connections for 3 times %d requests at the same time", n, concurrency)
	}
}

// untraced is a transport that fails without calling the hooks of httptrace.
type untraced struct{}

func (untraced) RoundTrip(*http.Request) (*http.Response, error) { return nil, errBroken }

func TestTransportWithoutTrace(t *testing.T) {
	a, _ := newSender(t, "http://gateway.example", untraced{}).Send(t.Context(), "test", Request{Method: http.MethodPost})
	if a.Code != "net:unknown" {
		t.Errorf("code %s, want net:unknown: it may have been sent", a.Code)
	}
}

func TestInvalidRequest(t *testing.T) {
	for name, r := range map[string]Request{
		"header": {Method: http.MethodPost, Header: http.Header{"X": {"a\nb"}}},
		"path":   {Method: http.MethodPost, Path: "/%zz"},
		"method": {Method: "a b"},
	} {
		if a, _ := newSender(t, "http://gateway.example", untraced{}).Send(t.Context(), "test", r); a.Code != "net:unsent" {
			t.Errorf("%s: code %s, want net:unsent", name, a.Code)
		}
	}
}

// TestContextWithCause: the error does not contain the cause of the caller's context.
func TestContextWithCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		transport := NewTransport()
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return &countedConn{Conn: client}, nil }
		go func() { _, _ = http.ReadRequest(bufio.NewReader(server)) }() // and no answer
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errBroken)
		defer cancel()
		a, _ := newSender(t, "http://gateway.example", transport).Send(ctx, "test", Request{Method: http.MethodGet})
		if want := "paydia test: net:unknown: wait for the answer: timeout"; a.Err == nil || a.Err.Error() != want {
			t.Errorf("error %v, want %q", a.Err, want)
		}
	})
}

func TestBaseURL(t *testing.T) {
	for _, row := range []struct {
		base, path string // path of "/x"; "": refused
	}{
		{"https://api.paydia.id/snap/v1.0", "/snap/v1.0/x"},
		{"https://api.paydia.id/snap/v1.0/", "/snap/v1.0/x"},
		{"http://127.0.0.1:8080", "/x"},
		{"http://h/a%2Fb", "/a%2Fb/x"},
		{"", ""},
		{"api.paydia.id/snap", ""},
		{"ftp://api.paydia.id", ""},
		{"https://", ""},
		{"https://hush:hush@api.paydia.id", ""},
		{"https://api.paydia.id?hush", ""},
		{"https://api.paydia.id#hush", ""},
		{"https://api.paydia.id?", ""},
		{"https://hush\n", ""},
	} {
		s, err := NewSender(payment.Paydia, row.base, nil, nil)
		switch {
		case (err == nil) != (row.path != ""):
			t.Errorf("%q: error %v", row.base, err)
		case err != nil && strings.Contains(err.Error(), "hush"):
			t.Errorf("%q: error %q contains the URL", row.base, err)
		case err == nil && s.Path("/x") != row.path:
			t.Errorf("%q: path %q, want %q", row.base, s.Path("/x"), row.path)
		}
	}
}

func newSender(t *testing.T, base string, transport http.RoundTripper) *Sender {
	t.Helper()
	s, err := NewSender(payment.Paydia, base, transport, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
