package clients

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"terbayar/internal/retrypolicy"
	"terbayar/internal/secret"
)

// DefaultTokenMargin is how long before its end an access token is no longer
// believed in. A tenth of its life is the least, half of it the most.
const DefaultTokenMargin = 300 * time.Second

const (
	// assumedLifetime is that of a token of which nobody says how long it lives:
	// BI's usual one (gateways.md 2.2).
	assumedLifetime = 900 * time.Second
	maxLifetime     = 30 * 24 * time.Hour
	// A failed login stands for all who ask until the next one may be tried: a
	// second, then twice as long each time. Refused credentials do not become right
	// by themselves, and accounts get locked; an outage's end is to be noticed. A
	// Retry-After may stretch either.
	firstLoginPause   = time.Second
	maxRefusedPause   = 5 * time.Minute
	maxUnheardPause   = 15 * time.Second
	maxTokenPause     = time.Minute // the login works, its token does not: nothing is locked
	loginPauseStretch = 5           // up to a fifth longer, so that replicas do not keep in step
)

// Token is an access token in use.
type Token struct {
	Text       secret.Text
	Generation TokenGeneration
}

// Grant is what a gateway answers to a login: the token, and how long it lives
// (0: not told).
type Grant struct {
	Text     secret.Text
	Lifetime time.Duration
}

// NewGrant reads the lifetime of a token: from the answer's expires_in in
// seconds, else from the token itself where it is a JWT. AM's pages say 24 hours
// where expires_in and the JWT say one: the token is right.
func NewGrant(token Text, expiresIn Number, now time.Time) Grant {
	g := Grant{Text: secret.NewText(string(token))}
	seconds := expiresIn.Float()
	if seconds <= 0 {
		seconds = jwtLifetime(string(token), now)
	}
	g.Lifetime = time.Duration(math.Min(seconds, maxLifetime.Seconds()) * float64(time.Second))
	return g
}

// jwtLifetime is how many seconds a JWT lives by its own claims, 0 where it says
// nothing. Where it has an iat our clock plays no part.
func jwtLifetime(token string, now time.Time) float64 {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return 0
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return 0
	}
	var times struct {
		Exp Number `json:"exp"`
		Iat Number `json:"iat"`
	}
	if json.Unmarshal(claims, &times) != nil || times.Exp.Float() == 0 {
		return 0
	}
	from := times.Iat.Float()
	if from == 0 {
		from = float64(now.Unix())
	}
	return max(times.Exp.Float()-from, 0)
}

// Session keeps a gateway's access token and makes requests with it: one login
// at a time however many ask, a token believed in for its lifetime less a
// margin, and tokens numbered, so that only the one in use can be dropped.
type Session struct {
	sender  *Sender
	login   func(context.Context) (Grant, Answer)
	timeout time.Duration
	margin  time.Duration

	flight singleflight.Group

	mu       sync.Mutex
	token    Token // Text is empty when there is none
	believed time.Time
	failure  error // of the latest login, or of its token
	nextTry  time.Time
	refused  int // logins in a row that were refused
	unheard  int // logins in a row that failed otherwise
	rejected int // access tokens in a row that were refused, none of which ever worked
}

// NewSession makes a session without a token. login asks the gateway for one; an
// answer of its with an Err is a failure. A timeout of 0 is DefaultTimeout, a
// margin of 0 DefaultTokenMargin.
func NewSession(s *Sender, login func(context.Context) (Grant, Answer), timeout, margin time.Duration) *Session {
	return &Session{
		sender: s, login: login,
		timeout: cmp.Or(timeout, DefaultTimeout),
		margin:  cmp.Or(margin, DefaultTokenMargin),
	}
}

// Call makes one request with the access token. The login that it may need is
// part of it, in the time-out and in the answer's times. Without a token nothing
// is sent.
func (s *Session) Call(ctx context.Context, operation string, request func(Token) Request) (Answer, []byte) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	began := s.sender.Now()
	var (
		answer Answer
		body   []byte
	)
	token, err := s.Token(ctx)
	if err != nil {
		answer = s.sender.Unsent(operation, "no access token: "+err.Error())
	} else {
		answer, body = s.sender.Send(ctx, operation, request(token))
	}
	answer.Token, answer.At, answer.Duration = token.Generation, began, s.sender.Now().Sub(began)
	return answer, body
}

