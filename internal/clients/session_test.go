package clients

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"terbayar/internal/secret"
)

// TestConcurrentCallersShareLogin includes callers that find no token and start a login just
// after another caller's login has ended.
func TestConcurrentCallersShareLogin(t *testing.T) {
	for range 300 {
		var logins atomic.Int32
		s := NewSession(newSender(t, "http://gateway.example", untraced{}), func(context.Context) (Grant, Answer) {
			logins.Add(1)
			return Grant{secret.NewText("t"), time.Hour}, Answer{At: time.Now()}
		}, 0, 0)
		var callers sync.WaitGroup
		start := make(chan struct{})
		for range 20 {
			callers.Go(func() {
				<-start
				if token, err := s.Token(t.Context()); err != nil || token.Generation != 1 {
					t.Errorf("generation %d (%v), want 1", token.Generation, err)
				}
			})
		}
		close(start)
		callers.Wait()
		if logins.Load() != 1 {
			t.Fatalf("%d logins, want 1", logins.Load())
		}
	}
}

// TestLoginIsPartOfCall: the time of the login counts toward the time of the call.
func TestLoginIsPartOfCall(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	start := time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)
	now := start
	sender, err := NewSender("paydia", server.URL, nil, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	s := NewSession(sender, func(context.Context) (Grant, Answer) {
		now = now.Add(7 * time.Second)
		return Grant{secret.NewText("t"), time.Hour}, Answer{At: start}
	}, 0, 0)
	a, _ := s.Call(t.Context(), "test", func(Token) Request { return Request{Method: http.MethodPost} })
	if !a.At.Equal(start) || a.Duration != 7*time.Second || a.Token != 1 {
		t.Errorf("at %v for %v with token %d; want %v for 7s with token 1", a.At, a.Duration, a.Token, start)
	}
}

// session is a Session with a clock and login answers that the test sets.
type session struct {
	*Session
	t      *testing.T
	now    time.Time
	answer Answer
	logins int
}

func newSession(t *testing.T) *session {
	t.Helper()
	s := &session{t: t, now: time.Now()}
	sender, err := NewSender("paydia", "http://gateway.example", untraced{}, func() time.Time { return s.now })
	if err != nil {
		t.Fatal(err)
	}
	s.Session = NewSession(sender, func(context.Context) (Grant, Answer) {
		s.logins++
		a := s.answer
		a.At = s.now
		if a.Code != "" {
			a.Err = &Error{Code: a.Code}
		}
		return Grant{secret.NewText("t"), time.Hour}, a
	}, 0, 0)
	return s
}

// pause makes a login that fails, and returns the pause before the next login. It checks that
// there is no login before the end of the pause.
func (s *session) pause() time.Duration {
	s.t.Helper()
	logins := s.logins
	_, err := s.Token(s.t.Context())
	failure, ok := errors.AsType[*Error](err)
	if !ok || s.logins != logins+1 {
		s.t.Fatalf("%d logins (%v), want one", s.logins-logins, err)
	}
	pause := failure.NextTry.Sub(s.now)
	s.now = failure.NextTry.Add(-1)
	if _, second := s.Token(s.t.Context()); !errors.Is(second, err) || s.logins != logins+1 {
		s.t.Fatalf("%v, want the same error and no other login", second)
	}
	s.now = failure.NextTry
	return pause
}

// TestLoginPause: the pause after a failed login grows, to a long maximum if the credentials
// were refused and a short one after other failures.
func TestLoginPause(t *testing.T) {
	sequence := func(longest time.Duration, n int) (want []time.Duration) {
		for i := range n {
			want = append(want, min(time.Second<<i, longest))
		}
		return want
	}
	for _, row := range []struct {
		answer Answer
		want   []time.Duration
	}{
		{Answer{Code: "http:401", HTTPStatus: 401}, sequence(5*time.Minute, 14)},
		{Answer{Code: "http:422", HTTPStatus: 422}, sequence(5*time.Minute, 14)},
		{Answer{Code: "error:true", HTTPStatus: 200}, sequence(5*time.Minute, 14)},
		{Answer{Code: "4017300", HTTPStatus: 401}, sequence(5*time.Minute, 14)},
		{Answer{Code: "http:503", HTTPStatus: 503}, sequence(15*time.Second, 14)},
		{Answer{Code: "http:429", HTTPStatus: 429}, sequence(15*time.Second, 14)},
		{Answer{Code: "net:unsent"}, sequence(15*time.Second, 14)},
		{Answer{Code: "net:unknown"}, sequence(15*time.Second, 14)},
		{Answer{Code: "body:unreadable", HTTPStatus: 200}, sequence(15*time.Second, 14)},
		{Answer{Code: "http:429", HTTPStatus: 429, RetryAfter: time.Hour}, []time.Duration{time.Hour, time.Hour}},
		{Answer{Code: "http:503", HTTPStatus: 503, RetryAfter: 20 * time.Second}, []time.Duration{20 * time.Second}},
	} {
		s := newSession(t)
		s.answer = row.answer
		for i, want := range row.want {
			if got := s.pause(); got < want || got > want+want/5 {
				t.Errorf("%s %d, failure %d: %s, want %s and up to a fifth more", row.answer.Code, row.answer.HTTPStatus, i+1, got, want)
			}
		}
		// After a successful login the pauses start again with the shortest.
		s.answer = Answer{}
		if _, err := s.Token(t.Context()); err != nil {
			t.Error(err)
		}
		s.Renew(1)
		s.answer = Answer{Code: "http:401", HTTPStatus: 401}
		if got := s.pause(); got > 2*time.Second {
			t.Errorf("after a success: %s", got)
		}
	}
}

