// Package events is the outside of the result events: how one looks, and how
// the stream of them is read. The ledger writes them, in the same script as the
// change of status that they tell of.
package events

import (
	"encoding/json"
	"fmt"
	"time"

	"terbayar/internal/payment"
)

// Field is the field of a stream entry that holds the event.
const Field = "event"

// Event is a CloudEvents 1.0 event in its JSON format.
type Event struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`     // <gateway>:<transaction_id>:<n>:<status>
	Source          string    `json:"source"` // terbayar/<gateway>
	Type            string    `json:"type"`   // terbayar.payment.<status>
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            data      `json:"data"`
}

// data is the payment less its attempts: the outer, always empty field hides
// the embedded one.
type data struct {
	*payment.Payment
	Attempts *struct{} `json:"attempts,omitempty"`
}

// ID is the identity of a payment's nth event, n counting from 1 without a gap. The
// status is part of it: when a failover has lost a change, n counts again, and two
// different changes must not share an id.
func ID(key payment.Key, n int64, reached payment.Status) string {
	return fmt.Sprintf("%s:%d:%s", key, n, reached)
}

// Marshal writes the event that says that the payment has reached its status,
// at its UpdatedAt, as the payment's nth.
func Marshal(p *payment.Payment, n int64) ([]byte, error) {
	return json.Marshal(Event{
		SpecVersion:     "1.0",
		ID:              ID(p.Key(), n, p.Status),
		Source:          "terbayar/" + string(p.Gateway),
		Type:            "terbayar.payment." + string(p.Status),
		Subject:         p.TransactionID,
		Time:            p.UpdatedAt,
		DataContentType: "application/json",
		Data:            data{Payment: p},
	})
}
