package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
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

// DefaultTimeout is the timeout of one operation of a client, including a login if it needs
// one. An integrator of AM measured 5 to 7 seconds for create-transaction and uses a timeout
// of 15 (docs/gateways.md 1.4).
const DefaultTimeout = 15 * time.Second

const (
	maxAnswer     = 1 << 20 // bytes of an answer about one payment, usually a few kilobytes
	maxRetryAfter = time.Hour
)

// NewTransport returns the connection pool of one gateway client. A wrapper, for metrics or
// tracing, must pass on the request's context.
func NewTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	// HTTP/1.1 only: HTTP/2 sends requests again by rules of its own, and its requests
	// share connections, so the bytes of one request cannot be counted.
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
		// No limit: there are as many connections as requests at the same time, and one that
		// cannot stay idle is closed, so that the next request has to dial.
		MaxIdleConnsPerHost: math.MaxInt,
		// Many servers close an idle connection after 5 seconds. A payment sent at that
		// moment has an unknown outcome, so the client closes it first.
		IdleConnTimeout:        4 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// Sender sends the requests of one gateway client. It sends each request once, limits the
// size of the answer, follows no redirect, and knows afterwards whether a byte was sent.
type Sender struct {
	gateway payment.Gateway
	base    *url.URL
	baseURL string // base as text
	// transport is used without an http.Client, which would follow redirects: the
	// signature does not cover the address of a redirect.
	transport http.RoundTripper
	now       func() time.Time
	secrets   []string // see Redact
	names     []string
}

// NewSender returns a sender for a gateway. A nil transport means NewTransport, a nil now
// time.Now. The error describes what is wrong with the base URL without repeating it.
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
	return &Sender{gateway: g, base: base, baseURL: base.String(), transport: transport, now: now}, nil
}

// Redact sets what to redact in the gateway's messages: secrets anywhere, names (of a user,
// for example) only as whole words. Call it before the first request.
func (s *Sender) Redact(secrets []secret.Text, names ...string) {
	for _, each := range secrets {
		s.secrets = append(s.secrets, oneLine(each.Reveal())) // a PEM key has many lines
	}
	s.names = append(s.names, names...)
}

// Request is one request to a gateway.
type Request struct {
	Method    string
	Path      string // below the base URL, beginning with a slash
	Query     url.Values
	Header    http.Header
	Body      []byte // sent unchanged: signatures cover these bytes
	MaxAnswer int    // bytes; 0 is 1 MiB
	// BeforeSend is called immediately before the first byte is sent. If it returns an
	// error, nothing is sent. It may be nil.
	BeforeSend func() error
	// Redact lists the customer data to redact in the gateway's message.
	Redact []string
}

// Path returns the path of a request as it is sent, including the base URL's path.
func (s *Sender) Path(path string) string { return s.base.EscapedPath() + path }

// Now returns the time of the client's clock.
func (s *Sender) Now() time.Time { return s.now() }

// Send sends one request; operation names it in errors. If no complete answer arrives, the
// code says so and the body is nil. Otherwise the code is that of the HTTP status, and the
// caller replaces it if the body has a more exact one. The context must have a deadline.
func (s *Sender) Send(ctx context.Context, operation string, r Request) (Answer, []byte) {
	answer := Answer{At: s.now()}
	body, code, detail := s.exchange(ctx, r, &answer)
	answer.Message = s.redactor(r).message(body)
	if code == retrypolicy.HTTPCode(answer.HTTPStatus) && reportsInvalidToken(answer) {
		code = retrypolicy.HTTPCode(http.StatusUnauthorized)
	}
	answer.Duration = s.now().Sub(answer.At)
	s.SetCode(&answer, operation, code, detail)
	return answer, body
}

// reportsInvalidToken reports whether the message of an answer means that our access token is
// expired or invalid, under a status that does not say why the request was refused, such as
// Laravel's 419. For the statuses excluded here the retry policy has rules that match the
// message.
func reportsInvalidToken(a Answer) bool {
	switch a.HTTPStatus {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity,
		http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests: // the last three have nothing to do with tokens
		return false
	}
	return a.HTTPStatus/100 == 4 && retrypolicy.InvalidToken(a.Message)
}

