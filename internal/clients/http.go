package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/secret"
)

// DefaultTimeout bounds one operation of a client, the login it may need
// included, where no other time-out is set. An integrator of AM measured 5 to 7
// seconds for a create-transaction and settled on 15 (gateways.md 1.4).
const DefaultTimeout = 15 * time.Second

const (
	maxAnswer     = 1 << 20 // bytes of an answer about one payment; they are a few kilobytes
	maxRetryAfter = time.Hour
)

// NewTransport is the tuned connection pool of one gateway client. What wraps
// it, to measure or to trace, must pass the request's context on.
func NewTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	// HTTP/2 re-sends requests by rules of its own, and requests share its
	// connections, so their bytes could not be told apart.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &countedConn{Conn: conn}, nil
		},
		Protocols:           protocols,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 64,
		// Many servers close an idle connection after 5 seconds. A payment sent at
		// that very moment has an unknown outcome, so it is closed here first.
		IdleConnTimeout:        4 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// Sender makes the requests of one gateway client: each once, in bounded time
// and space, following no redirect, and knowing afterwards whether a byte of it
// had left.
type Sender struct {
	gateway payment.Gateway
	base    *url.URL
	// transport is used without an http.Client around it: that would follow
	// redirects, and a redirected request reaches an address nobody signed for.
	transport http.RoundTripper
	now       func() time.Time
	secrets   []string // see Hide
	names     []string
}

// NewSender makes the sender of a gateway's requests. A nil transport is
// NewTransport, a nil now the clock. The error says what is wrong with the base
// URL and does not repeat it.
func NewSender(g payment.Gateway, baseURL string, transport http.RoundTripper, now func() time.Time) (*Sender, error) {
	base, err := url.Parse(strings.TrimRight(baseURL, "/"))
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" ||
		base.User != nil || base.RawQuery != "" || base.ForceQuery || base.Fragment != "" {
		return nil, errors.New("is not an http or https URL, without user, query and fragment")
	}
	if transport == nil {
		transport = NewTransport()
	}
	if now == nil {
		now = time.Now
	}
	return &Sender{gateway: g, base: base, transport: transport, now: now}, nil
}

// Redact names what must never be shown of the gateway's words: secrets wherever
// they stand, names (of a user, say) where they stand as words. It is to be called
// before the first request.
func (s *Sender) Redact(secrets []secret.Text, names ...string) {
	for _, each := range secrets {
		s.secrets = append(s.secrets, each.Reveal())
	}
	s.names = append(s.names, names...)
}

// Request is one request to a gateway.
type Request struct {
	Method    string
	Path      string // below the base URL, from its slash on
	Query     url.Values
	Header    http.Header
	Body      []byte // sent as it is: signatures cover these very bytes
	MaxAnswer int    // bytes; 0 is 1 MiB
	// MayLeave is asked right before the first byte leaves; with an error none does.
	BeforeSend func() error
	// Hide is what is the customer's, and so must not be shown of the gateway's words.
	Redact []string
}

// Path is the path of a request as it stands on the wire, the base URL's part
// included.
func (s *Sender) Path(path string) string { return s.base.EscapedPath() + path }

// Now is the time by the clock that the client was given.
func (s *Sender) Now() time.Time { return s.now() }

// Send makes one request; operation names it in errors. Where no whole answer
// came, the code says so and the body is nil. Otherwise the code is the HTTP
// status's, and what the body adds to it is for the caller to read. The context
// must carry the time-out.
func (s *Sender) Send(ctx context.Context, operation string, r Request) (Answer, []byte) {
	answer := Answer{At: s.now()}
	body, code, detail := s.exchange(ctx, r, &answer)
	answer.Message = s.hide(r).message(body)
	if code == retrypolicy.HTTPCode(answer.HTTPStatus) && saysVoidToken(answer) {
		code = retrypolicy.HTTPCode(http.StatusUnauthorized)
	}
	answer.Duration = s.now().Sub(answer.At)
	s.Conclude(&answer, operation, code, detail)
	return answer, body
}

// saysVoidToken reports whether an answer says that our token is void under a
// status that leaves it open what was refused, as Laravel's 419. Under the others
// the retry policy looks at the words itself.
func saysVoidToken(a Answer) bool {
	switch a.HTTPStatus {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity,
		http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests: // the last three: nothing to do with tokens
		return false
	}
	return a.HTTPStatus/100 == 4 && retrypolicy.InvalidToken(a.Message)
}

