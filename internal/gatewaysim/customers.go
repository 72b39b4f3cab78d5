package gatewaysim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Behaviour is what the customer of a payment does.
type Behaviour string

// The behaviours; After is the field of Customer. At Paydia the customer has agreed to the
// payment beforehand: with Pays and Refunds the answer of Auth Payment is already that it is
// paid; with the others it is 2026300 (in progress), and the payment ends as described.
const (
	Pays      Behaviour = "pays"       // pays After the creation
	PaysLate  Behaviour = "pays-late"  // pays After the expired_date (at Paydia, which has none: After the creation)
	NeverPays Behaviour = "never-pays" // the payment stays open
	Cancels   Behaviour = "cancels"    // cancels After the creation
	Fails     Behaviour = "fails"      // the payment fails at the gateway After the creation
	Refunds   Behaviour = "refunds"    // pays After the creation, and is refunded After the payment
)

// Behaviours lists every behaviour.
func Behaviours() []Behaviour {
	return []Behaviour{Pays, PaysLate, NeverPays, Cancels, Fails, Refunds}
}

// Customer is what the customer of one payment does, and when.
type Customer struct {
	Behaviour Behaviour     `json:"behaviour"`
	After     time.Duration `json:"after,omitzero"`
	// UpTo, if larger than After, replaces After by a pseudo-random time between the two.
	UpTo time.Duration `json:"up_to,omitzero"`
	// StatusID, if set, replaces the behaviour's final status id at AM, e.g. 4 for paid, 13
	// for open, or an undocumented one.
	StatusID int `json:"status_id,omitzero"`
}

// Check returns an error if the customer is invalid.
func (c Customer) Check() error {
	switch {
	case !slices.Contains(Behaviours(), c.Behaviour):
		return fmt.Errorf("unknown behaviour %q", c.Behaviour)
	case c.After < 0 || c.UpTo < 0:
		return fmt.Errorf("after and up_to cannot be negative")
	}
	return nil
}

// CustomerRule sets the customer of the payments that it matches.
type CustomerRule struct {
	Gateway Gateway `json:"gateway,omitzero"` // empty: both
	Prefix  string  `json:"prefix,omitzero"`  // of the transaction id; empty: any
	// Share is the share of payments that the rule applies to, between 0 and 1; 0: every
	// payment that matches.
	Share    float64 `json:"share,omitzero"`
	Customer `json:",inline"`
}

// Check returns an error if the rule is invalid.
func (r CustomerRule) Check() error {
	if r.Share < 0 || r.Share > 1 {
		return fmt.Errorf("share %v is not between 0 and 1", r.Share)
	}
	return r.Customer.Check()
}

// SetCustomer sets the customer of one payment, before or after the payment is created; the
// rules do not apply to it any more. It panics if c.Check fails.
func (s *Sim) SetCustomer(gateway Gateway, reference string, c Customer) {
	if err := c.Check(); err != nil {
		panic("gatewaysim: set customer: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fixedCustomers[gateway][reference] = c
	for _, t := range s.am.rows {
		if gateway == AM && t.reference == reference && !t.other {
			t.customer = s.customer(gateway, reference)
		}
	}
	if p := s.paydia.byReference[reference]; gateway == Paydia && p != nil {
		p.customer = s.customer(gateway, reference)
	}
}

// customer returns the customer of a payment: that of SetCustomer, or of the first matching
// rule, or one who pays immediately.
func (s *Sim) customer(gateway Gateway, reference string) Customer {
	c, fixed := s.fixedCustomers[gateway][reference]
	if !fixed {
		c = s.customerByRule(gateway, reference)
	}
	if c.UpTo > c.After {
		c.After += time.Duration(s.chance("after", gateway, reference) * float64(c.UpTo-c.After))
	}
	return c
}

func (s *Sim) customerByRule(gateway Gateway, reference string) Customer {
	draw := s.chance("customer", gateway, reference)
	for _, rule := range s.config.Customers {
		if (rule.Gateway != "" && rule.Gateway != gateway) || !strings.HasPrefix(reference, rule.Prefix) {
			continue
		}
		if rule.Share == 0 || draw < rule.Share {
			return rule.Customer
		}
		draw -= rule.Share
	}
	return Customer{Behaviour: Pays}
}

// State is the state of a payment, with the same names for both gateways.
type State string

// The states.
const (
	Open      State = "open"
	Paid      State = "paid"
	Cancelled State = "cancelled"
	Failed    State = "failed"
	Refunded  State = "refunded"
)

// lifecycle determines the state of a payment at any time.
type lifecycle struct {
	customer Customer
	created  time.Time
	visible  time.Time // before this time the gateway does not know the payment
	expires  time.Time // zero if the gateway has no such date
	agreed   bool      // the customer agreed beforehand: Pays and Refunds pay at the creation
}

// stateAt returns the state at a time, and the time since which it holds.
func (l lifecycle) stateAt(now time.Time) (State, time.Time) {
	due := l.created.Add(l.customer.After)
	end := Open
	switch l.customer.Behaviour {
	case Pays, Refunds:
		end = Paid
		if l.agreed {
			due = l.created
		}
	case PaysLate:
		end = Paid
		if !l.expires.IsZero() {
			due = l.expires.Add(l.customer.After)
		}
	case Cancels:
		end = Cancelled
	case Fails:
		end = Failed
	case NeverPays:
		return Open, l.created
	}
	if now.Before(due) {
		return Open, l.created
	}
	if refund := due.Add(l.customer.After); l.customer.Behaviour == Refunds && !now.Before(refund) {
		return Refunded, refund
	}
	return end, due
}

// Refusal refuses payments for a business reason, by amount or by id.
type Refusal struct {
	Gateway   Gateway `json:"gateway"`
	Prefix    string  `json:"prefix,omitzero"`     // of the transaction id; empty: any
	MinAmount int64   `json:"min_amount,omitzero"` // the smallest amount that is refused, in rupiah; 0: any
	// Code is Paydia's seven digits, e.g. 4036302 by amount or 4036314 by id; at
	// AM, the message of the refusal.
	Code string `json:"code"`
}

// Check returns an error if the refusal is invalid.
func (r Refusal) Check() error {
	switch {
	case r.Gateway != AM && r.Gateway != Paydia:
		return fmt.Errorf("unknown gateway %q", r.Gateway)
	case r.Code == "":
		return fmt.Errorf("code is missing")
	case r.Gateway == Paydia && !isDigits(r.Code, 7, 7):
		return fmt.Errorf("code %q is not seven digits", r.Code)
	}
	return nil
}

// refusal returns the first business refusal that matches a payment.
func (s *Sim) refusal(gateway Gateway, reference string, amount int64) (Refusal, bool) {
	for _, r := range s.config.Refusals {
		if r.Gateway == gateway && strings.HasPrefix(reference, r.Prefix) && amount >= r.MinAmount {
			return r, true
		}
	}
	return Refusal{}, false
}
