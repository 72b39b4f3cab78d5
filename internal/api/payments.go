package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retention"
)

// accepted is the answer to a payment that is recorded.
type accepted struct {
	Gateway       payment.Gateway `json:"gateway"`
	TransactionID string          `json:"transaction_id"`
	Result        intake.Result   `json:"result"`
	Status        payment.Status  `json:"status"`

	// With wait, what the customer needs in order to pay.
	PaymentLinks string `json:"payment_links,omitempty"`
	PaymentCode  string `json:"payment_code,omitempty"`
	QRCode       string `json:"qr_code,omitempty"`
}

// postPayment accepts one payment.
func (s *Server) postPayment(w *response, r *http.Request, key Key) {
	if key.ReadOnly {
		errReadOnly.write(w)
		return
	}
	if p := checkQuery(r, "wait"); p != nil {
		p.write(w)
		return
	}
	wait, p := parseWait(r)
	if p != nil {
		p.write(w)
		return
	}
	if p, err := s.checkRedis(r.Context()); p != nil {
		w.fail(p, err)
		return
	}
	body, release, p := s.readBody(w, r)
	if p != nil {
		p.write(w)
		return
	}
	defer release()
	otherKey := false
	line := intake.Line{Number: 1, Last: 1, Text: body, Allowed: func(id payment.Key) bool {
		otherKey = !equalsIdempotencyKey(r.Header.Values("Idempotency-Key"), id.TransactionID)
		return !otherKey && key.Includes(id)
	}}
	// Once it is read, a payment is recorded although its client has gone.
	answer := s.o.Intake.Create(context.WithoutCancel(r.Context()), []intake.Line{line})[0]
	release()
	if answer.EnqueueErr != nil {
		s.o.Log.Warn("a payment is recorded but could not be enqueued: a worker's poll enqueues it later", "error", answer.EnqueueErr)
	}
	switch {
	case otherKey:
		newProblem(http.StatusUnprocessableEntity, "Idempotency-Key differs from the transaction id, which is the idempotency key: leave the header out. Nothing was done").write(w)
	case errors.Is(answer.Cause, intake.ErrNotAllowed):
		newProblem(http.StatusForbidden, answer.Error+". Nothing was done").write(w)
	case answer.Result == intake.Conflict:
		p := newProblem(http.StatusConflict, answer.Error)
		p.Result, p.PaymentStatus = answer.Result, answer.Status
		p.write(w)
	case answer.Result == intake.Invalid:
		p := newProblem(http.StatusUnprocessableEntity, "the payment is not valid, see errors. Nothing was done")
		if !isJSON(body) {
			p = newProblem(http.StatusBadRequest, "the body is not one JSON value in UTF-8, see errors. Nothing was done")
		}
		p.Result, p.Errors = answer.Result, answer.Errors
		p.write(w)
	case answer.Result == intake.Failed:
		p := unavailable(intake.RetryAdvice, retryRedis)
		p.Result = answer.Result
		w.fail(p, answer.Cause)
	default:
		s.accept(w, r, &answer, wait)
	}
}

var errReadOnly = newProblem(http.StatusForbidden, "this API key is read-only")

// isJSON reports whether a body is one JSON value, whatever else is wrong with it.
func isJSON(body []byte) bool {
	return jsontext.Value(body).IsValid(jsontext.AllowDuplicateNames(true))
}

// equalsIdempotencyKey reports whether a header Idempotency-Key, if there is one, has the
// transaction id: as it is, or in the quotes that draft-ietf-httpapi-idempotency-key-header wants.
func equalsIdempotencyKey(values []string, id string) bool {
	return !slices.ContainsFunc(values, func(v string) bool { return v != id && v != `"`+id+`"` })
}

// accept answers that a payment is recorded.
func (s *Server) accept(w *response, r *http.Request, answer *intake.Answer, wait time.Duration) {
	status := http.StatusOK
	if answer.Result == intake.Enqueued {
		status = http.StatusAccepted
	}
	key := payment.Key{Gateway: answer.Gateway, TransactionID: answer.TransactionID}
	body := accepted{Gateway: key.Gateway, TransactionID: key.TransactionID, Result: answer.Result, Status: answer.Current}
	if wait > 0 {
		if record := s.awaitEvent(w, r, key, wait); record != nil {
			body.Status, body.PaymentLinks, body.PaymentCode, body.QRCode = record.Status, record.PaymentLinks, record.PaymentCode, record.QRCode
		}
	}
	w.Header().Set("Location", location(key))
	writeJSON(w, status, body)
}

