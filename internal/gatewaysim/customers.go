package gatewaysim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Behaviour is what the customer of a payment does.
type Behaviour string

// The behaviours. At Paydia, where the customer has agreed beforehand, Pays and
// Refunds are paid in the very answer of Auth Payment; the others are answered
// 2026300 and end as described.
const (
	Pays      Behaviour = "pays"       // pays After the payment was created
	PaysLate  Behaviour = "pays-late"  // pays After the expired_date (at Paydia, which has none: After creation)
	NeverPays Behaviour = "never-pays" // leaves it open for ever
	Cancels   Behaviour = "cancels"    // cancels After creation
	Fails     Behaviour = "fails"      // it fails at the gateway After creation
	Refunds   Behaviour = "refunds"    // pays After creation, is given the money back After that
)

// Behaviours lists every behaviour.
func Behaviours() []Behaviour {
	return []Behaviour{Pays, PaysLate, NeverPays, Cancels, Fails, Refunds}
}

// Customer is what the customer of one payment does, and when.
type Customer struct {
	Behaviour Behaviour     `json:"behaviour"`
	After     time.Duration `json:"after,omitzero"`
	// UpTo, when larger than After, spreads the moment between the two by the seed.
	UpTo time.Duration `json:"up_to,omitzero"`
	// StatusID, when set, is the AM status id in which the payment ends instead
	// of the behaviour's usual one: 4 for a paid one, 13 for an open one, or one
	// that nobody has heard of.
	StatusID int `json:"status_id,omitzero"`
}

// Check says what is wrong with a customer; nil when nothing is.
func (c Customer) Check() error {
	switch {
	case !slices.Contains(Behaviours(), c.Behaviour):
		return fmt.Errorf("unknown behaviour %q", c.Behaviour)
	case c.After < 0 || c.UpTo < 0:
		return fmt.Errorf("after and up_to cannot be negative")
	}
	return nil
}

// CustomerRule gives a customer to the payments that it applies to.
type CustomerRule struct {
	Gateway Gateway `json:"gateway,omitzero"` // empty: both
	Prefix  string  `json:"prefix,omitzero"`  // of the transaction id; empty: any
	// Share is the part of all payments that this rule takes, by the seed; 0:
	// every payment that it applies to.
	Share    float64 `json:"share,omitzero"`
	Customer `json:",inline"`
}

// Check says what is wrong with a rule; nil when nothing is.
func (r CustomerRule) Check() error {
	if r.Share < 0 || r.Share > 1 {
		return fmt.Errorf("share %v is not between 0 and 1", r.Share)
	}
	return r.Customer.Check()
}

// SetCustomer decides by hand what the customer of one payment does, before or
// after the payment was created. After counts from the creation either way. It
// panics on a customer that does not pass Check.
func (s *Sim) SetCustomer(gateway Gateway, reference string, c Customer) {
	if err := c.Check(); err != nil {
		panic("gatewaysim: set customer: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byHand[gateway][reference] = c
	for _, t := range s.am.rows {
		if gateway == AM && t.reference == reference && !t.stranger {
			t.customer = s.customer(gateway, reference)
		}
	}
	if p := s.paydia.byReference[reference]; gateway == Paydia && p != nil {
		p.customer = s.customer(gateway, reference)
	}
}

// customer finds who pays a payment: the one set by hand, or by the first rule
// that applies, or one who pays at once.
func (s *Sim) customer(gateway Gateway, reference string) Customer {
	c, byHand := s.byHand[gateway][reference]
	if !byHand {
		c = s.customerByRule(gateway, reference)
	}
	if c.UpTo > c.After {
		c.After += time.Duration(s.chance("after", gateway, reference) * float64(c.UpTo-c.After))
	}
	return c
}

func (s *Sim) customerByRule(gateway Gateway, reference string) Customer {
	lot := s.chance("customer", gateway, reference)
	for _, rule := range s.config.Customers {
		if (rule.Gateway != "" && rule.Gateway != gateway) || !strings.HasPrefix(reference, rule.Prefix) {
			continue
		}
		if rule.Share == 0 || lot < rule.Share {
			return rule.Customer
		}
		lot -= rule.Share
	}
	return Customer{Behaviour: Pays}
}

// State is where a payment stands, in words common to both gateways.
type State string

// The states.
const (
	Open      State = "open"
	Paid      State = "paid"
	Cancelled State = "cancelled"
	Failed    State = "failed"
	Refunded  State = "refunded"
)

// life is what decides a payment's state at any moment.
type life struct {
	customer Customer
	created  time.Time
	visible  time.Time // committed late: before this the gateway does not know the payment
	expires  time.Time // zero where the gateway has no such date
	agreed   bool      // the customer agreed beforehand: who pays has paid at the creation
}

// at derives the state from the clock, and since when it holds.
func (l life) at(now time.Time) (State, time.Time) {
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
	if back := due.Add(l.customer.After); l.customer.Behaviour == Refunds && !now.Before(back) {
		return Refunded, back
	}
	return end, due
}

// Refusal refuses payments for a business reason, by amount or by id.
type Refusal struct {
	Gateway   Gateway `json:"gateway"`
	Prefix    string  `json:"prefix,omitzero"`     // of the transaction id; empty: any
	MinAmount int64   `json:"min_amount,omitzero"` // in rupiah; refuses from this amount on; 0: any
	// Code is Paydia's seven digits, e.g. 4036302 by amount or 4036314 by id; at
	// AM, the message of the refusal.
	Code string `json:"code"`
}

// Check says what is wrong with a refusal; nil when nothing is.
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

// refusal finds the business refusal that meets a payment.
func (s *Sim) refusal(gateway Gateway, reference string, amount int64) (Refusal, bool) {
	for _, r := range s.config.Refusals {
		if r.Gateway == gateway && strings.HasPrefix(reference, r.Prefix) && amount >= r.MinAmount {
			return r, true
		}
	}
	return Refusal{}, false
}
