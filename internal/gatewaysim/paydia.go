package gatewaysim

import (
	"cmp"
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PaydiaConfig sets how Paydia behaves.
type PaydiaConfig struct {
	ClientID, ClientSecret string
	MerchantID             string
	// PublicKey verifies the signature of access-token; with nil every request is refused.
	PublicKey *rsa.PublicKey
	// TokenLifetime is that of the B2B token: 24 h in the vendor's sample, usually 900 s
	// at other SNAP gateways.
	TokenLifetime time.Duration
	// ExpiresIn is the form of the lifetime in the answer; we have no page of the vendor
	// that shows it.
	ExpiresIn ExpiresIn

	// CustomerTokens are the accepted Authorization-Customer tokens; empty: any.
	CustomerTokens []string
	// CustomerPrefix is the form of Authorization-Customer: Paydia's sample has the token
	// alone, ASPI and AstraPay require "Bearer " before it.
	CustomerPrefix CustomerPrefix
	// IgnoreSignature accepts a wrong X-SIGNATURE (it is a violation all the same).
	IgnoreSignature bool
	// TimestampWindow is the largest difference between X-TIMESTAMP and the clock; 0: not
	// checked. The vendor documents none.
	TimestampWindow time.Duration
	// IgnoreStaleness accepts an X-TIMESTAMP outside the window (it is a violation all the
	// same).
	IgnoreStaleness bool

	// RequireReferenceNo makes originalReferenceNo mandatory in Payment Query (4006402), as
	// on Paydia's page. ASPI's page does not require it.
	RequireReferenceNo bool
	// NotFoundAs07 answers a query for an unknown payment with 2006400 and
	// latestTransactionStatus 07 instead of 4046401.
	NotFoundAs07 bool
	// LowerCasePartner writes originalpartnerReferenceNo with a small p, as in ASPI's sample.
	LowerCasePartner bool
	// CorrectPaidTime writes paidTime with +07:00, as in the vendor's table, instead of
	// -07:00, as in the vendor's sample.
	CorrectPaidTime bool
}

// ExpiresIn is the form of expiresIn in the answer of access-token.
type ExpiresIn string

// The forms.
const (
	ExpiresInText   ExpiresIn = "text"   // "86400", as in SNAP
	ExpiresInNumber ExpiresIn = "number" // 86400
	ExpiresInAbsent ExpiresIn = "absent" // only the token itself contains it (exp)
)

// CustomerPrefix is the form of Authorization-Customer.
type CustomerPrefix string

// The forms.
const (
	CustomerRaw    CustomerPrefix = "raw"    // the token alone
	CustomerBearer CustomerPrefix = "bearer" // "Bearer " and the token
	CustomerEither CustomerPrefix = "either" // both
)

func defaultPaydia() PaydiaConfig {
	return PaydiaConfig{
		ClientID: "5171a7ed0c11e47000000000000000c1", ClientSecret: "simulated-paydia-secret",
		MerchantID: "240327001000000", TokenLifetime: 24 * time.Hour, ExpiresIn: ExpiresInText,
		CustomerPrefix: CustomerRaw, TimestampWindow: 5 * time.Minute,
	}
}

type paydiaStore struct {
	rows        []*paydiaRow
	byReference map[string]*paydiaRow
}

func newPaydiaStore() paydiaStore { return paydiaStore{byReference: map[string]*paydiaRow{}} }

// paydiaRow is one payment at Paydia. A partnerReferenceNo is unique: Paydia answers
// 4096301 to a second payment with it.
type paydiaRow struct {
	lifecycle

	reference   string
	referenceNo string
	amount      snapAmount
}

// snapAmount is an amount in SNAP's JSON.
type snapAmount struct {
	Value    string `json:"value"`
	Currency string `json:"currency"`
}

// rupiah returns the whole rupiah of an amount that was checked.
func (a snapAmount) rupiah() int64 {
	whole, _, _ := strings.Cut(a.Value, ".")
	n, _ := strconv.ParseInt(whole, 10, 64) // the format was checked
	return n
}

// serviceCode returns the two digits in the middle of an operation's response codes.
func serviceCode(op Operation) string {
	return map[Operation]string{PaydiaToken: "73", PaydiaPayment: "63", PaydiaQuery: "64"}[op]
}

// snapMessages are the responseMessages of SNAP by HTTP status and case code: first those
// of the vendor's page, then those of ASPI's list (docs/gateways.md 3.1).
var snapMessages = map[string]string{
	"40001": "Invalid Field Format", "40002": "Invalid Mandatory Field",
	"40100": "Unauthorized.", "40101": "Invalid Token (B2B)",
	"40302": "Exceeds Transaction Amount Limit", "40314": "Insufficient Funds",
	"40408": "Invalid Merchant", "40900": "Conflict", "40901": "Duplicate partnerReferenceNo",
	"50001": "Internal Server Error",

	"20200": "Request In Progress", "40000": "Bad Request",
	"40102": "Invalid Customer Token", "40104": "Customer Token Not Found",
	"40300": "Transaction Expired", "40303": "Suspected Fraud", "40304": "Activity Count Limit Exceeded",
	"40305": "Do Not Honor", "40315": "Transaction Not Permitted", "40318": "Inactive Card/Account/Customer",
	"40401": "Transaction Not Found", "40404": "Transaction Cancelled", "40418": "Inconsistent Request",
	"42900": "Too Many Requests", "50000": "General Error", "50002": "External Server Error", "50400": "Timeout",
}

// snapHead begins every answer of Paydia.
type snapHead struct {
	Code    string `json:"responseCode"`
	Message string `json:"responseMessage"`
}

// snapError returns an answer without a payment. Its HTTP status is the first three digits
// of the code; detail, if any, is appended to the message of snapMessages.
func snapError(op Operation, code, detail string) answer {
	message := cmp.Or(snapMessages[code[:3]+code[5:]], "Refused")
	if detail != "" && detail != message {
		message += " " + detail
	}
	status, err := strconv.Atoi(code[:3])
	if err != nil {
		panic("gatewaysim: a response code of " + string(op) + " is not seven digits")
	}
	return jsonAnswer(status, code, snapHead{code, message})
}

// snap returns a snapError of the request's operation: for auth-payment, status 401 and
// case 00 become the code 4016300.
func (x *exchange) snap(status, caseCode, detail string) answer {
	return snapError(x.op, status+serviceCode(x.op)+caseCode, detail)
}

func (s *Sim) routePaydia() {
	s.mux.Handle("/snap/v1.0/access-token/b2b", s.serve(PaydiaToken, s.paydiaToken))
	s.mux.Handle("/snap/v1.0/auth/payment", s.serve(PaydiaPayment, s.transactional(s.paydiaPayment)))
	s.mux.Handle("/snap/v1.0/auth/query", s.serve(PaydiaQuery, s.transactional(s.paydiaQuery)))
}

// rejections keeps the answer to the first error that is found in a request. Later checks
// run too, to record their violations.
type rejections struct {
	x     *exchange
	first *answer
}

func (r *rejections) add(a answer) {
	if r.first == nil {
		r.first = &a
	}
}

// rejectViolation records a violation and rejects the request.
func (r *rejections) rejectViolation(a answer, format string, args ...any) {
	r.x.violation(format, args...)
	r.add(a)
}

// mandatoryHeader returns a header. It rejects the request if the header is missing, or
// longer than limit bytes (0: no limit).
func (r *rejections) mandatoryHeader(name string, limit int) string {
	value := r.x.header(name)
	switch {
	case value == "":
		r.rejectViolation(r.x.snap("400", "02", name), "header %s is missing", name)
	case limit > 0 && len(value) > limit:
		r.rejectViolation(r.x.snap("400", "01", name), "header %s is longer than %d", name, limit)
	}
	return value
}

// commonHeaders checks what every request to Paydia has: method, Content-Type, Accept and
// X-TIMESTAMP.
func (r *rejections) commonHeaders(c PaydiaConfig) (timestamp string) {
	x := r.x
	if a, ok := x.checkMethod(http.MethodPost); !ok {
		r.add(a)
	}
	if value := r.mandatoryHeader("Content-Type", 127); value != "" && value != "application/json" {
		r.rejectViolation(x.snap("400", "01", "Content-Type"), "header Content-Type is not application/json")
	}
	if x.header("Accept") != "application/json" {
		x.violation("header Accept is not application/json")
	}
	timestamp = r.mandatoryHeader("X-TIMESTAMP", 0)
	if timestamp == "" {
		return timestamp
	}
	at, err := time.Parse("2006-01-02T15:04:05-07:00", timestamp)
	if err != nil || len(timestamp) != 25 || !strings.HasSuffix(timestamp, "+07:00") {
		r.rejectViolation(x.snap("400", "01", "X-TIMESTAMP"), "header X-TIMESTAMP is not of the form YYYY-MM-DDTHH:mm:ss+07:00")
		return timestamp
	}
	if off := x.now.Sub(at).Abs(); c.TimestampWindow > 0 && off > c.TimestampWindow {
		x.violation("header X-TIMESTAMP is off by %s", off.Round(time.Second))
		if !c.IgnoreStaleness {
			r.add(x.snap("401", "00", "X-TIMESTAMP is too far from now"))
		}
	}
	return timestamp
}

// paydiaToken checks access-token/b2b (docs/gateways.md 2.2).
func (s *Sim) paydiaToken(x *exchange) action {
	c := s.config.Paydia
	r := &rejections{x: x}
	timestamp := r.commonHeaders(c)
	clientKey, signature := r.mandatoryHeader("X-CLIENT-KEY", 0), r.mandatoryHeader("X-SIGNATURE", 0)
	switch {
	case clientKey != "" && clientKey != c.ClientID:
		r.rejectViolation(x.snap("401", "00", "Unknown Client"), "header X-CLIENT-KEY is not the client id")
	case signature != "" && !rsaVerifies(c.PublicKey, clientKey+"|"+timestamp, signature):
		x.violation("header X-SIGNATURE is wrong")
		if !c.IgnoreSignature {
			r.add(x.snap("401", "00", "Signature"))
		}
	}
	f, ok := readFields(x.payload)
	if !ok {
		r.rejectViolation(x.snap("400", "00", ""), "body is not a JSON object")
		f = newFields("", nil, &[]wrongField{})
	} else if f.text("grantType", 64) != "client_credentials" {
		r.rejectViolation(x.snap("400", "01", "grantType"), "field grantType is not client_credentials")
	}
	for _, name := range f.unknown() {
		x.violation("field %s is unknown", name)
	}
	if r.first != nil {
		return rejectWith(*r.first)
	}
	return func() answer {
		var expiresIn any
		switch seconds := int64(c.TokenLifetime / time.Second); c.ExpiresIn {
		case ExpiresInNumber:
			expiresIn = seconds
		case ExpiresInText:
			expiresIn = strconv.FormatInt(seconds, 10)
		case ExpiresInAbsent:
		}
		return jsonAnswer(http.StatusOK, "2007300", struct {
			snapHead
			AccessToken string `json:"accessToken"`
			TokenType   string `json:"tokenType"`
			ExpiresIn   any    `json:"expiresIn,omitempty"`
		}{snapHead{"2007300", "Successful"}, s.issueToken(Paydia, x.now, c.TokenLifetime), "Bearer", expiresIn})
	}
}

func rsaVerifies(key *rsa.PublicKey, text, signature string) bool {
	raw, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || key == nil {
		return false
	}
	sum := sha256.Sum256([]byte(text))
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], raw) == nil
}