func writeJSON(w *response, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encode(w, value)
}

// location returns the path of a payment, with the id in the query if it would not be one element
// of a path everywhere.
func location(key payment.Key) string {
	id := key.TransactionID
	if strings.ContainsAny(id, `/\`) || id == "." || id == ".." {
		return "/v1/payments?gateway=" + string(key.Gateway) + "&id=" + url.QueryEscape(id)
	}
	return "/v1/payments/" + string(key.Gateway) + "/" + url.PathEscape(id)
}

// awaitEvent waits until the gateway has answered for a payment, and returns the payment as it is
// then, or at the end of the wait. It returns nil if it cannot be read: it is recorded all the
// same.
func (s *Server) awaitEvent(w *response, r *http.Request, key payment.Key, wait time.Duration) *ledger.Record {
	release, ok := s.wait(w)
	if !ok {
		return nil
	}
	defer release()
	var latest *ledger.Record
	_ = s.await(r.Context(), key, wait, func() (bool, error) {
		record, err := s.o.Ledger.Read(r.Context(), key)
		if err != nil {
			return false, nil //nolint:nilerr // it may be readable at the next try; the payment is recorded
		}
		latest = record
		return record.Status.HasEvent(), nil
	})
	return latest
}

// await calls done until it reports true, returns an error, the time is over, the client has gone,
// or the server shuts down: at once, when the payment has an event, and every second.
func (s *Server) await(ctx context.Context, key payment.Key, wait time.Duration, done func() (bool, error)) error {
	woken, stop := s.hub.watch(&key)
	defer stop()
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	poll := time.NewTicker(recordPoll)
	defer poll.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-woken:
		case <-poll.C:
		case <-deadline.C:
			return nil
		case <-s.stopping:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readBody reads the body of one payment. release returns its memory; it may be called twice.
func (s *Server) readBody(w *response, r *http.Request) (body []byte, release func(), p *problem) {
	if p := checkEncoding(r); p != nil {
		return nil, nil, p
	}
	size := r.ContentLength
	if size > intake.MaxLine {
		return nil, nil, errTooLarge
	}
	if size < 0 {
		size = intake.MaxLine
	}
	ctx, cancel := context.WithTimeout(r.Context(), budgetTimeout)
	defer cancel()
	if s.bodies.Acquire(ctx, size) != nil {
		return nil, nil, errBusy
	}
	held := size
	release = func() { s.bodies.Release(held); held = 0 }
	_ = w.control.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, intake.MaxLine))
	_ = w.control.SetReadDeadline(time.Time{}) // it would end the request while it waits
	if err == nil {
		return bytes.TrimPrefix(body, []byte("\ufeff")), release, nil
	}
	release()
	var netErr net.Error
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, nil, errTooLarge
	case errors.As(err, &netErr) && netErr.Timeout():
		return nil, nil, newProblem(http.StatusRequestTimeout, "the body was not received within "+bodyTimeout.String()+". Nothing was done")
	default:
		return nil, nil, newProblem(http.StatusBadRequest, "the body ended early. Nothing was done")
	}
}

var (
	errTooLarge = newProblem(http.StatusRequestEntityTooLarge, "the body is "+intake.ErrTooLong.Error()+". Nothing was done")
	errBusy     = unavailable("too much is being received at the same time. Nothing was done", retryBusy)
)

// checkEncoding returns a problem if the body is compressed.
func checkEncoding(r *http.Request) *problem {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return newProblem(http.StatusUnsupportedMediaType, "the body must not be compressed. Nothing was done")
	}
	return nil
}

func (s *Server) getPaymentByPath(w *response, r *http.Request, key Key) {
	if p := checkQuery(r, "wait"); p != nil {
		p.write(w)
		return
	}
	s.getPayment(w, r, key, r.PathValue("gateway"), r.PathValue("id"))
}

func (s *Server) getPaymentByQuery(w *response, r *http.Request, key Key) {
	gateway, id, p := idOfQuery(r, "wait")
	if p != nil {
		p.write(w)
		return
	}
	s.getPayment(w, r, key, gateway, id)
}

// idOfQuery returns the payment that the query names. Only the others may be there besides.
func idOfQuery(r *http.Request, others ...string) (gateway, id string, p *problem) {
	query := r.URL.Query()
	gateway, id = query.Get("gateway"), query.Get("id")
	p = checkQuery(r, append(others, "gateway", "id")...)
	if p == nil && (gateway == "" || id == "") {
		p = newProblem(http.StatusBadRequest, "gateway and id are both needed")
	}
	return gateway, id, p
}

// checkPayment returns the key of a payment that the API key includes. If there is none, or Redis
// cannot be used, it answers the request.
func (s *Server) checkPayment(w *response, r *http.Request, key Key, gatewayName, id string) (wanted payment.Key, ok bool) {
	gateway, err := payment.ParseGateway(gatewayName)
	wanted = payment.Key{Gateway: gateway, TransactionID: id}
	if err != nil || !key.Includes(wanted) {
		errNotFound.write(w)
		return wanted, false
	}
	if p, err := s.checkRedis(r.Context()); p != nil {
		w.fail(p, err)
		return wanted, false
	}
	return wanted, true
}

// getPayment answers the status of a payment.
func (s *Server) getPayment(w *response, r *http.Request, key Key, gatewayName, id string) {
	wait, p := parseWait(r)
	if p != nil {
		p.write(w)
		return
	}
	wanted, ok := s.checkPayment(w, r, key, gatewayName, id)
	if !ok {
		return
	}
	known := r.Header.Values("If-None-Match")
	shown, err := s.read(r.Context(), wanted)
	if err == nil && wait > 0 && (len(known) == 0 || matches(known, shown.etag)) {
		release, ok := s.wait(w)
		if !ok {
			errTooManyWait.write(w)
			return
		}
		defer release()
		first := shown.etag
		err = s.await(r.Context(), wanted, wait, func() (bool, error) {
			var err error
			shown, err = s.read(r.Context(), wanted)
			return err == nil && shown.etag != first, err
		})
	}
	switch {
	case err == nil:
	case errors.Is(err, ledger.ErrNotFound):
		errNotFound.write(w)
		return
	case gone(r, err):
		w.abort = true
		return
	case errors.Is(err, ledger.ErrDamaged), errors.Is(err, ledger.ErrOtherVersion):
		w.fail(errUnreadable, err)
		return
	default:
		w.fail(unavailable("the store of the payments does not answer", retryRedis), err)
		return
	}
	h := w.Header()
	h.Set("ETag", shown.etag)
	h.Set("Cache-Control", "private, no-cache")
	if matches(known, shown.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "application/json")
	_, _ = w.Write(shown.json) // an error means that the client has gone
}

var (
	errNotFound   = newProblem(http.StatusNotFound, "no such payment")
	errUnreadable = newProblem(http.StatusInternalServerError, "the payment exists, and this version cannot read it")
)

// shownPayment is a payment as it is answered.
type shownPayment struct {
	json []byte
	etag string
}

// read reads a payment. Its entity tag is weak: it does not change with next_at, which changes
// whenever the gateway was asked.
func (s *Server) read(ctx context.Context, key payment.Key) (shownPayment, error) {
	record, err := s.o.Ledger.Read(ctx, key)
	if err != nil {
		return shownPayment{}, err
	}
	status, err := s.statusOf(ctx, record)
	if err != nil {
		return shownPayment{}, err
	}
	var shown bytes.Buffer
	enc := json.NewEncoder(&shown)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(status); err != nil {
		return shownPayment{}, err
	}
	status.NextAt = time.Time{}
	hash := sha256.New()
	if err := json.NewEncoder(hash).Encode(status); err != nil {
		return shownPayment{}, err
	}
	return shownPayment{shown.Bytes(), `W/"` + hex.EncodeToString(hash.Sum(nil)[:12]) + `"`}, nil
}

// statusOf returns a payment as it is answered. For a tombstone it reads the archive.
func (s *Server) statusOf(ctx context.Context, record *ledger.Record) (retention.Status, error) {
	if record.Tombstone && !record.ArchivedOn.IsZero() && s.o.ArchiveDir != "" {
		select {
		case s.archiveReads <- struct{}{}:
			defer func() { <-s.archiveReads }()
		case <-ctx.Done():
			return retention.Status{}, ctx.Err()
		}
	}
	status, missing := retention.StatusOf(record, s.o.ArchiveDir)
	if missing != "" {
		s.o.Log.Debug("the answer has only what is left of a payment", "payment", record.Key().String(), "missing", missing)
	}
	return status, nil
}

// matches reports whether a header If-None-Match has an entity tag, or *.
func matches(header []string, etag string) bool {
	for _, one := range strings.Split(strings.Join(header, ","), ",") {
		one = strings.TrimSpace(one)
		if one == "*" || strings.TrimPrefix(one, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}
