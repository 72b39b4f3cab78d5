package gatewaysim

import (
	"slices"
	"time"
)

// Entry is one request as the gateways saw it.
type Entry struct {
	At         time.Time `json:"at"`
	Operation  Operation `json:"operation"`
	Reference  string    `json:"reference,omitzero"`
	ExternalID string    `json:"external_id,omitzero"`
	Query      string    `json:"query,omitzero"` // of the URL, e.g. "current_page=2&limit=100"
	Status     int       `json:"status"`         // the HTTP status answered; 0: the connection was closed instead
	Code       string    `json:"code,omitzero"`  // Paydia's responseCode, AM's message
	Fault      Fault     `json:"fault,omitzero"` // the fault that struck it
	Violations []string  `json:"violations,omitzero"`
}

// Violation is something that a caller must never do: a malformed header,
// signature or field, a header sent twice, an X-EXTERNAL-ID used again.
type Violation struct {
	At        time.Time `json:"at"`
	Operation Operation `json:"operation"`
	Reference string    `json:"reference,omitzero"`
	What      string    `json:"what"`
}

// Row is one payment as a gateway has it, at the moment of asking.
type Row struct {
	Gateway          Gateway   `json:"gateway"`
	Reference        string    `json:"reference"`         // transaction_id, partnerReferenceNo
	GatewayReference string    `json:"gateway_reference"` // AM's id, Paydia's referenceNo
	Amount           int64     `json:"amount"`            // in rupiah
	State            State     `json:"state"`
	GatewayStatus    string    `json:"gateway_status"` // AM's status word, Paydia's latestTransactionStatus
	CreatedAt        time.Time `json:"created_at"`
	VisibleAt        time.Time `json:"visible_at"` // later than CreatedAt where it was committed late
}

// Summary is the judge's first look.
type Summary struct {
	Requests   map[Operation]int `json:"requests"`
	Faults     map[Fault]int     `json:"faults"`
	Rows       map[Gateway]int   `json:"rows"`       // strangers and history left out
	Doubles    []string          `json:"doubles"`    // "gateway:reference" of payments that exist more than once
	Violations int               `json:"violations"` // see Violations
}

// record notes a request and what became of it.
func (s *Sim) record(x *exchange, rule *FaultRule, d delivery) {
	e := Entry{
		At: x.now, Operation: x.op, Reference: x.reference, ExternalID: x.externalID, Query: x.URL.RawQuery,
		Status: d.status, Code: d.code, Violations: x.violations,
	}
	if d.drop {
		e.Status, e.Code = 0, ""
	}
	if rule != nil {
		e.Fault = rule.Fault
	}
	s.journal = append(s.journal, e)
	for _, what := range x.violations {
		s.violations = append(s.violations, Violation{x.now, x.op, x.reference, what})
	}
}

// Journal is every request so far, in the order of their processing.
func (s *Sim) Journal() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal)
}

// Violations is everything that callers did wrong so far.
func (s *Sim) Violations() []Violation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// Requests counts the requests of one operation so far.
func (s *Sim) Requests(op Operation) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, e := range s.journal {
		if e.Operation == op {
			n++
		}
	}
	return n
}

// Rows is every payment that callers made at both gateways, strangers and
// history left out, also those committed late that cannot be seen yet.
func (s *Sim) Rows() []Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	rows := []Row{}
	for _, t := range s.am.rows {
		if !t.stranger {
			rows = append(rows, s.amWitness(t, now))
		}
	}
	for _, p := range s.paydia.rows {
		rows = append(rows, p.witness(now))
	}
	return rows
}

// RowsOf is every payment of one reference at one gateway: more than one means
// that the customer can pay twice.
func (s *Sim) RowsOf(gateway Gateway, reference string) []Row {
	rows := s.Rows()
	return slices.DeleteFunc(rows, func(r Row) bool { return r.Gateway != gateway || r.Reference != reference })
}

// Summary counts requests, faults, rows and violations.
func (s *Sim) Summary() Summary {
	sum := Summary{
		Requests: map[Operation]int{}, Faults: map[Fault]int{}, Rows: map[Gateway]int{},
		Doubles: []string{}, Violations: len(s.Violations()),
	}
	for _, e := range s.Journal() {
		sum.Requests[e.Operation]++
		if e.Fault != "" {
			sum.Faults[e.Fault]++
		}
	}
	count := map[string]int{}
	for _, r := range s.Rows() {
		sum.Rows[r.Gateway]++
		key := string(r.Gateway) + ":" + r.Reference
		if count[key]++; count[key] == 2 {
			sum.Doubles = append(sum.Doubles, key)
		}
	}
	return sum
}
