package gatewaysim

import (
	"slices"
	"time"
)

// Entry is one request in the journal.
type Entry struct {
	At         time.Time `json:"at"`
	Operation  Operation `json:"operation"`
	Reference  string    `json:"reference,omitzero"`
	ExternalID string    `json:"external_id,omitzero"`
	Query      string    `json:"query,omitzero"` // of the URL, e.g. "current_page=2&limit=100"
	Status     int       `json:"status"`         // the HTTP status of the answer; 0: the connection was closed instead
	Code       string    `json:"code,omitzero"`  // Paydia's responseCode, AM's message
	Fault      Fault     `json:"fault,omitzero"` // the fault that was applied
	Violations []string  `json:"violations,omitzero"`
}

// Violation is a mistake that a correct client never makes: a malformed header, signature
// or field, a header sent twice, an X-EXTERNAL-ID used twice.
type Violation struct {
	At        time.Time `json:"at"`
	Operation Operation `json:"operation"`
	Reference string    `json:"reference,omitzero"`
	What      string    `json:"what"`
}

// Row is one payment at a gateway, with its present state.
type Row struct {
	Gateway          Gateway   `json:"gateway"`
	Reference        string    `json:"reference"`         // transaction_id, partnerReferenceNo
	GatewayReference string    `json:"gateway_reference"` // AM's id, Paydia's referenceNo
	Amount           int64     `json:"amount"`            // in rupiah
	State            State     `json:"state"`
	GatewayStatus    string    `json:"gateway_status"` // AM's status word, Paydia's latestTransactionStatus
	CreatedAt        time.Time `json:"created_at"`
	VisibleAt        time.Time `json:"visible_at"` // later than CreatedAt after a fault late-lost or late-500
}

// Summary counts requests, faults and payments, and lists duplicate charges.
type Summary struct {
	Requests   map[Operation]int `json:"requests"`
	Faults     map[Fault]int     `json:"faults"`
	Rows       map[Gateway]int   `json:"rows"`       // without other transactions
	Duplicates []string          `json:"duplicates"` // "gateway:reference" of payments that exist more than once
	Violations int               `json:"violations"`
}

// record adds a request, its answer and its violations to the journal.
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

// Journal returns every request so far, in the order of processing.
func (s *Sim) Journal() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal)
}

// Violations returns the violations of all requests so far.
func (s *Sim) Violations() []Violation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// Requests returns the number of requests of one operation so far.
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

// Rows returns every payment that callers created at both gateways, without the other
// transactions of AddOtherTransactions. It includes payments that a late fault still hides.
func (s *Sim) Rows() []Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	rows := []Row{}
	for _, t := range s.am.rows {
		if !t.other {
			rows = append(rows, s.amToRow(t, now))
		}
	}
	for _, p := range s.paydia.rows {
		rows = append(rows, p.toRow(now))
	}
	return rows
}

// RowsOf returns every payment with one reference at one gateway: more than one means that
// the customer can be charged twice.
func (s *Sim) RowsOf(gateway Gateway, reference string) []Row {
	rows := s.Rows()
	return slices.DeleteFunc(rows, func(r Row) bool { return r.Gateway != gateway || r.Reference != reference })
}

// Summary returns the counts of all requests so far.
func (s *Sim) Summary() Summary {
	sum := Summary{
		Requests: map[Operation]int{}, Faults: map[Fault]int{}, Rows: map[Gateway]int{},
		Duplicates: []string{}, Violations: len(s.Violations()),
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
			sum.Duplicates = append(sum.Duplicates, key)
		}
	}
	return sum
}
