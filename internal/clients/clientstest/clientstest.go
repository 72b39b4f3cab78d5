// Package clientstest has the contract tests of the gateway clients: a client sends each
// request once, and reports net:unsent, an acceptance or absence only if that is certain. The
// tests run over real sockets against a server that misbehaves as the test requires.
package clientstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"terbayar/internal/clients"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

// Setup has the options of a client that the contract tests set.
type Setup struct {
	BaseURL   string
	Timeout   time.Duration
	Transport http.RoundTripper
	Now       func() time.Time
}

// Subject describes a client to test, and the answers of its gateway. A path is the end of
// the path of a request.
type Subject struct {
	New      func(t testing.TB, s Setup) clients.Gateway
	Secrets  []string // of the settings and the submission: never in an error or a message
	Personal []string // customer data of the submission: never in a message

	LoginPath string
	Login     func(token string, lifetime time.Duration) string // the body of a successful login

	SubmitPath string
	Submission clients.Submission
	Accepted   string // the body of a successful submit
	Success    string // its code

	LookupPath string
	Lookup     func(ctx context.Context, g clients.Gateway) clients.Answer // any lookup of the client
	MaxAnswer  int                                                         // maximum size of the answer to Lookup in bytes
}

// token is the access token of all logins. It is a secret too.
const token = "access-token-of-the-contract"

// longTimeout never passes, even on a loaded machine. A test that needs a timeout uses an
// expiring context.
const longTimeout = 5 * time.Minute

// start is the first time of a test clock.
var start = time.Date(2026, 5, 20, 23, 59, 30, 0, payment.Jakarta)

// Run runs the contract tests for one client.
func Run(t *testing.T, s Subject) {
	t.Run("Answers", s.answers)
	t.Run("Redaction", s.redaction)
	t.Run("InvalidToken", s.invalidToken)
	t.Run("Unsent", s.unsent)
	t.Run("Cancelled", s.cancelled)
	t.Run("StaleConnection", s.staleConnection)
	t.Run("IdleConnectionClosed", s.idleConnectionClosed)
	t.Run("RetryAfter", s.retryAfter)
	t.Run("ConnectionReuse", s.connectionReuse)
	t.Run("WrappedTransport", s.wrappedTransport)
	t.Run("OneLogin", s.oneLogin)
	t.Run("LoginOutlivesFirstCaller", s.loginOutlivesFirstCaller)
	t.Run("LoginFails", s.loginFails)
	t.Run("DropToken", s.dropToken)
	t.Run("TokenExpiry", s.tokenExpiry)
}

// Benchmark measures one Submit over a warm connection. The server allocates nothing, so that
// the allocations are those of the client.
func Benchmark(b *testing.B, s Subject) {
	login, answer := JSON(http.StatusOK, s.Login(token, time.Hour)), JSON(http.StatusOK, s.Accepted)
	g := s.New(b, Setup{BaseURL: serveCheaply(b, s.LoginPath, login.Raw, answer.Raw), Timeout: longTimeout})
	if err := g.Authenticate(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if a := g.Submit(b.Context(), s.Submission); a.Code != s.Success {
			b.Fatalf("code %s (%v), want %s", a.Code, a.Err, s.Success)
		}
	}
}

// clock is a clock that only advance moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// serve starts a server that accepts every login and answers all other requests with reply.
func (s Subject) serve(t testing.TB, reply func(Received) Reply) *Server {
	return Serve(t, func(r Received) Reply {
		if strings.HasSuffix(r.Path, s.LoginPath) {
			return JSON(http.StatusOK, s.Login(token, time.Hour))
		}
		return reply(r)
	})
}

// always returns a script with one reply for every request.
func always(r Reply) func(Received) Reply { return func(Received) Reply { return r } }

