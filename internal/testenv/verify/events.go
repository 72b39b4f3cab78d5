package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"terbayar/internal/events"
	"terbayar/internal/payment"
)

// Event is a result event as a consumer reads it.
type Event struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"`

	Payment payment.Payment `json:"-"` // Data, decoded
}

// ParseEvent reads an event. Unknown members are an error.
func ParseEvent(text []byte) (Event, error) {
	var e Event
	if err := strictly(text, &e); err != nil {
		return e, fmt.Errorf("event %s: %w", text, err)
	}
	if err := strictly(e.Data, &e.Payment); err != nil {
		return e, fmt.Errorf("data of event %s: %w", text, err)
	}
	return e, nil
}

func strictly(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// Key is the payment that the event is about.
func (e Event) Key() payment.Key {
	return payment.Key{Gateway: payment.Gateway(strings.TrimPrefix(e.Source, "terbayar/")), TransactionID: e.Subject}
}

// checkEvents checks the events against docs/interface.md, "Result events".
func (v *Report) checkEvents(submitted map[payment.Key]bool) {
	stream := eventsByPayment(v.run.Stream)
	for key := range stream {
		switch {
		case !submitted[key]:
			v.add(WrongEvents, key, "there are events of it, and it was never submitted")
		case v.run.Records[key] == nil:
			v.add(WrongEvents, key, "there are events of it, and the ledger does not contain it")
		}
	}
	for key, record := range v.run.Records {
		v.checkSequence(key, stream[key])
		v.checkLastEvent(record, stream[key])
	}
	if !v.run.NoConsumer {
		v.checkReceived(stream)
	}
}

// checkSequence: the events of a payment are well-formed, numbered from 1 without a gap,
// and every one is a legal move.
func (v *Report) checkSequence(key payment.Key, sequence []Event) {
	was := payment.Submitting
	for i, e := range sequence {
		is := e.Payment.Status
		if want := events.ID(key, int64(i+1), is); e.ID != want {
			v.add(WrongEvents, key, "event %q where %q should be", e.ID, want)
		}
		if want := "terbayar.payment." + string(is); e.Type != want {
			v.add(WrongEvents, key, "event %s is of type %s, its data of %s", e.ID, e.Type, want)
		}
		if !e.Time.Equal(e.Payment.UpdatedAt) {
			v.add(WrongEvents, key, "event %s is of %s, its data of %s", e.ID, e.Time, e.Payment.UpdatedAt)
		}
		if e.SpecVersion != "1.0" || e.DataContentType != "application/json" ||
			!strings.HasPrefix(e.Source, "terbayar/") || e.Payment.Key() != key {
			v.add(WrongEvents, key, "event %s is malformed: %+v", e.ID, e)
		}
		// Between two events the payment may have been in verifying, which has no event.
		hidden := payment.CanMove(was, payment.Verifying) && payment.CanMove(payment.Verifying, is)
		if is == was || !is.HasEvent() || !payment.CanMove(was, is) && !hidden {
			v.add(WrongEvents, key, "event %s moves it from %s to %s", e.ID, was, is)
		}
		was = is
	}
}

// checkLastEvent: the data of the last event is the payment without its attempts.
func (v *Report) checkLastEvent(record *payment.Payment, sequence []Event) {
	switch {
	case !record.Status.HasEvent():
		return
	case len(sequence) == 0:
		v.add(WrongEvents, record.Key(), "it is %s and has no event", record.Status)
		return
	}
	text, err := json.Marshal(record)
	if err != nil {
		panic(err) // our own type
	}
	last := sequence[len(sequence)-1]
	want, got := object(text), object(last.Data)
	delete(want, "attempts")
	delete(want, "next_at") // it changes with every lookup, and has no event
	if !reflect.DeepEqual(want, got) {
		v.add(WrongEvents, record.Key(), "the last event contains %v, the ledger %v", got, want)
	}
}

// checkReceived compares what the consumer has received with the stream. Without a
// failover both are the same, each event once. A failover may remove events from the
// stream that were received. Then the same change of status must be reported again, under
// the same id or with another number; only on_processing and needs_review may be skipped.
func (v *Report) checkReceived(stream map[payment.Key][]Event) {
	received := map[string]bool{}
	for _, e := range v.run.Received {
		key := e.Key()
		if received[e.ID] {
			v.RepeatedEvents++
			if !v.run.Failover {
				v.add(WrongEvents, key, "event %s was received twice", e.ID)
			}
			continue
		}
		received[e.ID] = true
		is := e.Payment.Status
		if want := "terbayar.payment." + string(is); e.Type != want {
			v.add(WrongEvents, key, "received event %s is of type %s, its data of %s", e.ID, e.Type, want)
		}
		if slices.ContainsFunc(stream[key], func(s Event) bool { return s.ID == e.ID }) {
			continue
		}
		v.WithdrawnEvents++
		again := slices.ContainsFunc(stream[key], func(s Event) bool { return s.Type == e.Type })
		reviewed := slices.ContainsFunc(stream[key], func(s Event) bool { return s.Payment.Status == payment.NeedsReview })
		switch {
		case !v.run.Failover:
			v.add(WrongEvents, key, "event %s was received and is not in the stream", e.ID)
		case again || is == payment.OnProcessing || is == payment.NeedsReview:
		case is == payment.Rejected && reviewed:
			// The refusal was recorded and its event received, but not acknowledged by a
			// replica. No lookup can find a refused payment.
			v.WithdrawnRefusals++
		default:
			v.add(WrongEvents, key, "event %s was received, removed, and not written again", e.ID)
		}
	}
	for _, e := range v.run.Stream {
		if !received[e.ID] {
			v.add(WrongEvents, e.Key(), "event %s is in the stream and was not received", e.ID)
		}
	}
}

func eventsByPayment(all []Event) map[payment.Key][]Event {
	sorted := map[payment.Key][]Event{}
	for _, e := range all {
		sorted[e.Key()] = append(sorted[e.Key()], e)
	}
	return sorted
}

func object(text []byte) (o map[string]any) {
	if err := json.Unmarshal(text, &o); err != nil {
		return map[string]any{"not an object": string(text)}
	}
	return o
}
