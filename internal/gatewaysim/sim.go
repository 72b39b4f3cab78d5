// Package gatewaysim simulates both payment gateways, AM Digital Payment and Paydia
// SNAP, with faults to switch on and customers who pay, pay late, or never pay.
//
// It is written from the vendors' pages alone and imports no other package of
// Terbayar, so that it does not repeat a mistake of our clients. It checks every
// header, signature and field. A wrong request gets the vendor's answer and is recorded
// as a Violation, even if a setting accepts it.
//
// The state of a payment is computed from the injected clock whenever it is read: no
// goroutine runs, and a test moves time by moving its clock. Where the vendors' pages
// leave a question open (docs/gateways.md, section 6), a setting chooses the answer.
package gatewaysim

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Gateway names one of the two simulated gateways, with the same names as in payments.
type Gateway string

// The simulated gateways.
const (
	AM     Gateway = "amdigipay" // AM Digital Payment, served under /api/
	Paydia Gateway = "paydia"    // Paydia SNAP, served under /snap/v1.0/
)

// Operation names one call of one gateway: the gateway's name, a dot, the call's name.
type Operation string

// The operations of both gateways.
const (
	AMLogin       Operation = "amdigipay.login"
	AMCreate      Operation = "amdigipay.create-transaction"
	AMList        Operation = "amdigipay.list-transaction"
	AMDetail      Operation = "amdigipay.detail-transaction"
	AMPaymentList Operation = "amdigipay.payment-list"
	PaydiaToken   Operation = "paydia.access-token"
	PaydiaPayment Operation = "paydia.auth-payment"
	PaydiaQuery   Operation = "paydia.payment-query"
	Unrouted      Operation = "unrouted" // a path that neither gateway serves: always a violation
)

// Operations lists the calls of both gateways.
func Operations() []Operation {
	return []Operation{AMLogin, AMCreate, AMList, AMDetail, AMPaymentList, PaydiaToken, PaydiaPayment, PaydiaQuery}
}

// Config sets how the gateways behave. Start from DefaultConfig.
type Config struct {
	// Seed makes runs repeatable: every random number depends on the seed, the
	// operation, the reference and the number of earlier requests with the same
	// operation and reference. It does not depend on the order in which concurrent
	// requests arrive.
	Seed uint64
	// Faults are active from the start; Inject adds more.
	Faults []FaultRule
	// Customers decides what the customers do; the first rule that matches a payment
	// applies.
	Customers []CustomerRule
	// Refusals are refusals for business reasons, by amount or by id.
	Refusals []Refusal
	// Callbacks are sent by a Server only.
	Callbacks CallbackConfig
	AM        AMConfig
	Paydia    PaydiaConfig
}

// DefaultConfig returns both gateways as the vendors' pages describe them, without
// faults, with credentials for tests, and with customers who pay after one to three
// seconds. The caller sets Paydia.PublicKey: without it Paydia issues no token.
func DefaultConfig() Config {
	return Config{
		Seed:      1,
		Customers: []CustomerRule{{Customer: Customer{Behaviour: Pays, After: time.Second, UpTo: 3 * time.Second}}},
		AM:        defaultAM(),
		Paydia:    defaultPaydia(),
	}
}

// Check returns an error that names the first invalid rule of the configuration.
func (c Config) Check() error {
	for i, r := range c.Faults {
		if err := r.Check(); err != nil {
			return fmt.Errorf("gatewaysim: fault %d: %w", i+1, err)
		}
	}
	for i, r := range c.Customers {
		if err := r.Check(); err != nil {
			return fmt.Errorf("gatewaysim: customer %d: %w", i+1, err)
		}
	}
	for i, r := range c.Refusals {
		if err := r.Check(); err != nil {
			return fmt.Errorf("gatewaysim: refusal %d: %w", i+1, err)
		}
	}
	return c.Callbacks.Check()
}

// jakarta is the time zone of both gateways (UTC+7, no daylight saving time).
var jakarta = time.FixedZone("WIB", 7*60*60)

// Sim simulates both gateways. Its methods are safe for concurrent use.
type Sim struct {
	config Config
	now    func() time.Time
	mux    *http.ServeMux

	mu             sync.Mutex // guards the fields below
	faults         []*FaultRule
	occurrences    map[string]int // requests so far by operation and reference
	fixedCustomers map[Gateway]map[string]Customer
	tokens         map[Gateway]map[string]*token
	externalIDs    map[string]Operation // by day (Jakarta) and X-EXTERNAL-ID: the operation that used it first
	am             amStore
	paydia         paydiaStore
	listMotion     ListMotion
	spellings      map[Gateway]map[string]map[string]jsontext.Value // by payment and field
	callbacks      callbackStore
	journal        []Entry
	violations     []Violation
}

// New returns both gateways; now is their clock. It panics if config.Check fails.
func New(config Config, now func() time.Time) *Sim {
	if err := config.Check(); err != nil {
		panic(err)
	}
	s := &Sim{
		config:         config,
		now:            now,
		mux:            http.NewServeMux(),
		occurrences:    map[string]int{},
		fixedCustomers: map[Gateway]map[string]Customer{AM: {}, Paydia: {}},
		tokens:         map[Gateway]map[string]*token{AM: {}, Paydia: {}},
		externalIDs:    map[string]Operation{},
		spellings:      map[Gateway]map[string]map[string]jsontext.Value{AM: {}, Paydia: {}},
		callbacks:      callbackStore{known: map[any]State{}},
		am:             newAMStore(),
		paydia:         newPaydiaStore(),
	}
	for _, rule := range config.Faults {
		s.Inject(rule)
	}
	s.routeAM()
	s.routePaydia()
	s.routeAdmin()
	s.mux.Handle("/", s.serve(Unrouted, s.unrouted))
	return s
}