// loginPage reports whether a redirect leads to a page to log in at: that is what
// web frameworks answer to whom they do not know.
func loginPage(location string) bool {
	target, err := url.Parse(location)
	if err != nil {
		return false
	}
	last := strings.ToLower(target.Path[strings.LastIndexByte(target.Path, '/')+1:])
	return slices.Contains([]string{"login", "signin", "sign-in", "masuk"}, last)
}

// Conclude sets what an answer comes to. The detail, in our own words, goes into
// the error; without one there is none.
func (s *Sender) Conclude(a *Answer, operation, code, detail string) {
	a.Code, a.Err = code, nil
	if detail != "" {
		a.Err = &Error{Gateway: s.gateway, Operation: operation, Code: code, HTTPStatus: a.HTTPStatus, RetryAfter: a.RetryAfter, Detail: detail, Message: a.Message}
	}
}

// Unsent is the answer of a request that could not even be begun.
func (s *Sender) Unsent(operation, detail string) Answer {
	a := Answer{At: s.now()}
	s.Conclude(&a, operation, retrypolicy.CodeUnsent, detail)
	return a
}

// Inconclusive is for a 2xx answer that says neither success nor failure. It may
// still say, in words, that our token is void: then it is as good as a 401.
// Otherwise nobody can go by it.
func (s *Sender) Inconclusive(a *Answer, operation, detail string) {
	if retrypolicy.InvalidToken(a.Message) {
		s.Conclude(a, operation, retrypolicy.HTTPCode(http.StatusUnauthorized), detail)
		return
	}
	s.Unreadable(a, operation, detail)
}

// Unreadable turns a 2xx answer into one that nobody can go by.
func (s *Sender) Unreadable(a *Answer, operation, detail string) {
	s.Conclude(a, operation, retrypolicy.CodeUnreadable, detail)
}

func (s *Sender) exchange(ctx context.Context, r Request, answer *Answer) (body []byte, code, detail string) {
	if ctx.Err() != nil {
		return nil, retrypolicy.CodeUnsent, "before the request: " + reason(ctx, ctx.Err())
	}
	w := &wire{mayLeave: r.BeforeSend}
	req, err := s.request(w.watch(ctx), r)
	if err != nil {
		return nil, retrypolicy.CodeUnsent, err.Error()
	}
	res, err := s.transport.RoundTrip(req)
	if err != nil {
		return nil, w.code(), w.at().String() + ": " + reason(ctx, err)
	}
	defer res.Body.Close()
	answer.HTTPStatus = res.StatusCode
	answer.RetryAfter = retryAfter(res.Header.Get("Retry-After"), s.now())
	if res.StatusCode == http.StatusSwitchingProtocols {
		// The connection is ours then, and reading from it would heed no time-out.
		return nil, retrypolicy.HTTPCode(res.StatusCode), "another protocol than HTTP"
	}
	if res.StatusCode/100 == 3 && loginPage(res.Header.Get("Location")) {
		return nil, retrypolicy.HTTPCode(http.StatusUnauthorized), "a redirect to a page to log in at"
	}

	limit := r.MaxAnswer
	if limit == 0 {
		limit = maxAnswer
	}
	body, err = io.ReadAll(io.LimitReader(res.Body, int64(limit)+1)) // to its end, so that the connection can be used again
	switch {
	case err != nil:
		return nil, retrypolicy.CodeUnknown, "read the answer: " + reason(ctx, err)
	case len(body) > limit && res.StatusCode/100 == 2:
		return nil, retrypolicy.CodeUnreadable, fmt.Sprintf("the answer is longer than %d bytes", limit)
	default:
		return body, retrypolicy.HTTPCode(res.StatusCode), ""
	}
}

var errNotWritable = errors.New("the request has characters that cannot stand in a header or an address")

func (s *Sender) request(ctx context.Context, r Request) (*http.Request, error) {
	target := s.base.String() + r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, target, bytes.NewReader(r.Body))
	if err != nil {
		return nil, errNotWritable
	}
	// With GetBody the Transport would send a POST again on another connection
	// when it believes that nothing had left on the first. That is for the retry
	// policy to decide.
	req.GetBody = nil
	for name, values := range r.Header {
		// The Transport checks too, but does not say that it had not begun.
		if strings.ContainsFunc(strings.Join(values, ""), unicode.IsControl) {
			return nil, errNotWritable
		}
		req.Header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
	}
	return req, nil
}

// retryAfter reads a Retry-After header, in seconds or as a date (RFC 9110,
// 10.2.3). What is in the past, or no time at all, is 0; an hour is the most.
func retryAfter(value string, now time.Time) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 63); err == nil {
		wait = time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if date, err := http.ParseTime(value); err == nil {
		wait = date.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
