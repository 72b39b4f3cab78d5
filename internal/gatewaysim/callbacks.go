package gatewaysim

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
)

// CallbackConfig sets the callbacks (docs/gateways.md 1.9 and 2.9): requests that a gateway sends
// when the state of a payment has changed. Only a Server sends them. They are not repeated, whatever
// the answer: how often the vendors repeat them is not known.
type CallbackConfig struct {
	AM, Paydia string // URLs; without one, the gateway sends none
	Form       bool   // AM encodes them as a form instead of JSON: its pages do not say
	Faults     []CallbackFault
}

func (c CallbackConfig) url(g Gateway) string {
	switch g {
	case AM:
		return c.AM
	case Paydia:
		return c.Paydia
	default:
		return ""
	}
}

// CallbackFault is something that may be wrong with callbacks.
type CallbackFault string

// The faults of callbacks. A late "paid" after the expiry needs no fault, but a customer who PaysLate.
const (
	CallbackDuplicate CallbackFault = "duplicate" // each is sent twice
	CallbackReorder   CallbackFault = "reorder"   // after each, the former state is sent again
	CallbackForged    CallbackFault = "forged"    // a wrong one says of each new payment that it is paid
	CallbackTest      CallbackFault = "test"      // before each, the test of AM's dashboard is sent
)

// CallbackFaults lists every fault of callbacks.
func CallbackFaults() []CallbackFault {
	return []CallbackFault{CallbackDuplicate, CallbackReorder, CallbackForged, CallbackTest}
}

// Check returns an error if the configuration is invalid.
func (c CallbackConfig) Check() error {
	for _, text := range []string{c.AM, c.Paydia} {
		if u, err := url.Parse(text); text != "" && (err != nil || u.Host == "") {
			return fmt.Errorf("gatewaysim: callbacks: wrong URL") // it has a secret
		}
	}
	for _, f := range c.Faults {
		if !slices.Contains(CallbackFaults(), f) {
			return fmt.Errorf("gatewaysim: callbacks: unknown fault %q", f)
		}
	}
	return nil
}

// Callback is one callback, and after it was sent the answer.
type Callback struct {
	Gateway   Gateway `json:"gateway"`
	Reference string  `json:"reference"`
	// Status is AM's status id or Paydia's latestTransactionStatus, Amount in rupiah (AM only).
	Status string `json:"status"`
	Amount int64  `json:"amount,omitzero"`
	// Signature of AM's; "": the correct one.
	Signature string `json:"signature,omitzero"`
	// Answer is the HTTP status and the body, or an error.
	Answer string `json:"answer,omitzero"`
}

// callbackStore is the part of a Sim that knows which callbacks are to be sent. Callbacks of one
// group are sent one after the other.
type callbackStore struct {
	known  map[any]State // by row: the state that was sent; rows are open at first
	groups [][]Callback  // of SendCallback
	sent   []Callback
}

// SendCallback sends a callback with any content, as a forger does.
func (s *Sim) SendCallback(c Callback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.callbacks.groups = append(s.callbacks.groups, []Callback{c})
}

// Callbacks returns the callbacks that were sent, in the order of their answers.
func (s *Sim) Callbacks() []Callback {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Callback{}, s.callbacks.sent...)
}

// takeCallbacks returns the callbacks that are to be sent now.
func (s *Sim) takeCallbacks() [][]Callback {
	s.mu.Lock()
	defer s.mu.Unlock()
	groups := s.callbacks.groups
	s.callbacks.groups = nil
	now := s.now()
	if s.config.Callbacks.AM != "" {
		for _, t := range s.am.rows {
			if t.other || t.visible.After(now) {
				continue
			}
			state, id := t.status(now)
			groups = s.addCallbacks(groups, t, state, Callback{Gateway: AM, Reference: t.reference, Status: strconv.Itoa(id), Amount: t.amount})
		}
	}
	if s.config.Callbacks.Paydia != "" {
		for _, p := range s.paydia.rows {
			if p.visible.After(now) {
				continue
			}
			state, status, _ := p.status(now)
			groups = s.addCallbacks(groups, p, state, Callback{Gateway: Paydia, Reference: p.reference, Status: status})
		}
	}
	return groups
}

// addCallbacks adds the callbacks of a row whose state has changed.
func (s *Sim) addCallbacks(groups [][]Callback, row any, state State, c Callback) [][]Callback {
	has := func(f CallbackFault) bool { return slices.Contains(s.config.Callbacks.Faults, f) }
	open, paid := "2", "3"
	if c.Gateway == Paydia {
		open, paid = "03", "00"
	}
	former, seen := s.callbacks.known[row]
	if former = cmp.Or(former, Open); seen && state == former {
		return groups
	}
	s.callbacks.known[row] = state
	var group []Callback
	if !seen && has(CallbackForged) {
		forged := c
		forged.Status, forged.Amount, forged.Signature = paid, c.Amount+1, sha256Signature("forger", c.Reference)
		group = append(group, forged)
	}
	if state != former {
		if c.Gateway == AM && has(CallbackTest) {
			group = append(group, Callback{Gateway: AM, Reference: "TEST-" + c.Reference, Status: paid, Amount: 10_000, Signature: "testing"})
		}
		group = append(group, c)
		if has(CallbackDuplicate) {
			group = append(group, c)
		}
		if has(CallbackReorder) {
			older := c
			older.Status = open
			group = append(group, older)
		}
	}
	if len(group) == 0 {
		return groups
	}
	return append(groups, group)
}

