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

// DefaultTokenMargin is how long before its expiry an access token is no longer used. The
// margin is at least a tenth and at most half of the token's lifetime.
const DefaultTokenMargin = 300 * time.Second

const (
	// assumedLifetime is the lifetime of a token if neither the answer nor the token
	// contains it: the value usual at Bank Indonesia (docs/gateways.md 2.2).
	assumedLifetime = 900 * time.Second
	maxLifetime     = 30 * 24 * time.Hour
	// After a failed login all callers get its error, until the next login is allowed:
	// after one second, then twice as long after every failure, up to a maximum. The
	// maximum is long if the credentials were refused, because further logins may lock
	// the account. It is short otherwise, so that the end of an outage is noticed. A
	// Retry-After can only lengthen the pause.
	firstLoginPause = time.Second
	maxRefusedPause = 5 * time.Minute
	maxFailedPause  = 15 * time.Second
	maxTokenPause   = time.Minute // logins succeed, but their tokens are refused
	loginPauseParts = 5           // jitter: up to a fifth longer, so that replicas do not log in together
)

// Token is an access token in use.
type Token struct {
	Text       secret.Text
	Generation TokenGeneration
}

// Grant is the result of a successful login: the token and its lifetime (0 if unknown).
type Grant struct {
	Text     secret.Text
	Lifetime time.Duration
}

// NewGrant returns a token with its lifetime: expires_in of the answer, in seconds, or the
// lifetime in the token itself if it is a JWT. (AM's pages say 24 hours, but both expires_in
// and its JWTs say one hour.)
func NewGrant(token Text, expiresIn Number, now time.Time) Grant {
	g := Grant{Text: secret.NewText(string(token))}
	seconds := expiresIn.Float()
	if seconds <= 0 {
		seconds = jwtLifetime(string(token), now)
	}
	g.Lifetime = time.Duration(math.Min(seconds, maxLifetime.Seconds()) * float64(time.Second))
	return g
}

// jwtLifetime returns the lifetime of a JWT in seconds by its claims; 0 if it has none. Our
// clock matters only if the claim iat is missing.
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

// Session holds the access token of a gateway and makes requests with it. Concurrent callers
// share one login. A token is used for its lifetime less a margin. Tokens are numbered, so
// that dropping an old token does not drop its successor.
type Session struct {
	sender  *Sender
	login   func(context.Context) (Grant, Answer)
	timeout time.Duration
	margin  time.Duration

	logins singleflight.Group

	mu       sync.Mutex
	token    Token     // Text is empty if there is none
	expires  time.Time // when the token is no longer used
	failure  error     // of the latest login, or of its token
	nextTry  time.Time // no login before
	refused  int       // consecutive logins whose credentials were refused
	failed   int       // consecutive logins that failed otherwise
	rejected int       // consecutive access tokens that were refused without ever being accepted
}

// NewSession returns a session without a token. login requests a token from the gateway; it
// has failed if its Answer has an Err. A timeout of 0 means DefaultTimeout, a margin of 0
// DefaultTokenMargin.
func NewSession(s *Sender, login func(context.Context) (Grant, Answer), timeout, margin time.Duration) *Session {
	return &Session{
		sender: s, login: login,
		timeout: cmp.Or(timeout, DefaultTimeout),
		margin:  cmp.Or(margin, DefaultTokenMargin),
	}
}

// Call sends one request with the access token. If it has to log in first, the login counts
// toward the timeout and the times in the answer. Without a token nothing is sent.
func (s *Session) Call(ctx context.Context, operation string, request func(Token) Request) (Answer, []byte) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	start := s.sender.Now()
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
	answer.Token, answer.At, answer.Duration = token.Generation, start, s.sender.Now().Sub(start)
	return answer, body
}

