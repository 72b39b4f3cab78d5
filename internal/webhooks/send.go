package webhooks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"terbayar/internal/version"
)

// ContentType is the type of a webhook's body (CloudEvents 1.0, JSON format).
const ContentType = "application/cloudevents+json"

const (
	// sendTimeout is the time that a receiver has to answer.
	sendTimeout = 15 * time.Second
	// maxAnswer is how much of an answer is read, in bytes. Its content is not used; reading it
	// lets the connection be used again.
	maxAnswer = 64 << 10
)

// WebhookID returns the webhook-id of an event: the same for every try and every replay.
func WebhookID(eventID string) string {
	hash := sha256.Sum256([]byte(eventID))
	return "evt_" + hex.EncodeToString(hash[:16])
}

// answer is the result of a try.
type answer struct {
	status     int           // HTTP status; 0: none was received
	result     string        // one word: "http:503", "net:timeout", ...
	retryAfter time.Duration // of the header Retry-After; 0: there is none
	err        error         // why there is no status
}

func (a answer) delivered() bool { return a.status >= 200 && a.status <= 299 }

// errNotAllowed says that the receiver's address is not allowed.
var errNotAllowed = errors.New("the address is not allowed: it is loopback, private or link-local, or has no TLS, and is not in WEBHOOK_ALLOW")

// newClient returns the HTTP client that sends webhooks. It follows no redirects and uses no
// proxy. The address is checked when it is dialed, after DNS, so a name cannot be resolved to
// one address for a check and to another one for the request.
func newClient(allow []netip.Prefix) *http.Client {
	var v4, v6 []netip.Prefix
	for _, prefix := range allow {
		if prefix.Addr().Is4() {
			v4 = append(v4, prefix)
		} else {
			v6 = append(v6, prefix)
		}
	}
	guardian := ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
	dialer := &net.Dialer{Timeout: 5 * time.Second, ControlContext: func(ctx context.Context, network, address string, conn syscall.RawConn) error {
		if guardian.Safe(network, address, conn) != nil || !hasTLS(ctx) && !contains(allow, address) {
			return errNotAllowed
		}
		return nil
	}}
	return &http.Client{
		Timeout:       sendTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            dialer.DialContext,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    slots,
			IdleConnTimeout:        30 * time.Second,
			TLSHandshakeTimeout:    5 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
}

// tlsKey is the key of a context value: whether the request has TLS.
type tlsKey struct{}

func hasTLS(ctx context.Context) bool {
	secure, _ := ctx.Value(tlsKey{}).(bool)
	return secure
}

// contains reports whether an address with a port is in one of the prefixes.
func contains(prefixes []netip.Prefix, address string) bool {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	for _, prefix := range prefixes {
		if prefix.Contains(addr.Addr().Unmap()) {
			return true
		}
	}
	return false
}

// send sends one event to an endpoint, signed with all its secrets.
func (d *Deliverer) send(ctx context.Context, e *Endpoint, ev event) answer {
	now, id := d.Now(), WebhookID(ev.ID)
	signatures := make([]string, len(e.signers))
	for i, signer := range e.signers {
		var err error
		if signatures[i], err = signer.Sign(id, now, []byte(ev.body)); err != nil {
			return answer{result: "sign", err: err}
		}
	}
	ctx = context.WithValue(ctx, tlsKey{}, e.URL.Scheme == "https")
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL.String(), strings.NewReader(ev.body))
	if err != nil {
		return answer{result: "request", err: err}
	}
	r.Header.Set("Content-Type", ContentType)
	r.Header.Set("User-Agent", "terbayar/"+version.Release)
	r.Header.Set(standardwebhooks.HeaderWebhookID, id)
	r.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	response, err := d.client.Do(r)
	if err != nil {
		return networkAnswer(err)
	}
	_, _ = io.CopyN(io.Discard, response.Body, maxAnswer) // its end, or an error, changes nothing
	_ = response.Body.Close()
	return answer{
		status:     response.StatusCode,
		result:     "http:" + strconv.Itoa(response.StatusCode),
		retryAfter: retryAfter(response.Header.Get("Retry-After"), now),
	}
}

// networkAnswer returns the result of a try without an answer. The error leaves out the URL,
// which may contain a token.
func networkAnswer(err error) answer {
	var dns *net.DNSError
	result := "net:error"
	switch {
	case errors.Is(err, errNotAllowed):
		return answer{result: "net:not-allowed", err: errNotAllowed}
	case errors.As(err, &dns):
		return answer{result: "net:dns", err: dns}
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		result = "net:timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		result = "net:refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		result = "net:reset"
	case strings.Contains(err.Error(), "tls: "), strings.Contains(err.Error(), "x509: "):
		result = "net:tls"
	}
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err
	}
	return answer{result: result, err: err}
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

// retryAfter returns the time that a header Retry-After asks for, as seconds or as a date.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds > 0 {
		return time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil && at.After(now) {
		return min(at.Sub(now), maxRetryAfter)
	}
	return 0
}

// ParseAllow parses WEBHOOK_ALLOW: addresses and CIDRs, separated by commas.
func ParseAllow(text string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		if addr, err := netip.ParseAddr(word); err == nil && addr.Zone() == "" {
			all = append(all, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(word)
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a CIDR such as 10.0.0.0/8", word)
		}
		all = append(all, prefix.Masked())
	}
	return all, nil
}