// symmetricSignature returns the X-SIGNATURE of a payment or query (docs/gateways.md 2.4).
// It covers the exact bytes of the body, and the path with its /snap prefix.
func symmetricSignature(secret, method, path, accessToken string, body []byte, timestamp string) string {
	sum := sha256.Sum256(body)
	mac := hmac.New(sha512.New, []byte(secret))
	mac.Write([]byte(method + ":" + path + ":" + accessToken + ":" + hex.EncodeToString(sum[:]) + ":" + timestamp))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// transactional checks the eight headers of a payment or query (Paydia "Auth Payment",
// header table), then calls the validator of the body. It calls it even if a header is
// wrong, to record the other violations.
func (s *Sim) transactional(validate func(*exchange, *rejections) action) validator {
	return func(x *exchange) action {
		c := s.config.Paydia
		r := &rejections{x: x}
		timestamp := r.commonHeaders(c)
		partner := r.mandatoryHeader("X-PARTNER-ID", 36)
		x.externalID = r.mandatoryHeader("X-EXTERNAL-ID", 36)
		if x.externalID != "" && !isDigits(x.externalID, 1, 36) {
			r.rejectViolation(x.snap("400", "01", "X-EXTERNAL-ID"), "header X-EXTERNAL-ID is not numeric")
		}
		r.mandatoryHeader("CHANNEL-ID", 5)
		signature := r.mandatoryHeader("X-SIGNATURE", 0)
		accessToken := s.checkB2BToken(r)
		if partner != "" && partner != c.ClientID {
			r.rejectViolation(x.snap("401", "00", "Unknown Client"), "header X-PARTNER-ID is not the client id")
		}
		want := symmetricSignature(c.ClientSecret, x.Method, x.URL.EscapedPath(), accessToken, x.payload, timestamp)
		if signature != "" && accessToken != "" && signature != want {
			x.violation("header X-SIGNATURE is wrong")
			if !c.IgnoreSignature {
				r.add(x.snap("401", "00", "Signature"))
			}
		}
		s.checkCustomerToken(r)
		s.checkExternalID(r)
		process := validate(x, r)
		if r.first != nil {
			return rejectWith(*r.first)
		}
		return process
	}
}

// checkB2BToken checks the B2B token. It returns the token, valid or not: the signature
// covers it.
func (s *Sim) checkB2BToken(r *rejections) string {
	if r.mandatoryHeader("Authorization", 0) == "" {
		return ""
	}
	accessToken, ok := s.checkBearer(r.x, Paydia)
	if !ok {
		r.add(r.x.snap("401", "01", ""))
	}
	return accessToken
}

// checkCustomerToken checks Authorization-Customer. A token that is not accepted is no
// violation: the order system chose it, not the client.
func (s *Sim) checkCustomerToken(r *rejections) {
	c := s.config.Paydia
	value := r.mandatoryHeader("Authorization-Customer", 0)
	if value == "" {
		return
	}
	text, prefixed := strings.CutPrefix(value, "Bearer ")
	if (prefixed && c.CustomerPrefix == CustomerRaw) || (!prefixed && c.CustomerPrefix == CustomerBearer) {
		r.rejectViolation(r.x.snap("401", "02", ""), "header Authorization-Customer does not have the form %q", c.CustomerPrefix)
	}
	if len(c.CustomerTokens) > 0 && !slices.Contains(c.CustomerTokens, text) {
		r.add(r.x.snap("401", "04", ""))
	}
}

// checkExternalID rejects an X-EXTERNAL-ID that was used before on the same day in Jakarta,
// by any operation. A request uses its id even if it is not answered.
func (s *Sim) checkExternalID(r *rejections) {
	x := r.x
	if x.externalID == "" {
		return
	}
	key := x.now.In(jakarta).Format(time.DateOnly) + " " + x.externalID
	if before, used := s.externalIDs[key]; used {
		r.rejectViolation(x.snap("409", "00", ""), "X-EXTERNAL-ID %s was already used today, by %s", x.externalID, before)
		return
	}
	s.externalIDs[key] = x.op
}

// readBody parses the body of a payment or query and reads its fields. The answer to a
// missing field is 400xx02, to a malformed one 400xx01, with the field's name.
func (r *rejections) readBody(read func(*fields)) {
	x := r.x
	f, ok := readFields(x.payload)
	if !ok {
		r.rejectViolation(x.snap("400", "00", ""), "body is not a JSON object")
		return
	}
	read(f)
	for _, name := range f.unknown() {
		x.violation("field %s is unknown", name)
	}
	x.addFieldViolations(*f.wrong)
	for _, w := range *f.wrong {
		if w.missing {
			r.add(x.snap("400", "02", w.name))
		} else {
			r.add(x.snap("400", "01", w.name))
		}
	}
}

// paydiaPayment checks Auth Payment's body (Paydia "Auth Payment", body table).
func (s *Sim) paydiaPayment(x *exchange, r *rejections) action {
	row := &paydiaRow{}
	var merchant string
	r.readBody(func(f *fields) {
		row.reference = f.text("partnerReferenceNo", 64)
		merchant = f.text("merchantId", 64)
		money := f.object("amount")
		row.amount = snapAmount{money.text("value", 19), money.text("currency", 3)}
		whole, sen, _ := strings.Cut(row.amount.Value, ".")
		if row.amount.Value != "" && (!isDigits(whole, 1, 16) || !isDigits(sen, 2, 2)) {
			money.malformed("value")
		}
		if row.amount.Currency != "" && row.amount.Currency != "IDR" {
			money.malformed("currency")
		}
		for _, name := range money.unknown() {
			x.violation("field amount.%s is unknown", name)
		}
		f.text("title", 256)
	})
	return func() answer {
		if merchant != s.config.Paydia.MerchantID {
			return x.snap("404", "08", "")
		}
		return s.createPayment(x, row)
	}
}

// createPayment creates the payment, or refuses it.
func (s *Sim) createPayment(x *exchange, row *paydiaRow) answer {
	old := s.paydia.byReference[row.reference]
	if old != nil && !old.visible.After(x.now) {
		return x.snap("409", "01", "")
	}
	if r, ok := s.refusal(Paydia, row.reference, row.amount.rupiah()); ok {
		return snapError(x.op, r.Code, "")
	}
	if row.amount.rupiah() == 0 {
		return x.snap("403", "02", "")
	}
	sum := sha256.Sum256([]byte("reference " + strconv.FormatUint(s.config.Seed, 10) + row.reference))
	row.referenceNo = hex.EncodeToString(sum[:])
	customer := s.customer(Paydia, row.reference)
	row.lifecycle = lifecycle{
		customer: customer, created: x.now, visible: x.now.Add(x.visibleAfter),
		agreed: !x.pending && (customer.Behaviour == Pays || customer.Behaviour == Refunds),
	}
	// If there is an older request, it has not been processed yet. When it is, Paydia finds
	// the newer row and refuses it: only the newer one remains.
	s.paydia.rows = slices.DeleteFunc(s.paydia.rows, func(p *paydiaRow) bool { return p == old })
	s.paydia.rows = append(s.paydia.rows, row)
	s.paydia.byReference[row.reference] = row
	if !row.agreed {
		return x.snap("202", "00", "")
	}
	return jsonAnswer(http.StatusOK, "2006300", s.withSpelling(Paydia, row.reference, struct {
		snapHead
		ReferenceNo        string     `json:"referenceNo"`
		PartnerReferenceNo string     `json:"partnerReferenceNo"`
		Amount             snapAmount `json:"amount"`
		PaidTime           string     `json:"paidTime"`
	}{
		snapHead{"2006300", "Request has been processed successfully"},
		row.referenceNo, row.reference, row.amount, s.paidTime(x.now),
	}))
}

// paidTime formats a time as in the vendor's sample: Jakarta time with the wrong sign of
// the offset, unless CorrectPaidTime is set.
func (s *Sim) paidTime(t time.Time) string {
	text := t.In(jakarta).Format("2006-01-02T15:04:05")
	if s.config.Paydia.CorrectPaidTime {
		return text + "+07:00"
	}
	return text + "-07:00"
}

// status returns the state, the latestTransactionStatus (docs/gateways.md 2.7), and the
// time since which they hold.
func (p *paydiaRow) status(now time.Time) (State, string, time.Time) {
	state, since := p.stateAt(now)
	return state, map[State]string{Paid: "00", Open: "03", Refunded: "04", Cancelled: "05", Failed: "06"}[state], since
}

func (p *paydiaRow) toRow(now time.Time) Row {
	state, status, _ := p.status(now)
	return Row{
		Gateway: Paydia, Reference: p.reference, GatewayReference: p.referenceNo, Amount: p.amount.rupiah(),
		State: state, GatewayStatus: status, CreatedAt: p.created, VisibleAt: p.visible,
	}
}

// queryAnswer is the answer of Payment Query (docs/gateways.md 2.7).
type queryAnswer struct {
	snapHead
	Partner      string      `json:"originalPartnerReferenceNo,omitempty"`
	LowerPartner string      `json:"originalpartnerReferenceNo,omitempty"`
	ReferenceNo  string      `json:"originalReferenceNo,omitempty"`
	Amount       *snapAmount `json:"amount,omitempty"`
	PaidTime     string      `json:"paidTime,omitempty"`
	Status       string      `json:"latestTransactionStatus"`
	Desc         string      `json:"transactionStatusDesc"`
}

// paydiaQuery checks Payment Query's body.
func (s *Sim) paydiaQuery(x *exchange, r *rejections) action {
	var reference, referenceNo, merchant string
	c := s.config.Paydia
	r.readBody(func(f *fields) {
		reference = f.text("originalPartnerReferenceNo", 64)
		merchant = f.text("merchantId", 64)
		referenceNo = f.optionalText("originalReferenceNo", 64)
	})
	return func() answer {
		// No violation: after a lost answer the caller does not have the reference number.
		if c.RequireReferenceNo && referenceNo == "" {
			return x.snap("400", "02", "originalReferenceNo")
		}
		if merchant != c.MerchantID {
			return x.snap("404", "08", "")
		}
		head := snapHead{"2006400", "Request has been processed successfully"}
		body := queryAnswer{snapHead: head, Partner: reference}
		if c.LowerCasePartner {
			body.Partner, body.LowerPartner = "", reference
		}
		p := s.paydia.byReference[reference]
		switch {
		case p == nil || p.visible.After(x.now):
			if !c.NotFoundAs07 {
				return x.snap("404", "01", "")
			}
			body.Status, body.Desc = "07", "Not Found"
			return jsonAnswer(http.StatusOK, head.Code, body)
		case referenceNo != "" && referenceNo != p.referenceNo:
			return x.snap("404", "18", "")
		case x.pending:
			return x.snap("202", "00", "")
		}
		state, status, since := p.status(x.now)
		body.ReferenceNo, body.Amount, body.Status, body.Desc = p.referenceNo, &p.amount, status, string(state)
		if state == Paid || state == Refunded {
			body.PaidTime = s.paidTime(since)
		}
		return jsonAnswer(http.StatusOK, head.Code, s.withSpelling(Paydia, reference, body))
	}
}
