// Package gatewaysim plays both payment gateways, AM Digital Payment and Paydia
// SNAP, with faults to switch on and customers who pay, pay late, or never.
//
// It is an independent witness: it is written from the vendors' pages alone and
// imports nothing of Terbayar's, so that a mistake of a client is not repeated
// by its examiner. Every header, signature and field is checked; what is wrong is
// answered as the vendor would and kept as a Violation, also where a setting
// lets it pass.
//
// The state of every payment is derived from the injected clock when it is read:
// no goroutine runs, and a test moves time by moving its clock. Where the
// vendors' pages leave a question open (gateways.md, section 6), a setting plays
// each side of it.
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

// Gateway names one of the two simulated gateways, as order systems do.
type Gateway string

// The simulated gateways.
const (
	AM     Gateway = "amdigipay" // AM Digital Payment, served under /api/
	Paydia Gateway = "paydia"    // Paydia SNAP, served under /snap/v1.0/
)

// Operation names one call of one gateway: the gateway, a dot, the call.
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
	Unrouted      Operation = "unrouted" // a path that neither gateway has: always a violation
)

// Operations lists the calls of both gateways.
func Operations() []Operation {
	return []Operation{AMLogin, AMCreate, AMList, AMDetail, AMPaymentList, PaydiaToken, PaydiaPayment, PaydiaQuery}
}

// Config is how the gateways behave. Start from DefaultConfig.
type Config struct {
	// Seed decides every draw of chance. A draw depends on the seed, the
	// operation, the reference and how often that pair came before, and not on
	// the order in which concurrent requests arrive, so a run can be repeated.
	Seed uint64
	// Faults are in force from the start; Inject adds to them.
	Faults []FaultRule
	// Customers decides what the payers do; the first rule that applies wins.
	Customers []CustomerRule
	// Refusals are the business refusals, by amount or by id.
	Refusals []Refusal
	AM       AMConfig
	Paydia   PaydiaConfig
}

// DefaultConfig is both gateways as the vendors' pages describe them, without
// faults, with credentials fit for tests, and with customers who pay after one
// to three seconds. Paydia.PublicKey is left to the caller: without it no token
// is given out.
func DefaultConfig() Config {
	return Config{
		Seed:      1,
		Customers: []CustomerRule{{Customer: Customer{Behaviour: Pays, After: time.Second, UpTo: 3 * time.Second}}},
		AM:        defaultAM(),
		Paydia:    defaultPaydia(),
	}
}

// Check says which rule of the configuration is wrong; nil when none is.
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
	return nil
}

// jakarta is the zone of both gateways (UTC+7, no summer time).
var jakarta = time.FixedZone("WIB", 7*60*60)

// Sim is both gateways. All its methods may be called at any time, from any
// goroutine.
type Sim struct {
	config Config
	now    func() time.Time
	mux    *http.ServeMux

	mu         sync.Mutex // guards all that follows
	faults     []*FaultRule
	draws      map[string]int // how often each pair of operation and reference came
	byHand     map[Gateway]map[string]Customer
	tokens     map[Gateway]map[string]*token
	externals  map[string]Operation // Jakarta day and X-EXTERNAL-ID -> where it was used first
	am         amLedger
	paydia     paydiaLedger
	motion     ListMotion
	spellings  map[Gateway]map[string]map[string]jsontext.Value // by reference and field
	journal    []Entry
	violations []Violation
}

