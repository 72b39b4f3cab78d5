package api

import (
	"context"
	"errors"
	"net/http"

	"terbayar/internal/ledger"
)

func (s *Server) deletePaymentByPath(w *response, r *http.Request, key Key) {
	if p := checkQuery(r); p != nil {
		p.write(w)
		return
	}
	s.cancelPayment(w, r, key, r.PathValue("gateway"), r.PathValue("id"))
}

func (s *Server) deletePaymentByQuery(w *response, r *http.Request, key Key) {
	gateway, id, p := idOfQuery(r)
	if p != nil {
		p.write(w)
		return
	}
	s.cancelPayment(w, r, key, gateway, id)
}

// cancelPayment cancels a payment that is queued and was certainly not sent.
func (s *Server) cancelPayment(w *response, r *http.Request, key Key, gatewayName, id string) {
	if key.ReadOnly {
		errReadOnly.write(w)
		return
	}
	wanted, ok := s.checkPayment(w, r, key, gatewayName, id)
	if !ok {
		return
	}
	// Once it is read, the request is carried out although its client has gone.
	record, err := s.o.Ledger.Cancel(context.WithoutCancel(r.Context()), wanted)
	var refused *ledger.NotCancelledError
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, record.Payment)
	case errors.As(err, &refused):
		status, err := s.statusOf(r.Context(), record)
		if err != nil { // the client has gone
			w.abort = true
			return
		}
		p := newProblem(http.StatusConflict, refused.Error()+". Nothing was done")
		p.PaymentStatus, p.Payment = status.Status, &status
		p.write(w)
	case errors.Is(err, ledger.ErrNotFound):
		errNotFound.write(w)
	case errors.Is(err, ledger.ErrDamaged), errors.Is(err, ledger.ErrOtherVersion):
		w.fail(errUnreadable, err)
	default:
		w.fail(unavailable("not known to be cancelled: it may or may not be. Send the same request again", retryRedis), err)
	}
}