const (
	// callbackInterval is how often a Server compares the states of the payments.
	callbackInterval = 20 * time.Millisecond
	callbackTimeout  = 10 * time.Second
	maxCallbacks     = 50 // sent at the same time
)

// sendCallbacks sends callbacks until the context ends.
func (s *Sim) sendCallbacks(ctx context.Context) {
	ticker := time.NewTicker(callbackInterval)
	defer ticker.Stop()
	client := &http.Client{
		Timeout: callbackTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: maxCallbacks},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	var sending sync.WaitGroup
	defer sending.Wait()
	places := make(chan struct{}, maxCallbacks)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, group := range s.takeCallbacks() {
			places <- struct{}{}
			sending.Go(func() {
				defer func() { <-places }()
				for _, c := range group {
					c.Answer = s.sendCallback(ctx, client, c)
					s.mu.Lock()
					s.callbacks.sent = append(s.callbacks.sent, c)
					s.mu.Unlock()
				}
			})
		}
	}
}

// sendCallback sends one callback and returns the answer.
func (s *Sim) sendCallback(ctx context.Context, client *http.Client, c Callback) string {
	to := s.config.Callbacks.url(c.Gateway)
	if to == "" {
		return "no URL"
	}
	r, err := s.amCallback(ctx, to, c)
	if c.Gateway == Paydia {
		r, err = s.paydiaCallback(ctx, to, c)
	}
	if err != nil {
		return "not sent"
	}
	res, err := client.Do(r)
	if err != nil {
		return "no answer" // the error has the URL, which has a secret
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1000))
	if err != nil {
		return "no answer"
	}
	return strconv.Itoa(res.StatusCode) + " " + string(body)
}

// amCallback returns a callback of AM (docs/gateways.md 1.9).
func (s *Sim) amCallback(ctx context.Context, to string, c Callback) (*http.Request, error) {
	signature := cmp.Or(c.Signature, sha256Signature(s.config.AM.Username, c.Reference))
	total := strconv.FormatInt(c.Amount, 10)
	if s.config.Callbacks.Form {
		form := url.Values{
			"transaction_id": {c.Reference}, "status_id": {c.Status}, "transaction_total": {total}, "signature": {signature}, "payment": {"QRIS"},
		}
		return callbackRequest(ctx, to, "application/x-www-form-urlencoded", []byte(form.Encode()))
	}
	status, err := strconv.Atoi(c.Status)
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	body, err := json.Marshal(struct {
		TransactionID string `json:"transaction_id"`
		StatusID      int    `json:"status_id"`
		Total         string `json:"transaction_total"`
		Signature     string `json:"signature"`
		Payment       string `json:"payment"`
	}{c.Reference, status, total, signature, "QRIS"})
	if err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	return callbackRequest(ctx, to, "application/json", body)
}

// paydiaCallback returns a notification of Paydia (docs/gateways.md 2.9). Its signature has the form
// of one, and verifies with no key: the text to sign is not known.
func (s *Sim) paydiaCallback(ctx context.Context, to string, c Callback) (*http.Request, error) {
	s.mu.Lock()
	now, referenceNo := s.now(), ""
	if p := s.paydia.byReference[c.Reference]; p != nil {
		referenceNo = p.referenceNo
	}
	s.mu.Unlock()
	body, err := json.Marshal(struct {
		Partner     string `json:"originalPartnerReferenceNo"`
		ReferenceNo string `json:"originalReferenceNo"`
		ExternalID  string `json:"originalExternalId"`
		MerchantID  string `json:"merchantId"`
		Status      string `json:"latestTransactionStatus"`
	}{c.Reference, referenceNo, "1", s.config.Paydia.MerchantID, c.Status})
	if err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	r, err := callbackRequest(ctx, to, "application/json", body)
	if err != nil {
		return nil, err
	}
	signature := sha512.Sum512(body)
	for name, value := range map[string]string{
		"X-TIMESTAMP": now.In(jakarta).Format("2006-01-02T15:04:05-07:00"), "X-PARTNER-ID": s.config.Paydia.ClientID,
		"X-EXTERNAL-ID": strconv.FormatInt(now.UnixNano(), 10), "CHANNEL-ID": "12345", "X-SIGNATURE": base64.StdEncoding.EncodeToString(signature[:]),
	} {
		r.Header.Set(name, value)
	}
	return r, nil
}

func callbackRequest(ctx context.Context, to, contentType string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	r.Header.Set("Content-Type", contentType)
	return r, nil
}