// New builds both gateways on a clock. It panics on a configuration that does
// not pass Check.
func New(config Config, now func() time.Time) *Sim {
	if err := config.Check(); err != nil {
		panic(err)
	}
	s := &Sim{
		config:    config,
		now:       now,
		mux:       http.NewServeMux(),
		draws:     map[string]int{},
		byHand:    map[Gateway]map[string]Customer{AM: {}, Paydia: {}},
		tokens:    map[Gateway]map[string]*token{AM: {}, Paydia: {}},
		externals: map[string]Operation{},
		spellings: map[Gateway]map[string]map[string]jsontext.Value{AM: {}, Paydia: {}},
		am:        newAMLedger(),
		paydia:    newPaydiaLedger(),
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

// Handler serves AM under /api/, Paydia under /snap/v1.0/, and the admin
// endpoint under /admin/. The faults that lose a connection panic with
// http.ErrAbortHandler, as net/http wants it, so it must not be wrapped in
// something that recovers.
func (s *Sim) Handler() http.Handler { return s.mux }

// exchange is one request under examination, and what becomes of it.
type exchange struct {
	*http.Request

	op         Operation
	now        time.Time
	payload    []byte
	reference  string // our transaction_id or partnerReferenceNo, as soon as it is known
	externalID string
	violations []string

	late    time.Duration // the row that processing makes appears only after this long
	pending bool          // processing ends in "in progress"
}

// violation notes what the caller did wrong.
func (x *exchange) violation(format string, args ...any) {
	x.violations = append(x.violations, fmt.Sprintf(format, args...))
}

// header reads a header that may be sent once only.
func (x *exchange) header(name string) string {
	values := x.Header.Values(name)
	if len(values) > 1 {
		x.violation("header %s is sent %d times", name, len(values))
	}
	return strings.Join(values, ", ")
}

// answer is what a gateway says.
type answer struct {
	status     int
	code       string // for the journal: Paydia's responseCode, AM's message
	body       []byte
	html       bool
	location   string
	retryAfter time.Duration
}

// processing carries a request out. An examiner returns it instead of running
// it, so that a fault can examine a request that is never processed.
type processing func() answer

// examiner checks a request and returns what processing it would be: the deed,
// or the refusal.
type examiner func(*exchange) processing

// refused is the processing of a request that the examiner turned down.
func refused(a answer) processing { return func() answer { return a } }

// maxBody bounds a request body; both vendors' are a few kilobytes.
const maxBody = 1 << 20

// serve is the way of every request of both gateways: read, take, answer.
func (s *Sim) serve(op Operation, examine examiner) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			panic(http.ErrAbortHandler) // the caller went away mid-request: nothing reached the gateway
		}
		s.take(r, op, payload, examine).send(w, r)
	})
}

// take picks a fault, examines, processes and notes the request in the journal,
// all of it under the lock: a request is processed whole or not at all.
func (s *Sim) take(r *http.Request, op Operation, payload []byte, examine examiner) delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := &exchange{Request: r, op: op, now: s.now(), payload: payload, reference: referenceIn(op, payload)}
	rule := s.pickFault(op, x.reference)
	d := s.undergo(x, rule, examine)
	s.record(x, rule, d)
	return d
}

func (s *Sim) unrouted(x *exchange) processing {
	x.violation("no such path: %s %s", x.Method, x.URL.Path)
	return refused(laravel(http.StatusNotFound, "The route could not be found."))
}

// wantMethod refuses every other verb as Laravel does.
func (x *exchange) wantMethod(methods ...string) (answer, bool) {
	if slices.Contains(methods, x.Method) {
		return answer{}, true
	}
	x.violation("method %s, want %v", x.Method, methods)
	return laravel(http.StatusMethodNotAllowed, "The "+x.Method+" method is not supported for this route."), false
}

// delivery is an answer and what a fault does to it on the wire.
type delivery struct {
	answer
	delay    time.Duration // held back for this long
	drop     bool          // the connection is closed instead
	cutShort bool          // the connection is closed half way through the body
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
		// Retry-After counts whole seconds; rounding down would call the caller early.
		w.Header().Set("Retry-After", strconv.Itoa(int((d.retryAfter+time.Second-1)/time.Second)))
	}
	w.WriteHeader(d.status)
	body := d.body
	if d.cutShort {
		body = body[:len(body)/2]
	}
	_, _ = w.Write(body) // the caller may have gone; what happened is in the journal already
	if d.cutShort {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// jsonAnswer is an answer with a JSON body.
func jsonAnswer(status int, code string, body any) answer {
	text, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("gatewaysim: marshal an answer: %v", err)) // our own types: found by the first test
	}
	return answer{status: status, code: code, body: text}
}

// laravel is an answer of the framework below AM's documented envelopes
// (gateways.md 1.1).
func laravel(status int, message string) answer {
	return jsonAnswer(status, message, struct {
		Message string `json:"message"`
	}{message})
}

// chance draws a number in [0, 1) that depends on the seed and the parts alone.
func (s *Sim) chance(parts ...any) float64 {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%d %q", s.config.Seed, parts)
	return float64(binary.BigEndian.Uint64(h.Sum(nil))>>11) / (1 << 53)
}

// gateway is the part of an operation's name before the dot.
func (op Operation) gateway() Gateway {
	name, _, _ := strings.Cut(string(op), ".")
	return Gateway(name)
}