// redaction lets the gateway repeat everything it receives, in every field that may contain a
// message.
func (s Subject) redaction(t *testing.T) {
	bodies := []string{
		`{"error":true,"message":%q}`, `{"status":"error","message":%q,"data":null}`, `{"error":%q}`, `{"message":%q}`,
		`{"message":"invalid","errors":{"field":[%q]}}`, `{"responseCode":"4006300","responseMessage":%q}`,
		`{"error":"invalid_token","error_description":%q}`, `%q`, `{"error":{"code":7,"message":%q}}`,
	}
	quote := func(text string) string {
		return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ").Replace(text)
	}
	var script func(Received) Reply
	server := s.serve(t, func(r Received) Reply { return script(r) })
	g := s.loggedIn(t, server, Setup{Timeout: longTimeout})
	// check makes one call. The gateway's message repeats a text.
	check := func(name string, call func(context.Context, clients.Gateway) clients.Answer, status int, body string, repeated func(http.Header) string, mayContain bool) {
		t.Helper()
		var text string
		called := false
		script = func(r Received) Reply {
			called, text = true, repeated(r.Header)
			return JSON(status, strings.Replace(body, "%q", `"What is \u200b`+quote(text)+`?"`, 1))
		}
		answer := call(t.Context(), g)
		if !called {
			t.Fatalf("%s: no request: %v", name, answer.Err)
		}
		if text == "" { // the client does not send this header
			return
		}
		shown := fmt.Sprintf("%s %v", answer.Message, answer.Err)
		if strings.Contains(shown, text) && !mayContain || len([]rune(answer.Message)) > 150 {
			t.Errorf("%s, %d, body %s: %q contains %q", name, status, body, shown, text)
		}
		if !strings.Contains(answer.Message, "What is") || strings.Contains(answer.Message, "\u200b") {
			t.Errorf("%s, %d, body %s: message %q lacks the gateway's text", name, status, body, answer.Message)
		}
	}
	for name, call := range s.calls() {
		for _, status := range []int{200, 401, 500} {
			for _, body := range bodies {
				for _, text := range slices.Concat([]string{token}, s.Secrets, s.Personal) {
					// The client does not have the customer's data in a lookup.
					mayContain := slices.Contains(s.Personal, text) && name == s.LookupPath
					check(name, call, status, body, func(http.Header) string { return text }, mayContain)
				}
				for _, header := range []string{"authorization", "x-signature", "authorization-customer", "x-partner-id", "x-client-key"} {
					check(name, call, status, body, func(h http.Header) string { return strings.TrimPrefix(h.Get(header), "Bearer ") }, false)
				}
			}
		}
	}
}

// invalidToken lets the gateway report an expired or invalid access token in many ways. The
// client must not report a result for the payment, and the built-in policy must log in again.
func (s Subject) invalidToken(t *testing.T) {
	const redirect = "HTTP/1.1 302 X\r\nLocation: https://h.test/login\r\nContent-Length: 0\r\n\r\n"
	var replies []Reply
	for _, status := range []int{200, 400, 401, 403, 404, 405, 419, 422, 498} {
		for _, body := range []string{
			`{"error":"token_expired"}`, `{"message":"Token is Expired"}`, `{"status":"error","message":"Token tidak valid","data":null}`,
			`{"error":true,"message":"Token expired"}`, `{"message":"Unauthenticated."}`, `{"status":"Token is Invalid"}`, `"jwt expired"`,
			`{"error":"invalid_token","error_description":"The access token expired"}`, `{"error":{"message":"Sesi anda telah habis, silakan login kembali"}}`,
			`{"success":false,"message":"Token has expired"}`, `Unauthorized`, `{"code":"TOKEN_EXPIRED","message":"Please try again"}`,
		} {
			replies = append(replies, JSON(status, body))
		}
	}
	for _, body := range []string{"", "<html>Unauthorized</html>", `{"message":"no"}`} {
		replies = append(replies, JSON(401, body))
	}
	replies = append(replies, Reply{redirect, Keep})
	var reply Reply
	server := s.serve(t, func(Received) Reply { return reply })
	g := s.loggedIn(t, server, Setup{Timeout: longTimeout})
	for _, reply = range replies {
		for path, call := range s.calls() {
			a := call(t.Context(), g)
			d := retrypolicy.Builtin().Decide(s.Submission.Order.Gateway, a.Code, a.Message, 1, 0)
			if d.Action != retrypolicy.RefreshToken || !d.NewLogin || a.Receipt != nil || a.Absent {
				t.Errorf("%s, %q: code %s, message %q: %s, want refresh_token", path, reply.Raw, a.Code, a.Message, d.Action)
			}
		}
	}
}

