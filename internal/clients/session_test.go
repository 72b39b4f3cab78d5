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

// TestLateCallers has callers who see that there is no token, and take off only
// when another's login has landed.
func TestLateCallers(t *testing.T) {
	for range 300 {
		var logins atomic.Int32
		s := NewSession(newSender(t, "http://gateway.example", mute{}), func(context.Context) (Grant, Answer) {
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

// TestLoginIsPartOfTheCall: what a caller waited for its token counts.
func TestLoginIsPartOfTheCall(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	began := time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)
	now := began
	sender, err := NewSender("paydia", server.URL, nil, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	s := NewSession(sender, func(context.Context) (Grant, Answer) {
		now = now.Add(7 * time.Second)
		return Grant{secret.NewText("t"), time.Hour}, Answer{At: began}
	}, 0, 0)
	a, _ := s.Call(t.Context(), "test", func(Token) Request { return Request{Method: http.MethodPost} })
	if !a.At.Equal(began) || a.Duration != 7*time.Second || a.Token != 1 {
		t.Errorf("at %v for %v with token %d; want %v for 7s with token 1", a.At, a.Duration, a.Token, began)
	}
}

// session is one on a clock of the test's, whose logins answer what the test says.
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
	sender, err := NewSender("paydia", "http://gateway.example", mute{}, func() time.Time { return s.now })
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

// pause asks for a token again and again, and returns how long nobody logs in after
// the failed login that is due now.
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
	if _, again := s.Token(s.t.Context()); !errors.Is(again, err) || s.logins != logins+1 {
		s.t.Fatalf("%v, want the same error and no other login", again)
	}
	s.now = failure.NextTry
	return pause
}

// TestLoginPause: how long a failed login stands for all who ask: refused credentials
// do not become right by themselves, and the end of an outage is to be noticed.
func TestLoginPause(t *testing.T) {
	sequence := func(most time.Duration, n int) (want []time.Duration) {
		for i := range n {
			want = append(want, min(time.Second<<i, most))
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
		// A login that succeeds ends it: the next failure is a first one.
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

// TestRefusalsAndOutages: a login that is refused after a long outage is the first
// one refused.
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

// TestTokensRefused: a gateway that gives tokens and takes none of them is logged in to
// later and later, too; one that takes them now and then, at once.
func TestTokensRefused(t *testing.T) {
	s := newSession(t)
	var pauses []time.Duration
	for range 12 {
		token, err := s.Token(t.Context())
		if failure, ok := errors.AsType[*Error](err); ok {
			if failure.HTTPStatus/100 == 5 || failure.Code != "http:401" {
				t.Errorf("%v counts against the gateway", err)
			}
			pauses = append(pauses, failure.NextTry.Sub(s.now).Truncate(time.Second))
			s.now = failure.NextTry
			if token, err = s.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s.Drop(token.Generation)
		s.Drop(token.Generation) // whoever else used it
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
		s.Worked(token.Generation)
		s.Worked(token.Generation - 1)
		s.Drop(token.Generation)
	}
}

// TestRenew: a token that nothing is known against is replaced at once, any number
// of times.
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

// jwt is a token with these claims, and no valid signature.
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
		{"for ever", "opaque", "1e300", maxLifetime},
		{"the answer before the token", jwt(`{"iat":1724122678,"exp":1724209078}`), "900", 15 * time.Minute},
		{"the token's own", jwt(`{"iat":1724122678,"exp":1724209078}`), "", 24 * time.Hour},
		{"our clock plays no part", jwt(`{"iat":5,"exp":65}`), "", time.Minute},
		{"unless it must", jwt(`{"exp":1724122738}`), "", time.Minute},
		{"over already", jwt(`{"exp":1}`), "", 0},
		{"its own, in quotes", jwt(`{"iat":"5.0","exp":"6.5e1"}`), "", time.Minute},
		{"beyond all bounds", jwt(`{"iat":1e400,"exp":1e400}`), "1e400", 0},
		{"no number but Go's", "opaque", "Infinity", 0},
		{"not told", "opaque", "", 0},
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

func TestBelief(t *testing.T) {
	for _, row := range []struct{ lifetime, margin, want time.Duration }{
		{24 * time.Hour, 300 * time.Second, 24 * time.Hour * 9 / 10}, // 90 %
		{time.Hour, 300 * time.Second, 54 * time.Minute},
		{15 * time.Minute, 300 * time.Second, 10 * time.Minute}, // less 300 s
		{10 * time.Minute, 300 * time.Second, 5 * time.Minute},
		{time.Minute, 300 * time.Second, 30 * time.Second}, // never less than half
		{0, 300 * time.Second, 10 * time.Minute},           // not told: 900 s
		{time.Hour, 20 * time.Minute, 40 * time.Minute},
	} {
		if got := belief(row.lifetime, row.margin); got != row.want {
			t.Errorf("belief(%v, %v) = %v, want %v", row.lifetime, row.margin, got, row.want)
		}
	}
}