// Handler serves AM under /api/, Paydia under /snap/v1.0/, and the admin endpoints under
// /admin/. To close a connection, a fault panics with http.ErrAbortHandler; middleware
// around the handler must not recover from it.
func (s *Sim) Handler() http.Handler { return s.mux }

// exchange is one request, what is known about it so far, and how a fault changes it.
type exchange struct {
	*http.Request

	op         Operation
	now        time.Time
	payload    []byte
	reference  string // AM's transaction_id, Paydia's partnerReferenceNo; "" if the body has none
	externalID string
	violations []string

	visibleAfter time.Duration // time until the new row is visible
	pending      bool          // the answer is "in progress"
}

// violation records a mistake of the caller.
func (x *exchange) violation(format string, args ...any) {
	x.violations = append(x.violations, fmt.Sprintf(format, args...))
}

// header returns a header; more than one value is a violation.
func (x *exchange) header(name string) string {
	values := x.Header.Values(name)
	if len(values) > 1 {
		x.violation("header %s is sent %d times", name, len(values))
	}
	return strings.Join(values, ", ")
}

// answer is a gateway's HTTP response.
type answer struct {
	status     int
	code       string // for the journal: Paydia's responseCode, AM's message
	body       []byte
	html       bool
	location   string
	retryAfter time.Duration
}

// action processes a request that was checked, e.g. creates the payment. A validator
// returns it instead of running it, so that a fault can check a request without
// processing it.
type action func() answer

// validator checks a request. It returns the action that processes it, or, if the
// request is wrong, an action that only answers with the error.
type validator func(*exchange) action

// rejectWith returns the action for a request that failed a check: it only answers.
func rejectWith(a answer) action { return func() answer { return a } }

// maxBody limits a request body to 1 MiB; real ones have a few kilobytes.
const maxBody = 1 << 20

// serve returns the handler of one operation: read the body, process, answer.
func (s *Sim) serve(op Operation, validate validator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			panic(http.ErrAbortHandler) // the caller closed the connection early: nothing reached the gateway
		}
		s.process(r, op, payload, validate).send(w, r)
	})
}

// process picks a fault, checks and processes the request, and records it in the journal.
// The lock is held throughout, so requests do not interleave.
func (s *Sim) process(r *http.Request, op Operation, payload []byte, validate validator) delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := &exchange{Request: r, op: op, now: s.now(), payload: payload, reference: referenceIn(op, payload)}
	rule := s.pickFault(op, x.reference)
	d := s.applyFault(x, rule, validate)
	s.record(x, rule, d)
	return d
}

func (s *Sim) unrouted(x *exchange) action {
	x.violation("no such path: %s %s", x.Method, x.URL.Path)
	return rejectWith(laravel(http.StatusNotFound, "The route could not be found."))
}

// checkMethod reports whether the request has one of the methods; if not, it returns the
// answer of AM's framework, Laravel.
func (x *exchange) checkMethod(methods ...string) (answer, bool) {
	if slices.Contains(methods, x.Method) {
		return answer{}, true
	}
	x.violation("method %s, want %v", x.Method, methods)
	return laravel(http.StatusMethodNotAllowed, "The "+x.Method+" method is not supported for this route."), false
}

// delivery is an answer and what a fault does to it while it is sent.
type delivery struct {
	answer
	delay    time.Duration // wait this long before sending
	drop     bool          // close the connection instead of answering
	cutShort bool          // close the connection after half of the body
}

func (d delivery) send(w http.ResponseWriter, r *http.Request) {
	if d.delay > 0 {
		timer := time.NewTimer(d.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
	}
	if d.drop {
		panic(http.ErrAbortHandler)
	}
	contentType := "application/json"
	if d.html {
		contentType = "text/html; charset=UTF-8"
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(d.body)))
	if d.location != "" {
		w.Header().Set("Location", d.location)
	}
	if d.retryAfter > 0 {
		// Retry-After is in whole seconds, rounded up: rounded down it would be too early.
		w.Header().Set("Retry-After", strconv.Itoa(int((d.retryAfter+time.Second-1)/time.Second)))
	}
	w.WriteHeader(d.status)
	body := d.body
	if d.cutShort {
		body = body[:len(body)/2]
	}
	_, _ = w.Write(body) // the caller may have closed the connection; the journal has the request already
	if d.cutShort {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// jsonAnswer returns an answer with a JSON body.
func jsonAnswer(status int, code string, body any) answer {
	text, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("gatewaysim: marshal an answer: %v", err)) // only our own types: cannot fail
	}
	return answer{status: status, code: code, body: text}
}

// laravel returns an answer that AM's framework, Laravel, makes by itself, without AM's
// documented envelope (docs/gateways.md 1.1).
func laravel(status int, message string) answer {
	return jsonAnswer(status, message, struct {
		Message string `json:"message"`
	}{message})
}

// chance returns a pseudo-random number in [0, 1) that depends only on the seed and parts.
func (s *Sim) chance(parts ...any) float64 {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%d %q", s.config.Seed, parts)
	return float64(binary.BigEndian.Uint64(h.Sum(nil))>>11) / (1 << 53)
}

// gateway returns the part of an operation's name before the dot.
func (op Operation) gateway() Gateway {
	name, _, _ := strings.Cut(string(op), ".")
	return Gateway(name)
}