// checkError fails the test if an error contains a secret, the address of the gateway, or text
// of an answer.
func (s Subject) checkError(t testing.TB, server *Server, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var own *clients.Error
	if !errors.As(err, &own) {
		t.Errorf("error %q is a %T, want a *clients.Error", err, err)
	}
	forbidden := append([]string{token, strings.TrimPrefix(server.URL, "http://")}, s.Secrets...)
	for _, r := range server.Received("") {
		for name, values := range r.Header {
			if strings.Contains(name, "Signature") || strings.Contains(name, "Authorization") {
				forbidden = append(forbidden, values...)
			}
		}
	}
	for _, text := range forbidden {
		if text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("error %q contains %q", err, text)
		}
	}
}

// echo is part of the answers of the misbehaving server: a gateway may repeat what it received.
func (s Subject) echo() string {
	return "you sent " + s.Secrets[0]
}

func (s Subject) answers(t *testing.T) {
	echo := s.echo()
	html := "<html><body>" + echo + "</body></html>"
	long := s.Accepted + strings.Repeat(" ", s.MaxAnswer) // a success, if it were shorter
	for _, row := range []struct {
		name  string
		reply Reply
		code  string
		http  int
	}{
		{"timeout", Reply{"", Hang}, "net:unknown", 0},
		{"timeout in the head", Reply{"HTTP/1.1 200 OK\r\nX-Echo: " + echo, Hang}, "net:unknown", 0},
		{"timeout in the body", Reply{"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", Hang}, "net:unknown", 200},
		{"reset", Reply{"", Reset}, "net:unknown", 0},
		{"close", Reply{"", Close}, "net:unknown", 0},
		{"close in the head", Reply{"HTTP/1.1 200 OK\r\nContent-", Close}, "net:unknown", 0},
		{"close in the body", Reply{"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", Close}, "net:unknown", 200},
		{"close in a chunk", Reply{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", Close}, "net:unknown", 200},
		{"close in the body of a 500", Reply{"HTTP/1.1 500 X\r\nContent-Length: 900\r\n\r\n{", Close}, "net:unknown", 500},
		{"not HTTP", Reply{echo + "\r\n\r\n", Close}, "net:unknown", 0},
		{"endless head", Reply{"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<18), Hang}, "net:unknown", 0},
		{"HTML 500", JSON(500, html), "http:500", 500},
		{"HTML 403", JSON(403, html), "http:403", 403},
		{"HTML 200", JSON(200, html), "body:unreadable", 200},
		{"empty 200", JSON(200, ""), "body:unreadable", 200},
		{"empty 502", JSON(502, ""), "http:502", 502},
		{"switching protocols", Reply{"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", Hang}, "http:101", 101},
		{"no content", Reply{"HTTP/1.1 204 X\r\n\r\n", Keep}, "body:unreadable", 204},
		{"null", JSON(200, "null"), "body:unreadable", 200},
		{"a list", JSON(200, "[]"), "body:unreadable", 200},
		{"an empty object", JSON(200, "{}"), "body:unreadable", 200},
		{"garbage after the object", JSON(200, s.Accepted+echo), "body:unreadable", 200},
		{"success under 500", JSON(500, s.Accepted), "http:500", 500},
		{"success under 302", JSON(302, s.Accepted), "http:302", 302},
		{"too long", JSON(200, long), "body:unreadable", 200},
		{"too long under 500", JSON(500, long), "http:500", 500},
		{"unauthorized", JSON(401, html), "http:401", 401},
		{"redirect", Reply{"HTTP/1.1 307 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", Keep}, "http:307", 307},
		{"redirect of a POST", Reply{"HTTP/1.1 302 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", Keep}, "http:302", 302},
		{"redirect to nowhere", Reply{"HTTP/1.1 307 X\r\nLocation: :" + echo + "\r\nContent-Length: 0\r\n\r\n", Keep}, "http:307", 307},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := s.serve(t, always(row.reply))
			for path, call := range s.calls() {
				ctx := newExpiring(t.Context())
				var transport http.RoundTripper
				switch row.name {
				case "timeout", "timeout in the head":
					server.OnHang(ctx.expire)
				case "timeout in the body": // not before the client has read the head
					transport = expiringAfterHead(ctx, s.LoginPath)
				}
				g := s.loggedIn(t, server, Setup{Timeout: longTimeout, Transport: transport})
				a := call(ctx, g)
				if a.Code != row.code || a.HTTPStatus != row.http || a.Receipt != nil || a.Absent {
					t.Errorf("%s: code %s, HTTP %d, receipt %v, absent %t (%v); want %s, %d and neither",
						path, a.Code, a.HTTPStatus, a.Receipt, a.Absent, a.Err, row.code, row.http)
				}
				if a.Token != 1 || a.At.IsZero() || a.Duration <= 0 {
					t.Errorf("%s: token %d, at %v, duration %v; want all of them set", path, a.Token, a.At, a.Duration)
				}
				s.checkError(t, server, a.Err)
			}
			if n := len(server.Received(s.SubmitPath)); n != 1 {
				t.Errorf("%d submits on the wire, want 1", n)
			}
			if n := len(server.Received("/elsewhere")); n != 0 {
				t.Errorf("a redirect was followed")
			}
		})
	}
	t.Run("success", func(t *testing.T) {
		for _, head := range []string{"", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"} {
			reply := JSON(200, s.Accepted)
			reply.Raw = head + reply.Raw
			server := s.serve(t, always(reply))
			g := s.New(t, Setup{BaseURL: server.URL, Timeout: longTimeout})
			a := g.Submit(t.Context(), s.Submission)
			if a.Code != s.Success || a.Receipt == nil || a.Err != nil || a.Token != 1 {
				t.Errorf("answer %+v, want %s with a receipt", a, s.Success)
			}
		}
	})
}

// calls returns a submit and a lookup, by the path of their request.
func (s Subject) calls() map[string]func(context.Context, clients.Gateway) clients.Answer {
	return map[string]func(context.Context, clients.Gateway) clients.Answer{
		s.SubmitPath: func(ctx context.Context, g clients.Gateway) clients.Answer { return g.Submit(ctx, s.Submission) },
		s.LookupPath: s.Lookup,
	}
}

// expiringAfterHead returns a transport that lets the context expire when it has received the
// head of an answer, except that of a login.
func expiringAfterHead(ctx *expiring, loginPath string) http.RoundTripper {
	inner := clients.NewTransport()
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		res, err := inner.RoundTrip(r)
		if !strings.HasSuffix(r.URL.Path, loginPath) {
			ctx.expire()
		}
		return res, err
	})
}