// loginPage reports whether a redirect leads to a login page, which is how web frameworks
// answer an unauthorized request.
func loginPage(location string) bool {
	target, err := url.Parse(location)
	if err != nil {
		return false
	}
	last := strings.ToLower(target.Path[strings.LastIndexByte(target.Path, '/')+1:])
	return slices.Contains([]string{"login", "signin", "sign-in", "masuk"}, last)
}

// SetCode sets the code of an answer, and its Err if there is a detail.
func (s *Sender) SetCode(a *Answer, operation, code, detail string) {
	a.Code, a.Err = code, nil
	if detail != "" {
		a.Err = &Error{Gateway: s.gateway, Operation: operation, Code: code, HTTPStatus: a.HTTPStatus, RetryAfter: a.RetryAfter, Detail: detail, Message: a.Message}
	}
}

// Unsent returns the answer of a request that failed before it was started.
func (s *Sender) Unsent(operation, detail string) Answer {
	a := Answer{At: s.now()}
	s.SetCode(&a, operation, retrypolicy.CodeUnsent, detail)
	return a
}

// Inconclusive sets the code of a 2xx answer that reports neither success nor failure: that
// of a 401 if the message means that our access token is expired or invalid, otherwise
// body:unreadable.
func (s *Sender) Inconclusive(a *Answer, operation, detail string) {
	if retrypolicy.InvalidToken(a.Message) {
		s.SetCode(a, operation, retrypolicy.HTTPCode(http.StatusUnauthorized), detail)
		return
	}
	s.Unreadable(a, operation, detail)
}

// Unreadable sets the code of a malformed 2xx answer.
func (s *Sender) Unreadable(a *Answer, operation, detail string) {
	s.SetCode(a, operation, retrypolicy.CodeUnreadable, detail)
}

// exchange sends a request and reads the answer. It returns the code, and a detail for the
// error if there is one.
func (s *Sender) exchange(ctx context.Context, r Request, answer *Answer) (body []byte, code, detail string) {
	if ctx.Err() != nil {
		return nil, retrypolicy.CodeUnsent, "before the request: " + reason(ctx, ctx.Err())
	}
	w := &wire{beforeSend: r.BeforeSend}
	req, err := s.request(w.trace(ctx), r)
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
		// The body is then the connection itself, and reading from it has no timeout.
		return nil, retrypolicy.HTTPCode(res.StatusCode), "switch to another protocol"
	}
	if res.StatusCode/100 == 3 && loginPage(res.Header.Get("Location")) {
		return nil, retrypolicy.HTTPCode(http.StatusUnauthorized), "redirect to a login page"
	}

	limit := r.MaxAnswer
	if limit == 0 {
		limit = maxAnswer
	}
	var content bytes.Buffer
	content.Grow(int(min(max(res.ContentLength, 0), int64(limit))) + bytes.MinRead)
	_, err = content.ReadFrom(io.LimitReader(res.Body, int64(limit)+1)) // to its end, so that the connection can be reused
	body = content.Bytes()
	switch {
	case err != nil:
		return nil, retrypolicy.CodeUnknown, "read the answer: " + reason(ctx, err)
	case len(body) > limit && res.StatusCode/100 == 2:
		return nil, retrypolicy.CodeUnreadable, fmt.Sprintf("the answer is longer than %d bytes", limit)
	default:
		return body, retrypolicy.HTTPCode(res.StatusCode), ""
	}
}

var errNotWritable = errors.New("the request has characters that are not allowed in a header or URL")

func (s *Sender) request(ctx context.Context, r Request) (*http.Request, error) {
	target := s.baseURL + r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, target, bytes.NewReader(r.Body))
	if err != nil {
		return nil, errNotWritable
	}
	// With GetBody the Transport sends a POST again on another connection if it assumes
	// that nothing was sent on the first one. Only the retry policy may decide that.
	req.GetBody = nil
	req.Header = make(http.Header, len(r.Header))
	for name, values := range r.Header {
		// The Transport checks this too, but its error does not say that nothing was sent.
		for _, value := range values {
			if strings.ContainsFunc(value, unicode.IsControl) {
				return nil, errNotWritable
			}
		}
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	return req, nil
}

// retryAfter parses a Retry-After header, in seconds or as a date (RFC 9110, 10.2.3). It
// returns 0 for a time in the past and for a malformed value, and one hour at most.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	var wait time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 63); err == nil {
		wait = time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if date, err := http.ParseTime(value); err == nil {
		wait = date.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
