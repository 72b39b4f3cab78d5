// Package callbacks receives the gateways' callbacks: requests that say that the status of a payment
// has changed (docs/gateways.md 1.9 and 2.9).
//
// A callback can be forged: AM's signature contains no secret, and Paydia's cannot be verified
// without credentials, which this program does not have. So a callback settles nothing. Only the
// transaction id is read, and the worker is asked to look the payment up, see ledger.Ask and
// statuspoll.Poller.LookUpAsked. Whoever knows the secret path can cause one lookup per payment and
// Interval, and nothing else. Bodies contain data of customers and are not logged.
package callbacks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// Path is the pattern of the callbacks' paths, for http.ServeMux.
const Path = "/callbacks/{gateway}/{secret}"

// Route returns the pattern of one gateway's path, as logs and metrics name it.
func Route(g payment.Gateway) string { return "/callbacks/" + string(g) + "/{secret}" }

const (
	// Interval is the time between two lookups of a payment that callbacks ask for.
	Interval = 10 * time.Second

	// The limit of a client address. It is far above what a gateway sends, and a callback that is
	// refused only means that the payment is looked up by the next poll.
	perSecond    = 50
	burst        = 200
	maxAddresses = 10_000

	maxBody       = 64 << 10
	maxConcurrent = 256 // bounds the memory of the bodies
	bodyTimeout   = 10 * time.Second
	askTimeout    = 2 * time.Second
	retryBusy     = "1" // Retry-After, in seconds
	retryRedis    = "5"
)

// Outcome is what was done with a callback.
type Outcome string

// The outcomes. An AskResult of ledger is one too.
const (
	Test      Outcome = "test"      // the dashboard's test: accepted, nothing is done
	Other     Outcome = "other"     // about something else than a payment: accepted, nothing is done
	Malformed Outcome = "malformed" // refused
	Limited   Outcome = "limited"   // refused: too many from this address, or at the same time
	Failed    Outcome = "failed"    // refused: Redis does not answer
)

// Outcomes lists all outcomes.
func Outcomes() []Outcome {
	return []Outcome{
		Outcome(ledger.AskedNow), Outcome(ledger.AskedLater), Outcome(ledger.AskedAlready), Outcome(ledger.NotLookedUp),
		Outcome(ledger.NoRecord), Test, Other, Malformed, Limited, Failed,
	}
}

// Options are the parts and settings of a Handler.
type Options struct {
	Secrets []string       // each is a path segment; several while it is changed
	Trusted []netip.Prefix // proxies whose X-Forwarded-For is believed
	// Ask is Ledger.Ask.
	Ask       func(ctx context.Context, key payment.Key, interval time.Duration) (ledger.AskResult, error)
	RedisIsUp func() bool // must not block
	OnOutcome func(payment.Gateway, Outcome)
	Now       func() time.Time
	Log       *slog.Logger
}

// Handler answers callbacks.
type Handler struct {
	o       Options
	secrets [][sha256.Size]byte
	limits  *limits
	places  chan struct{}
}

// New returns a Handler.
func New(o Options) *Handler {
	h := &Handler{o: o, limits: newLimits(rate.Limit(perSecond), burst, maxAddresses), places: make(chan struct{}, maxConcurrent)}
	for _, s := range o.Secrets {
		h.secrets = append(h.secrets, sha256.Sum256([]byte(s)))
	}
	return h
}

// Gateway returns the gateway of a request for Path. It reports false if gateway or secret are
// wrong: the request must then be answered as one for an unknown path. The time that it takes does
// not depend on the secret.
func (h *Handler) Gateway(r *http.Request) (payment.Gateway, bool) {
	sum := sha256.Sum256([]byte(r.PathValue("secret")))
	found := 0
	for _, s := range h.secrets {
		found |= subtle.ConstantTimeCompare(sum[:], s[:])
	}
	g, err := payment.ParseGateway(r.PathValue("gateway"))
	return g, err == nil && found == 1
}

// Serve answers a callback of a gateway that Gateway has returned.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, g payment.Gateway) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		h.answer(w, g, http.StatusMethodNotAllowed, "00", "Requested Function Is Not Supported")
		return
	}
	id, outcome, err := h.receive(w, r, g)
	h.o.OnOutcome(g, outcome)
	level := slog.LevelDebug
	if err != nil {
		level = slog.LevelError
	}
	h.o.Log.Log(r.Context(), level, "callback received", "gateway", g, "transaction_id", id, "outcome", string(outcome), "error", err)
	switch outcome {
	case Malformed:
		h.answer(w, g, http.StatusBadRequest, "00", "Bad Request")
	case Limited:
		w.Header().Set("Retry-After", retryBusy)
		h.answer(w, g, http.StatusTooManyRequests, "00", "Too Many Requests")
	case Failed:
		w.Header().Set("Retry-After", retryRedis)
		h.answer(w, g, http.StatusInternalServerError, "01", "Internal Server Error")
	default:
		h.answer(w, g, http.StatusOK, "00", "Successful")
	}
}

// receive reads a callback and asks for the lookup. id is empty unless it has the form of a
// transaction id.
func (h *Handler) receive(w http.ResponseWriter, r *http.Request, g payment.Gateway) (id string, outcome Outcome, err error) {
	if !h.limits.allow(clientAddr(r, h.o.Trusted), h.o.Now()) {
		return "", Limited, nil
	}
	select {
	case h.places <- struct{}{}:
		defer func() { <-h.places }()
	default:
		return "", Limited, nil
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = control.SetReadDeadline(time.Time{})
	if err != nil {
		return "", Malformed, nil //nolint:nilerr // the client's fault
	}
	id, outcome = parse(g, r.Header.Get("Content-Type"), bytes.TrimPrefix(body, []byte("\ufeff")))
	if outcome != "" {
		return id, outcome, nil
	}
	if !h.o.RedisIsUp() { // its monitor logs it
		return id, Failed, nil
	}
	// The lookup is wanted although the gateway does not wait for the answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), askTimeout)
	defer cancel()
	result, err := h.o.Ask(ctx, payment.Key{Gateway: g, TransactionID: id}, Interval)
	switch {
	case err == nil:
		return id, Outcome(result), nil
	case !h.o.RedisIsUp(): // it has just become so
		return id, Failed, nil
	default:
		return id, Failed, err
	}
}

// answer writes what the gateway expects. AM: the text 1, or 0 if the callback is refused. Paydia: an
// answer of SNAP's service 56, whose responseCode is the HTTP status, the service and a case.
func (h *Handler) answer(w http.ResponseWriter, g payment.Gateway, status int, caseCode, message string) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	if g == payment.AMDigiPay {
		header.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		body := "0"
		if status == http.StatusOK {
			body = "1"
		}
		_, _ = io.WriteString(w, body) // an error means that the gateway has gone
		return
	}
	header.Set("Content-Type", "application/json")
	header.Set("X-Timestamp", h.o.Now().In(payment.Jakarta).Format("2006-01-02T15:04:05-07:00"))
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"responseCode":%q,"responseMessage":%q}`, strconv.Itoa(status)+"56"+caseCode, message)
}