// loggedIn returns a client that has a token.
func (s Subject) loggedIn(t *testing.T, server *Server, setup Setup) clients.Gateway {
	t.Helper()
	setup.BaseURL = server.URL
	g := s.New(t, setup)
	if err := g.Authenticate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return g
}

// loginAndClose accepts a login and closes the connection, so that the next request dials.
func (s Subject) loginAndClose(r Received) Reply {
	if !strings.HasSuffix(r.Path, s.LoginPath) {
		return Reply{Then: Close}
	}
	reply := JSON(200, s.Login(token, time.Hour))
	reply.Raw = strings.Replace(reply.Raw, "\r\n", "\r\nConnection: close\r\n", 1)
	reply.Then = Close
	return reply
}

// checkUnsent checks the answer to a request of which no byte was sent.
func (s Subject) checkUnsent(t *testing.T, server *Server, path string, a clients.Answer, detail string) {
	t.Helper()
	if a.Code != "net:unsent" || a.HTTPStatus != 0 {
		t.Errorf("%s: code %s, HTTP %d (%v), want net:unsent", path, a.Code, a.HTTPStatus, a.Err)
	}
	if a.Err == nil || !strings.Contains(a.Err.Error(), detail) {
		t.Errorf("%s: error %v, want it to contain %q", path, a.Err, detail)
	}
	s.checkError(t, server, a.Err)
}