// TestRefusalsAndOutages: the pause after refused credentials does not depend on failures of
// another kind before.
func TestRefusalsAndOutages(t *testing.T) {
	s := newSession(t)
	for range 10 {
		s.answer = Answer{Code: "net:unsent"}
		s.pause()
	}
	s.answer = Answer{Code: "http:401", HTTPStatus: 401}
	if got := s.pause(); got > 2*time.Second {
		t.Error(got)
	}
}

// TestTokensRefused: if the gateway refuses the tokens it has issued, the pauses between logins
// grow. If it accepts a token in between, the next login is allowed at once.
func TestTokensRefused(t *testing.T) {
	s := newSession(t)
	var pauses []time.Duration
	for range 12 {
		token, err := s.Token(t.Context())
		if failure, ok := errors.AsType[*Error](err); ok {
			if failure.HTTPStatus/100 == 5 || failure.Code != "http:401" {
				t.Errorf("%v, want http:401: the gateway is not failing", err)
			}
			pauses = append(pauses, failure.NextTry.Sub(s.now).Truncate(time.Second))
			s.now = failure.NextTry
			if token, err = s.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s.Drop(token.Generation)
		s.Drop(token.Generation) // another caller that used it
	}
	if len(pauses) != 10 || pauses[0] != time.Second || pauses[3] < 8*time.Second || pauses[9] < time.Minute || pauses[9] > 72*time.Second {
		t.Errorf("pauses: %v", pauses)
	}
	s.now = s.now.Add(time.Hour)
	for range 10 {
		token, err := s.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.TokenAccepted(token.Generation)
		s.TokenAccepted(token.Generation - 1)
		s.Drop(token.Generation)
	}
}

// TestRenew: a renewed token is replaced at once, any number of times.
func TestRenew(t *testing.T) {
	s := newSession(t)
	for want := TokenGeneration(1); want < 10; want++ {
		token, err := s.Token(t.Context())
		if err != nil || token.Generation != want {
			t.Fatal(token.Generation, err)
		}
		s.Renew(want - 1)
		s.Renew(want)
	}
}

// jwt returns a token with these claims, without a valid signature.
func jwt(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
}

func TestGrantLifetime(t *testing.T) {
	now := time.Unix(1724122678, 0)
	for _, row := range []struct {
		name             string
		token, expiresIn string
		want             time.Duration
	}{
		{"a number, or a string of one", "opaque", "3600", time.Hour},
		{"a fraction", "opaque", "0.5", 500 * time.Millisecond},
		{"longer than the maximum", "opaque", "1e300", maxLifetime},
		{"the answer takes precedence over the token", jwt(`{"iat":1724122678,"exp":1724209078}`), "900", 15 * time.Minute},
		{"the token's own", jwt(`{"iat":1724122678,"exp":1724209078}`), "", 24 * time.Hour},
		{"our clock does not matter", jwt(`{"iat":5,"exp":65}`), "", time.Minute},
		{"our clock, without iat", jwt(`{"exp":1724122738}`), "", time.Minute},
		{"expired", jwt(`{"exp":1}`), "", 0},
		{"claims as strings", jwt(`{"iat":"5.0","exp":"6.5e1"}`), "", time.Minute},
		{"numbers too large", jwt(`{"iat":1e400,"exp":1e400}`), "1e400", 0},
		{"Infinity", "opaque", "Infinity", 0},
		{"missing", "opaque", "", 0},
		{"nonsense", "a.b.c", "soon", 0},
		{"not a number", "opaque", "NaN", 0},
		{"negative", "opaque", "-1", 0},
		{"no claims", jwt(`[]`), "0", 0},
	} {
		if got := NewGrant(Text(row.token), ParseNumber(row.expiresIn), now).Lifetime; got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

func TestUsableTime(t *testing.T) {
	for _, row := range []struct{ lifetime, margin, want time.Duration }{
		{24 * time.Hour, 300 * time.Second, 24 * time.Hour * 9 / 10}, // 90 %
		{time.Hour, 300 * time.Second, 54 * time.Minute},
		{15 * time.Minute, 300 * time.Second, 10 * time.Minute}, // minus 300 s
		{10 * time.Minute, 300 * time.Second, 5 * time.Minute},
		{time.Minute, 300 * time.Second, 30 * time.Second}, // never less than half
		{0, 300 * time.Second, 10 * time.Minute},           // unknown: 900 s
		{time.Hour, 20 * time.Minute, 40 * time.Minute},
	} {
		if got := usableTime(row.lifetime, row.margin); got != row.want {
			t.Errorf("usableTime(%v, %v) = %v, want %v", row.lifetime, row.margin, got, row.want)
		}
	}
}