// Token is the access token in use, from a login if need be. The error is a
// *Error; it may be that of another caller's login.
func (s *Session) Token(ctx context.Context) (Token, error) {
	if token, known, err := s.kept(); known {
		return token, err
	}
	// The login serves all who wait: it must not end with the first of them.
	shared := context.WithoutCancel(ctx)
	flight := s.flight.DoChan("", func() (any, error) {
		if token, known, err := s.kept(); known { // another flight landed between the look and the take-off
			return token, err
		}
		ctx, cancel := context.WithTimeout(shared, s.timeout)
		defer cancel()
		return s.keep(s.login(ctx))
	})
	select {
	case landed := <-flight:
		token, _ := landed.Val.(Token)
		return token, landed.Err
	case <-ctx.Done():
		return Token{}, s.sender.Unsent("login", "wait for the token: "+reason(ctx, ctx.Err())).Err
	}
}

// Drop forgets the token of that generation, which the gateway has refused, if it
// is still the one in use. The next login is made at once; where the tokens of new
// logins are refused, too, later and later.
func (s *Session) Drop(g TokenGeneration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g != s.token.Generation || s.token.Text.Empty() {
		return
	}
	s.token.Text = secret.Text{}
	s.rejected++
	if s.rejected == 1 { // it may well have expired
		return
	}
	wait := loginPause(s.rejected-1, maxTokenPause)
	s.nextTry = s.sender.Now().Add(wait)
	s.failure = &Error{
		Gateway: s.sender.gateway, Operation: "login", Code: retrypolicy.HTTPCode(http.StatusUnauthorized), NextTry: s.nextTry,
		Detail: fmt.Sprintf("the access tokens of the last %d logins were refused", s.rejected),
	}
}

// Renew forgets the token of that generation if it is still the one in use. Nothing
// is known against it.
func (s *Session) Renew(g TokenGeneration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g == s.token.Generation {
		s.token.Text = secret.Text{}
	}
}

// Worked says that the gateway has accepted the token of that generation.
func (s *Session) Worked(g TokenGeneration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g == s.token.Generation {
		s.rejected = 0
	}
}

// loginPause is how long nobody logs in after so many failures in a row, at the
// most.
func loginPause(failures int, most time.Duration) time.Duration {
	pause := most
	if failures <= 10 { // beyond that the most is long reached
		pause = min(firstLoginPause<<(failures-1), most)
	}
	return pause + rand.N(pause/loginPauseStretch) //nolint:gosec // G404: it spreads load and keeps no secret
}

// refusal reports whether a failed login says that the credentials are refused. A
// gateway that is busy, in trouble or not there says nothing about them.
func refusal(a Answer) bool {
	switch {
	case a.HTTPStatus == http.StatusTooManyRequests || a.HTTPStatus == http.StatusRequestTimeout:
		return false
	default:
		return a.HTTPStatus/100 == 4 || a.Code == retrypolicy.CodeRefused
	}
}

// kept is the token, or the failure, that still stands.
func (s *Session) kept() (token Token, known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.sender.Now()
	switch {
	case !s.token.Text.Empty() && now.Before(s.believed):
		return s.token, true, nil
	case now.Before(s.nextTry):
		return Token{}, true, s.failure
	default:
		return Token{}, false, nil
	}
}

func (s *Session) keep(g Grant, a Answer) (Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.Err != nil {
		var pause time.Duration
		if refusal(a) {
			s.refused, s.unheard = s.refused+1, 0
			pause = loginPause(s.refused, maxRefusedPause)
		} else {
			s.refused, s.unheard = 0, s.unheard+1
			pause = loginPause(s.unheard, maxUnheardPause)
		}
		s.nextTry, s.failure = s.sender.Now().Add(max(pause, a.RetryAfter)), a.Err
		if failure, ok := errors.AsType[*Error](a.Err); ok {
			failure.NextTry = s.nextTry
		}
		return Token{}, a.Err
	}
	s.refused, s.unheard = 0, 0
	s.token = Token{g.Text, s.token.Generation + 1}
	// Its life began at the gateway after the request had: counting from the
	// request is on the safe side.
	s.believed = a.At.Add(belief(g.Lifetime, s.margin))
	return s.token, nil
}

// belief is how long a token of some lifetime is used.
func belief(lifetime, margin time.Duration) time.Duration {
	if lifetime <= 0 {
		lifetime = assumedLifetime
	}
	return lifetime - max(lifetime/10, min(margin, lifetime/2))
}