func (s Subject) unsent(t *testing.T) {
	check := func(t *testing.T, server *Server, g clients.Gateway, detail string) {
		t.Helper()
		for path, call := range s.calls() {
			s.checkUnsent(t, server, path, call(t.Context(), g), detail)
		}
	}
	t.Run("dial refused", func(t *testing.T) {
		server := Serve(t, s.loginAndClose)
		g := s.loggedIn(t, server, Setup{Timeout: longTimeout})
		server.Refuse()
		check(t, server, g, "dial: connection refused")
	})
	t.Run("dial refused at login", func(t *testing.T) {
		server := Serve(t, s.loginAndClose)
		server.Refuse()
		check(t, server, s.New(t, Setup{BaseURL: server.URL, Timeout: longTimeout}), "dial: connection refused")
	})
	t.Run("certificate not trusted", func(t *testing.T) {
		secured := httptest.NewUnstartedServer(http.NotFoundHandler())
		secured.Config.ErrorLog = log.New(io.Discard, "", 0)
		secured.StartTLS()
		t.Cleanup(secured.Close)
		server, g := s.diverted(t, secured.URL)
		check(t, server, g, "TLS handshake: certificate not trusted")
	})
	t.Run("no TLS", func(t *testing.T) {
		plain := Serve(t, always(Reply{Then: Close}))
		server, g := s.diverted(t, strings.Replace(plain.URL, "http:", "https:", 1))
		check(t, server, g, "TLS handshake: ")
	})
	t.Run("timeout of the TLS handshake", func(t *testing.T) {
		silent, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = silent.Close() })
		server, g := s.diverted(t, "https://"+silent.Addr().String())
		for path, call := range s.calls() {
			ctx := newExpiring(t.Context())
			go func() { // the server reads the ClientHello and does not answer
				conn, err := silent.Accept()
				if err == nil {
					t.Cleanup(func() { _ = conn.Close() })
					_, err = conn.Read(make([]byte, 1))
				}
				if err != nil {
					t.Errorf("%s: no ClientHello: %v", path, err)
				}
				ctx.expire()
			}()
			s.checkUnsent(t, server, path, call(ctx, g), "TLS handshake: timeout")
		}
	})
	t.Run("login refused", func(t *testing.T) {
		server := Serve(t, always(JSON(401, s.echo())))
		g := s.New(t, Setup{BaseURL: server.URL, Timeout: longTimeout})
		check(t, server, g, "http:401")
		if n := len(server.Received(s.SubmitPath)); n != 0 {
			t.Errorf("%d submits without a token", n)
		}
	})
}

// diverted returns a client that is logged in at a well-behaved server, and whose other
// requests go to another address.
func (s Subject) diverted(t *testing.T, target string) (*Server, clients.Gateway) {
	t.Helper()
	server := Serve(t, s.loginAndClose)
	divert := &diversion{inner: clients.NewTransport(), from: server.URL, to: target}
	g := s.loggedIn(t, server, Setup{Timeout: longTimeout, Transport: divert})
	divert.on = true
	return server, g
}

func (s Subject) cancelled(t *testing.T) {
	arrived := make(chan struct{}, 2)
	server := s.serve(t, func(Received) Reply {
		arrived <- struct{}{}
		return Reply{Then: Hang}
	})
	for path, call := range s.calls() {
		g := s.loggedIn(t, server, Setup{Timeout: longTimeout})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if a := call(ctx, g); a.Code != "net:unsent" {
			t.Errorf("%s with a cancelled context: code %s, want net:unsent", path, a.Code)
		}
		ctx, cancel = context.WithCancel(t.Context())
		go func() {
			<-arrived
			cancel()
		}()
		a := call(ctx, g)
		if a.Code != "net:unknown" || !strings.Contains(a.Err.Error(), "cancelled") {
			t.Errorf("%s cancelled while waiting: code %s (%v), want net:unknown", path, a.Code, a.Err)
		}
		s.checkError(t, server, a.Err)
		cancel()
	}
	if n := len(server.Received(s.SubmitPath)); n != 1 {
		t.Errorf("%d submits on the wire, want 1", n)
	}
}

// staleConnection tests the case in which net/http sends a request again by itself: the server
// closes a reused connection instead of answering.
func (s Subject) staleConnection(t *testing.T) {
	for name, end := range map[string]Then{"closed": Close, "reset": Reset} {
		t.Run(name, func(t *testing.T) {
			server := s.serve(t, always(Reply{Then: end}))
			g := s.loggedIn(t, server, Setup{Timeout: longTimeout})
			a := g.Submit(t.Context(), s.Submission)
			if server.Connections() != 1 {
				t.Fatalf("%d connections, want that of the login to be reused", server.Connections())
			}
			if a.Code != "net:unknown" {
				t.Errorf("code %s, want net:unknown", a.Code)
			}
			if n := len(server.Received(s.SubmitPath)); n != 1 {
				t.Errorf("%d submits on the wire, want 1", n)
			}
		})
	}
}

