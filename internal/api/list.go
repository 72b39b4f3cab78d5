package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"terbayar/internal/ledger"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/retention"
)

// paymentList is the answer of GET /v1/payments without an id.
type paymentList struct {
	Payments   []retention.Status `json:"payments"`
	Next       string             `json:"next,omitempty"`       // absent on the last page
	Incomplete []string           `json:"incomplete,omitempty"` // why payments may be missing
}

// getPayments answers one payment, if the query has an id, or a list.
func (s *Server) getPayments(w *response, r *http.Request, key Key) {
	if r.URL.Query().Has("id") {
		s.getPaymentByQuery(w, r, key)
		return
	}
	if p := checkQuery(r, "gateway", "status", "since", "after", "limit", "id"); p != nil {
		p.write(w)
		return
	}
	q, wrong := s.listQuery(r, key)
	if len(wrong) > 0 {
		p := newProblem(http.StatusBadRequest, "query parameters are wrong, see errors")
		p.Errors = wrong
		p.write(w)
		return
	}
	if p, err := s.checkRedis(r.Context()); p != nil {
		w.fail(p, err)
		return
	}
	page, err := s.o.Ledger.List(r.Context(), q)
	switch {
	case errors.Is(err, ledger.ErrCursor):
		p := newProblem(http.StatusBadRequest, "query parameters are wrong, see errors")
		p.Errors = []order.FieldError{{Field: "after", Detail: "must be next of an earlier answer with the same parameters"}}
		p.write(w)
		return
	case gone(r, err):
		w.abort = true
		return
	case err != nil:
		w.fail(unavailable("the store of the payments does not answer", retryRedis), err)
		return
	}
	list := paymentList{Payments: []retention.Status{}, Next: page.Next, Incomplete: page.Incomplete}
	for _, record := range page.Records {
		status, _ := retention.StatusOf(record, "") // not from the archive: that would read a day for each payment
		list.Payments = append(list.Payments, status)
	}
	writeJSON(w, http.StatusOK, list)
}

// listQuery returns the parameters of a list, and every wrong one.
func (s *Server) listQuery(r *http.Request, key Key) (q ledger.ListQuery, wrong []order.FieldError) {
	query := r.URL.Query()
	parse := func(name string, set func(text string) error) {
		if text := query.Get(name); text != "" {
			if err := set(text); err != nil {
				wrong = append(wrong, order.FieldError{Field: name, Detail: err.Error()})
			}
		}
	}
	q = ledger.ListQuery{After: query.Get("after"), Limit: defaultLimit, Includes: key.Includes, Streams: s.o.Streams}
	parse("gateway", func(text string) error {
		var err error
		if q.Gateway, err = payment.ParseGateway(text); err != nil {
			return errors.New("unknown gateway (want amdigipay or paydia)") // it does not repeat the value
		}
		return nil
	})
	parse("status", func(text string) (err error) {
		q.Status, err = ledger.ParseStatus(text)
		return err
	})
	parse("since", func(text string) (err error) {
		q.Since, err = ledger.ParseSince(text, s.o.Now())
		return err
	})
	parse("limit", func(text string) (err error) {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > maxLimit {
			return fmt.Errorf("must be a number from 1 to %d", maxLimit)
		}
		return nil
	})
	return q, wrong
}
