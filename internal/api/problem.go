package api

import (
	"encoding/json"
	"net/http"
	"strconv"

	"terbayar/internal/intake"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/retention"
)

// problem is an error answer, RFC 9457. It never contains values that the client has sent.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`

	Result        intake.Result      `json:"result,omitempty"`         // of a payment that was not accepted
	PaymentStatus payment.Status     `json:"payment_status,omitempty"` // of a conflict: the status of the recorded payment
	Payment       *retention.Status  `json:"payment,omitempty"`        // of a payment that cannot be cancelled
	Errors        []order.FieldError `json:"errors,omitempty"`         // of an invalid payment

	header     map[string]string
	retryAfter int // seconds; 0: none
}

func newProblem(status int, detail string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// The times after which a client tries again, in seconds.
const (
	retryRedis = 5 // Redis is down or does not acknowledge
	retryBusy  = 1 // a limit is reached
)

func unavailable(detail string, retryAfter int) *problem {
	p := newProblem(http.StatusServiceUnavailable, detail)
	p.retryAfter = retryAfter
	return p
}

func (p *problem) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	for name, value := range p.header {
		h.Set(name, value)
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	w.WriteHeader(p.Status)
	encode(w, p)
}

// encode writes a value as JSON. An error means that the client has gone.
func encode(w http.ResponseWriter, value any) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(value)
}