// Token returns the access token in use, and logs in if necessary. The error is a *Error,
// perhaps of another caller's login.
func (s *Session) Token(ctx context.Context) (Token, error) {
	if token, known, err := s.current(); known {
		return token, err
	}
	// All waiting callers share the login: it must not end with the first one's context.
	shared := context.WithoutCancel(ctx)
	login := s.logins.DoChan("", func() (any, error) {
		if token, known, err := s.current(); known { // another login ended since the check above
			return token, err
		}
		ctx, cancel := context.WithTimeout(shared, s.timeout)
		defer cancel()
		return s.store(s.login(ctx))
	})
	select {
	case result := <-login:
		token, _ := result.Val.(Token)
		return token, result.Err
	case <-ctx.Done():
		return Token{}, s.sender.Unsent("login", "wait for the token: "+reason(ctx, ctx.Err())).Err
	}
}

// Drop drops the token of that generation, which the gateway has refused, if it is still in
// use. The next login is allowed at once. If the tokens of new logins are refused too, the
// pause before the next login grows.
func (s *Session) Drop(g TokenGeneration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g != s.token.Generation || s.token.Text.Empty() {
		return
	}
	s.token.Text = secret.Text{}
	s.rejected++
	if s.rejected == 1 { // it may have expired
		return
	}
	wait := loginPause(s.rejected-1, maxTokenPause)
	s.nextTry = s.sender.Now().Add(wait)
	s.failure = &Error{
		Gateway: s.sender.gateway, Operation: "login", Code: retrypolicy.HTTPCode(http.StatusUnauthorized), NextTry: s.nextTry,
		Detail: fmt.Sprintf("the access tokens of the last %d logins were refused", s.rejected),
	}
}

// Renew drops the token of that generation if it is still in use. The gateway has not refused
// it.
func (s *Session) Renew(g TokenGeneration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g == s.token.Generation {
		s.token.Text = secret.Text{}
	}
}

// TokenAccepted records that the gateway has accepted the token of that generation.
func (s *Session) TokenAccepted(g TokenGeneration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g == s.token.Generation {
		s.rejected = 0
	}
}

// loginPause returns the pause before the next login after this many consecutive failures.
func loginPause(failures int, longest time.Duration) time.Duration {
	pause := longest
	if failures <= 10 { // more failures always give the longest pause
		pause = min(firstLoginPause<<(failures-1), longest)
	}
	return pause + rand.N(pause/loginPauseParts) //nolint:gosec // G404: jitter, not a secret
}

// credentialsRefused reports whether a failed login means that the gateway refused the
// credentials, rather than that it is busy, failing or unreachable.
func credentialsRefused(a Answer) bool {
	switch {
	case a.HTTPStatus == http.StatusTooManyRequests || a.HTTPStatus == http.StatusRequestTimeout:
		return false
	default:
		return a.HTTPStatus/100 == 4 || a.Code == retrypolicy.CodeRefused
	}
}

// current returns the token in use, or the failure of the latest login if no new login is
// allowed yet; known is false if a login is necessary.
func (s *Session) current() (token Token, known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.sender.Now()
	switch {
	case !s.token.Text.Empty() && now.Before(s.expires):
		return s.token, true, nil
	case now.Before(s.nextTry):
		return Token{}, true, s.failure
	default:
		return Token{}, false, nil
	}
}

// store stores the result of a login.
func (s *Session) store(g Grant, a Answer) (Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.Err != nil {
		var pause time.Duration
		if credentialsRefused(a) {
			s.refused, s.failed = s.refused+1, 0
			pause = loginPause(s.refused, maxRefusedPause)
		} else {
			s.refused, s.failed = 0, s.failed+1
			pause = loginPause(s.failed, maxFailedPause)
		}
		s.nextTry, s.failure = s.sender.Now().Add(max(pause, a.RetryAfter)), a.Err
		if failure, ok := errors.AsType[*Error](a.Err); ok {
			failure.NextTry = s.nextTry
		}
		return Token{}, a.Err
	}
	s.refused, s.failed = 0, 0
	s.token = Token{g.Text, s.token.Generation + 1}
	// The gateway issued the token after the request began, so counting from the start of
	// the request is safe.
	s.expires = a.At.Add(usableTime(g.Lifetime, s.margin))
	return s.token, nil
}

// usableTime returns how long a token with this lifetime is used.
func usableTime(lifetime, margin time.Duration) time.Duration {
	if lifetime <= 0 {
		lifetime = assumedLifetime
	}
	return lifetime - max(lifetime/10, min(margin, lifetime/2))
}