// idleConnectionClosed sends a submit while the server closes the idle connection. In every
// order of events there is at most one submit on the wire, and an unsent one is not received.
func (s Subject) idleConnectionClosed(t *testing.T) {
	for range 30 {
		server := Serve(t, func(r Received) Reply {
			if strings.HasSuffix(r.Path, s.LoginPath) {
				reply := JSON(200, s.Login(token, time.Hour))
				reply.Then = Close // without announcing it in the head
				return reply
			}
			return JSON(200, s.Accepted)
		})
		g := s.loggedIn(t, server, Setup{Timeout: longTimeout})
		a := g.Submit(t.Context(), s.Submission)
		switch n := len(server.Received(s.SubmitPath)); {
		case n > 1:
			t.Fatalf("%d submits on the wire", n)
		case n == 1 && a.Code != s.Success:
			t.Fatalf("code %s for a submit that was received", a.Code)
		case n == 0 && a.Code != "net:unsent" && a.Code != "net:unknown":
			t.Fatalf("code %s for a submit that was not received", a.Code)
		}
	}
}

func (s Subject) retryAfter(t *testing.T) {
	for _, row := range []struct {
		header string
		want   time.Duration
	}{
		{"7", 7 * time.Second},
		{start.Add(90 * time.Second).UTC().Format(http.TimeFormat), 90 * time.Second},
		{start.Add(-time.Minute).UTC().Format(http.TimeFormat), 0},
		{"", 0},
		{"soon", 0},
		{"-5", 0},
		{"99999999999", time.Hour},
	} {
		now := &clock{now: start}
		busy := always(Reply{Raw: "HTTP/1.1 429 X\r\nRetry-After: " + row.header + "\r\nContent-Length: 0\r\n\r\n"})
		server := s.serve(t, busy)
		g := s.loggedIn(t, server, Setup{Timeout: longTimeout, Now: now.Now})
		if a := g.Submit(t.Context(), s.Submission); a.RetryAfter != row.want || a.Code != "http:429" {
			t.Errorf("Retry-After %q: %v, code %s; want %v, http:429", row.header, a.RetryAfter, a.Code, row.want)
		}
		g = s.New(t, Setup{BaseURL: Serve(t, busy).URL, Timeout: longTimeout, Now: now.Now})
		var failure *clients.Error
		if err := g.Authenticate(t.Context()); !errors.As(err, &failure) || failure.RetryAfter != row.want {
			t.Errorf("login, Retry-After %q: %v, %+v; want %v", row.header, err, failure, row.want)
		}
	}
}

func (s Subject) connectionReuse(t *testing.T) {
	server := s.serve(t, always(JSON(200, s.Accepted)))
	g := s.loggedIn(t, server, Setup{Timeout: longTimeout})
	for range 20 {
		if a := g.Submit(t.Context(), s.Submission); a.Code != s.Success {
			t.Fatalf("code %s (%v), want %s", a.Code, a.Err, s.Success)
		}
	}
	if n := server.Connections(); n != 1 {
		t.Errorf("%d connections for a login and 20 submits, want 1", n)
	}
}

func (s Subject) wrappedTransport(t *testing.T) {
	server := s.serve(t, always(Reply{Then: Close}))
	var seen []string
	wrapped := clients.NewTransport()
	g := s.loggedIn(t, server, Setup{Timeout: longTimeout, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		seen = append(seen, r.URL.Path)
		return wrapped.RoundTrip(r)
	})})
	if a := g.Submit(t.Context(), s.Submission); a.Code != "net:unknown" {
		t.Errorf("code %s through a wrapper, want net:unknown", a.Code)
	}
	server.Refuse()
	if a := g.Submit(t.Context(), s.Submission); a.Code != "net:unsent" {
		t.Errorf("code %s through a wrapper with the dial refused, want net:unsent", a.Code)
	}
	if len(seen) != 3 || !strings.HasSuffix(seen[0], s.LoginPath) || !strings.HasSuffix(seen[2], s.SubmitPath) {
		t.Errorf("the wrapper saw %q, want a login and two submits", seen)
	}
}

