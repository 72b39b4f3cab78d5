package clients

import (
	"context"
	"encoding/base64"
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

// TestLoginPause: how long a failed login stands for all who ask.
func TestLoginPause(t *testing.T) {
	for _, row := range []struct{ retryAfter, pause time.Duration }{
		{0, time.Second},
		{20 * time.Second, 20 * time.Second},
		{time.Hour, time.Minute},
	} {
		var logins int
		now := time.Now()
		sender, err := NewSender("paydia", "http://gateway.example", mute{}, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		s := NewSession(sender, func(context.Context) (Grant, Answer) {
			logins++
			return Grant{}, Answer{RetryAfter: row.retryAfter, Err: &Error{}}
		}, 0, 0)
		for _, step := range []struct {
			wait   time.Duration
			logins int
		}{{0, 1}, {row.pause - 1, 1}, {1, 2}} {
			now = now.Add(step.wait)
			if _, err := s.Token(t.Context()); err == nil || logins != step.logins {
				t.Errorf("Retry-After %v: %d logins (%v), want %d", row.retryAfter, logins, err, step.logins)
			}
		}
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
