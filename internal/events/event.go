// Package events defines the external format of result events, and reads them from their
// Redis stream. The ledger writes an event in the same script as the change of status that
// it reports.
package events

import (
	"encoding/json"
	"fmt"
	"time"

	"terbayar/internal/payment"
)

// Field is the field of a stream entry that holds the event.
const Field = "event"

// TypePrefix is what the type of an event has before the status.
const TypePrefix = "terbayar.payment."

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

// data is the payment without its attempts: the outer Attempts, which is always empty,
// hides the embedded one.
type data struct {
	*payment.Payment
	Attempts *struct{} `json:"attempts,omitempty"`
}

// ID returns the id of a payment's nth event; n counts from 1 without gaps. The id contains
// the status because n can repeat: a failover may lose an event, and the next one, of
// another status, then has the same n.
func ID(key payment.Key, n int64, status payment.Status) string {
	return fmt.Sprintf("%s:%d:%s", key, n, status)
}

// WithCursor returns the JSON of an event with the attribute cursor, an extension of
// CloudEvents. The position of an event among those of several streams is not known when it is
// written.
func WithCursor(event []byte, cursor string) []byte {
	return fmt.Appendf(nil, `{"cursor":%q,%s`, cursor, event[1:])
}

// Marshal returns the payment's nth event, as JSON: the payment reached its status at its
// UpdatedAt.
func Marshal(p *payment.Payment, n int64) ([]byte, error) {
	return json.Marshal(Event{
		SpecVersion:     "1.0",
		ID:              ID(p.Key(), n, p.Status),
		Source:          "terbayar/" + string(p.Gateway),
		Type:            TypePrefix + string(p.Status),
		Subject:         p.TransactionID,
		Time:            p.UpdatedAt,
		DataContentType: "application/json",
		Data:            data{Payment: p},
	})
}