func (s Subject) oneLogin(t *testing.T) {
	const callers = 50
	var ready sync.WaitGroup
	ready.Add(callers)
	server := Serve(t, func(Received) Reply {
		ready.Wait()
		return JSON(200, s.Login(token, time.Hour))
	})
	g := s.New(t, Setup{BaseURL: server.URL, Timeout: longTimeout})
	var done sync.WaitGroup
	for range callers {
		done.Go(func() {
			ready.Done()
			if err := g.Authenticate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if n := len(server.Received(s.LoginPath)); n != 1 {
		t.Errorf("%d logins for %d callers, want 1", n, callers)
	}
}

func (s Subject) loginOutlivesFirstCaller(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	server := Serve(t, func(Received) Reply {
		close(arrived) // panics if there is a second login
		<-release
		return JSON(200, s.Login(token, time.Hour))
	})
	g := s.New(t, Setup{BaseURL: server.URL, Timeout: longTimeout})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { first <- g.Authenticate(ctx) }()
	<-arrived
	cancel()
	err := <-first
	if err == nil {
		t.Error("the cancelled caller got a token, want an error")
	}
	s.checkError(t, server, err)
	second := make(chan error)
	go func() { second <- g.Authenticate(t.Context()) }()
	close(release)
	if err := <-second; err != nil {
		t.Errorf("the second caller: %v", err)
	}
}

func (s Subject) loginFails(t *testing.T) {
	for name, reply := range map[string]Reply{
		"HTML 500":   JSON(500, s.echo()),
		"HTML 200":   JSON(200, s.echo()),
		"no token":   JSON(200, s.Login("", time.Hour)),
		"empty":      JSON(200, ""),
		"null":       JSON(200, "null"),
		"refused":    JSON(401, `{"status":"error","message":"`+s.echo()+`","data":null}`),
		"error:true": JSON(200, `{"error":true,"message":"`+s.echo()+`"}`),
		"closed":     {Then: Close},
	} {
		t.Run(name, func(t *testing.T) {
			now := &clock{now: start}
			failing := true
			server := Serve(t, func(Received) Reply {
				if failing {
					return reply
				}
				return JSON(200, s.Login(token, time.Hour))
			})
			g := s.New(t, Setup{BaseURL: server.URL, Timeout: longTimeout, Now: now.Now})
			for range 10 {
				err := g.Authenticate(t.Context())
				if err == nil {
					t.Fatal("no error")
				}
				s.checkError(t, server, err)
			}
			if n := len(server.Received(s.LoginPath)); n != 1 {
				t.Errorf("%d failed logins at the same time, want 1", n)
			}
			now.advance(2 * time.Second)
			failing = false
			if err := g.Authenticate(t.Context()); err != nil {
				t.Errorf("after 2 s: %v", err)
			}
		})
	}
}

func (s Subject) dropToken(t *testing.T) {
	server := s.serve(t, always(JSON(200, s.Accepted)))
	g := s.loggedIn(t, server, Setup{Timeout: longTimeout})
	for _, step := range []struct {
		drop   clients.TokenGeneration
		logins int
	}{{0, 1}, {2, 1}, {1, 2}, {1, 2}, {3, 2}, {2, 3}} {
		g.DropToken(step.drop)
		a := g.Submit(t.Context(), s.Submission)
		if n := len(server.Received(s.LoginPath)); n != step.logins || a.Token != clients.TokenGeneration(step.logins) {
			t.Errorf("after dropping %d: %d logins, generation %d, want %d", step.drop, n, a.Token, step.logins)
		}
	}
}

func (s Subject) tokenExpiry(t *testing.T) {
	for _, row := range []struct{ lifetime, used time.Duration }{
		{24 * time.Hour, 24 * time.Hour * 9 / 10},
		{time.Hour, 54 * time.Minute},
		{15 * time.Minute, 10 * time.Minute},
		{time.Minute, 30 * time.Second},
	} {
		now := &clock{now: start}
		server := Serve(t, func(Received) Reply { return JSON(200, s.Login(token, row.lifetime)) })
		g := s.New(t, Setup{BaseURL: server.URL, Timeout: longTimeout, Now: now.Now})
		for _, step := range []struct {
			advance time.Duration
			logins  int
		}{{0, 1}, {row.used - time.Second, 1}, {time.Second, 2}} {
			now.advance(step.advance)
			if err := g.Authenticate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := len(server.Received(s.LoginPath)); n != step.logins {
				t.Errorf("a token of %v: %d logins, want %d", row.lifetime, n, step.logins)
			}
		}
	}
}
