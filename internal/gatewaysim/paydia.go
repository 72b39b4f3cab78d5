package gatewaysim

import (
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

// PaydiaConfig is how Paydia behaves.
type PaydiaConfig struct {
	ClientID, ClientSecret string
	MerchantID             string
	// PublicKey checks the signature of access-token; nil refuses every one.
	PublicKey *rsa.PublicKey
	// TokenLifetime is that of the B2B token: 24 h in the vendor's sample, 900 s usually elsewhere.
	TokenLifetime time.Duration
	// ExpiresIn is how the lifetime is told: the vendor's page is not at hand.
	ExpiresIn ExpiresIn

	// CustomerTokens are the Authorization-Customer tokens that work; empty: any.
	CustomerTokens []string
	// CustomerPrefix is what must stand before the customer token: Paydia's
	// sample shows it raw, ASPI and AstraPay want "Bearer ".
	CustomerPrefix CustomerPrefix
	// IgnoreSignature lets a wrong X-SIGNATURE pass (it is a violation all the same).
	IgnoreSignature bool
	// TimestampWindow is how far X-TIMESTAMP may be off; 0: not looked at. The
	// vendor names no window.
	TimestampWindow time.Duration
	// IgnoreStaleness lets an X-TIMESTAMP outside the window pass (it is a
	// violation all the same).
	IgnoreStaleness bool

	// RequireReferenceNo makes originalReferenceNo mandatory in Payment Query, as
	// Paydia's page says (4006402), and ASPI's does not.
	RequireReferenceNo bool
	// NotFoundAs07 answers a query for an unknown payment with 2006400 and
	// latestTransactionStatus 07 instead of 4046401.
	NotFoundAs07 bool
	// LowerCasePartner spells originalpartnerReferenceNo as ASPI's sample does.
	LowerCasePartner bool
	// CorrectPaidTime writes paidTime with +07:00, as the vendor's table says,
	// instead of -07:00, as the vendor's sample shows.
	CorrectPaidTime bool
}

// ExpiresIn is the form of expiresIn in the answer of access-token.
type ExpiresIn string

// The forms.
const (
	ExpiresInText   ExpiresIn = "text"   // "86400", as SNAP has it
	ExpiresInNumber ExpiresIn = "number" // 86400
	ExpiresInAbsent ExpiresIn = "absent" // only the token's own exp tells
)

// CustomerPrefix is a rule for Authorization-Customer.
type CustomerPrefix string

// The rules.
const (
	CustomerRaw    CustomerPrefix = "raw"    // the token alone
	CustomerBearer CustomerPrefix = "bearer" // "Bearer " and the token
	CustomerEither CustomerPrefix = "either"
)

func defaultPaydia() PaydiaConfig {
	return PaydiaConfig{
		ClientID: "5171a7ed0c11e47000000000000000c1", ClientSecret: "simulated-paydia-secret",
		MerchantID: "240327001000000", TokenLifetime: 24 * time.Hour, ExpiresIn: ExpiresInText,
		CustomerPrefix: CustomerRaw, TimestampWindow: 5 * time.Minute,
	}
}

type paydiaLedger struct {
	rows        []*paydiaRow
	byReference map[string]*paydiaRow
}

func newPaydiaLedger() paydiaLedger { return paydiaLedger{byReference: map[string]*paydiaRow{}} }

// paydiaRow is one payment at Paydia. A partnerReferenceNo exists once: the
// vendor answers 4096301 to a second.
type paydiaRow struct {
	life

	reference   string
	referenceNo string
	amount      snapAmount
}

// snapAmount is SNAP's money object.
type snapAmount struct {
	Value    string `json:"value"`
	Currency string `json:"currency"`
}

// rupiah is the whole part of an amount that was checked.
func (a snapAmount) rupiah() int64 {
	whole, _, _ := strings.Cut(a.Value, ".")
	n, _ := strconv.ParseInt(whole, 10, 64) // the format was checked
	return n
}

// serviceCode is the two digits in the middle of a response code.
func serviceCode(op Operation) string {
	return map[Operation]string{PaydiaToken: "73", PaydiaPayment: "63", PaydiaQuery: "64"}[op]
}

// snapMessages are the words of the SNAP cases, by HTTP status and case code:
// those of the vendor's page first, the rest by ASPI's list (gateways.md 3.1).
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

// snapError is an answer without a payment. Its HTTP status is the first three
// digits of the code. An empty detail leaves the message of the list alone.
func snapError(op Operation, code, detail string) answer {
	message := or(snapMessages[code[:3]+code[5:]], "Refused")
	if detail != "" && detail != message {
		message += " " + detail
	}
	status, err := strconv.Atoi(code[:3])
	if err != nil {
		panic("gatewaysim: a response code of " + string(op) + " is not seven digits")
	}
	return jsonAnswer(status, code, snapHead{code, message})
}

// snap is snapError for the operation at hand: 401 and 00 of auth-payment make
// 4016300.
func (x *exchange) snap(status, kase, detail string) answer {
	return snapError(x.op, status+serviceCode(x.op)+kase, detail)
}

func (s *Sim) routePaydia() {
	s.mux.Handle("/snap/v1.0/access-token/b2b", s.serve(PaydiaToken, s.paydiaToken))
	s.mux.Handle("/snap/v1.0/auth/payment", s.serve(PaydiaPayment, s.transactional(s.paydiaPayment)))
	s.mux.Handle("/snap/v1.0/auth/query", s.serve(PaydiaQuery, s.transactional(s.paydiaQuery)))
}

// refusals collects what is wrong with a request, in the order of checking, and
// answers with the first.
type refusals struct {
	x     *exchange
	first *answer
}

func (r *refusals) add(a answer) {
	if r.first == nil {
		r.first = &a
	}
}

// violate notes a violation and refuses for it.
func (r *refusals) violate(a answer, format string, args ...any) {
	r.x.violation(format, args...)
	r.add(a)
}

// mandatory reads a header that must be there.
func (r *refusals) mandatory(name string, limit int) string {
	value := r.x.header(name)
	switch {
	case value == "":
		r.violate(r.x.snap("400", "02", name), "header %s is missing", name)
	case limit > 0 && len(value) > limit:
		r.violate(r.x.snap("400", "01", name), "header %s is longer than %d", name, limit)
	}
	return value
}

// envelope checks what every call of Paydia must have: verb, Content-Type,
// Accept, X-TIMESTAMP.
func (r *refusals) envelope(c PaydiaConfig) (timestamp string) {
	x := r.x
	if a, ok := x.wantMethod(http.MethodPost); !ok {
		r.add(a)
	}
	if value := r.mandatory("Content-Type", 127); value != "" && value != "application/json" {
		r.violate(x.snap("400", "01", "Content-Type"), "header Content-Type is not application/json")
	}
	if x.header("Accept") != "application/json" {
		x.violation("header Accept is not application/json")
	}
	timestamp = r.mandatory("X-TIMESTAMP", 0)
	if timestamp == "" {
		return timestamp
	}
	at, err := time.Parse("2006-01-02T15:04:05-07:00", timestamp)
	if err != nil || len(timestamp) != 25 || !strings.HasSuffix(timestamp, "+07:00") {
		r.violate(x.snap("400", "01", "X-TIMESTAMP"), "header X-TIMESTAMP is not of the form YYYY-MM-DDTHH:mm:ss+07:00")
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

// paydiaToken checks access-token/b2b (gateways.md 2.2).
func (s *Sim) paydiaToken(x *exchange) processing {
	c := s.config.Paydia
	r := &refusals{x: x}
	timestamp := r.envelope(c)
	clientKey, signature := r.mandatory("X-CLIENT-KEY", 0), r.mandatory("X-SIGNATURE", 0)
	switch {
	case clientKey != "" && clientKey != c.ClientID:
		r.violate(x.snap("401", "00", "Unknown Client"), "header X-CLIENT-KEY is not the client id")
	case signature != "" && !rsaVerifies(c.PublicKey, clientKey+"|"+timestamp, signature):
		x.violation("header X-SIGNATURE is wrong")
		if !c.IgnoreSignature {
			r.add(x.snap("401", "00", "Signature"))
		}
	}
	f, ok := readFields(x.payload)
	if !ok {
		r.violate(x.snap("400", "00", ""), "body is not a JSON object")
		f = newFields("", nil, &[]wrongField{})
	} else if f.text("grantType", 64) != "client_credentials" {
		r.violate(x.snap("400", "01", "grantType"), "field grantType is not client_credentials")
	}
	for _, name := range f.strangers() {
		x.violation("field %s is unknown", name)
	}
	if r.first != nil {
		return refused(*r.first)
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

// symmetricSignature is X-SIGNATURE of a transactional call (gateways.md 2.4):
// over the exact bytes of the body, and the path with its /snap prefix.
func symmetricSignature(secret, method, path, accessToken string, body []byte, timestamp string) string {
	sum := sha256.Sum256(body)
	mac := hmac.New(sha512.New, []byte(secret))
	mac.Write([]byte(method + ":" + path + ":" + accessToken + ":" + hex.EncodeToString(sum[:]) + ":" + timestamp))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// transactional checks the eight headers (Paydia "Auth Payment", header table)
// before an examiner of the body. The examiner runs in any case: what else is
// wrong is noted too.
func (s *Sim) transactional(examine func(*exchange, *refusals) processing) examiner {
	return func(x *exchange) processing {
		c := s.config.Paydia
		r := &refusals{x: x}
		timestamp := r.envelope(c)
		partner := r.mandatory("X-PARTNER-ID", 36)
		x.externalID = r.mandatory("X-EXTERNAL-ID", 36)
		if x.externalID != "" && !isDigits(x.externalID, 1, 36) {
			r.violate(x.snap("400", "01", "X-EXTERNAL-ID"), "header X-EXTERNAL-ID is not numeric")
		}
		r.mandatory("CHANNEL-ID", 5)
		signature := r.mandatory("X-SIGNATURE", 0)
		accessToken := s.checkB2B(r)
		if partner != "" && partner != c.ClientID {
			r.violate(x.snap("401", "00", "Unknown Client"), "header X-PARTNER-ID is not the client id")
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
		process := examine(x, r)
		if r.first != nil {
			return refused(*r.first)
		}
		return process
	}
}

// checkB2B checks the B2B token and returns it, working or not, for the
// signature.
func (s *Sim) checkB2B(r *refusals) string {
	if r.mandatory("Authorization", 0) == "" {
		return ""
	}
	accessToken, ok := s.bearer(r.x, Paydia)
	if !ok {
		r.add(r.x.snap("401", "01", ""))
	}
	return accessToken
}

// checkCustomerToken applies the rule for Authorization-Customer. A token that
// is merely not accepted is no violation: it comes from the order system.
func (s *Sim) checkCustomerToken(r *refusals) {
	c := s.config.Paydia
	value := r.mandatory("Authorization-Customer", 0)
	if value == "" {
		return
	}
	text, prefixed := strings.CutPrefix(value, "Bearer ")
	if (prefixed && c.CustomerPrefix == CustomerRaw) || (!prefixed && c.CustomerPrefix == CustomerBearer) {
		r.violate(r.x.snap("401", "02", ""), "header Authorization-Customer does not follow the rule %q", c.CustomerPrefix)
	}
	if len(c.CustomerTokens) > 0 && !slices.Contains(c.CustomerTokens, text) {
		r.add(r.x.snap("401", "04", ""))
	}
}

// checkExternalID holds X-EXTERNAL-ID to once a Jakarta day, over all kinds of
// message. Every request that arrives uses its id up, answered or not.
func (s *Sim) checkExternalID(r *refusals) {
	x := r.x
	if x.externalID == "" {
		return
	}
	key := x.now.In(jakarta).Format(time.DateOnly) + " " + x.externalID
	if before, used := s.externals[key]; used {
		r.violate(x.snap("409", "00", ""), "X-EXTERNAL-ID %s was used today already, by %s", x.externalID, before)
		return
	}
	s.externals[key] = x.op
}

// body opens a transactional body; what is wrong with its fields is answered
// 400xx02 when missing, 400xx01 when malformed, naming the field.
func (r *refusals) body(read func(*fields)) {
	x := r.x
	f, ok := readFields(x.payload)
	if !ok {
		r.violate(x.snap("400", "00", ""), "body is not a JSON object")
		return
	}
	read(f)
	for _, name := range f.strangers() {
		x.violation("field %s is unknown", name)
	}
	x.noteWrong(*f.wrong)
	for _, w := range *f.wrong {
		if w.missing {
			r.add(x.snap("400", "02", w.name))
		} else {
			r.add(x.snap("400", "01", w.name))
		}
	}
}

// paydiaPayment checks Auth Payment's body (Paydia "Auth Payment", body table).
func (s *Sim) paydiaPayment(x *exchange, r *refusals) processing {
	row := &paydiaRow{}
	var merchant string
	r.body(func(f *fields) {
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
		for _, name := range money.strangers() {
			x.violation("field amount.%s is unknown", name)
		}
		f.text("title", 256)
	})
	return func() answer {
		if merchant != s.config.Paydia.MerchantID {
			return x.snap("404", "08", "")
		}
		return s.authorise(x, row)
	}
}

// authorise is the deed: the payment is made, or refused.
func (s *Sim) authorise(x *exchange, row *paydiaRow) answer {
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
	row.life = life{
		customer: customer, created: x.now, visible: x.now.Add(x.late),
		agreed: !x.pending && (customer.Behaviour == Pays || customer.Behaviour == Refunds),
	}
	// An earlier one that is still under way will find this one when it arrives,
	// and be refused.
	s.paydia.rows = slices.DeleteFunc(s.paydia.rows, func(p *paydiaRow) bool { return p == old })
	s.paydia.rows = append(s.paydia.rows, row)
	s.paydia.byReference[row.reference] = row
	if !row.agreed {
		return x.snap("202", "00", "")
	}
	return jsonAnswer(http.StatusOK, "2006300", s.spelt(Paydia, row.reference, struct {
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

// paidTime writes a time as the vendor's sample does: Jakarta's clock with the
// wrong sign.
func (s *Sim) paidTime(t time.Time) string {
	text := t.In(jakarta).Format("2006-01-02T15:04:05")
	if s.config.Paydia.CorrectPaidTime {
		return text + "+07:00"
	}
	return text + "-07:00"
}

// status derives latestTransactionStatus from the clock (gateways.md 2.7).
func (p *paydiaRow) status(now time.Time) (State, string, time.Time) {
	state, since := p.at(now)
	return state, map[State]string{Paid: "00", Open: "03", Refunded: "04", Cancelled: "05", Failed: "06"}[state], since
}

func (p *paydiaRow) witness(now time.Time) Row {
	state, status, _ := p.status(now)
	return Row{
		Gateway: Paydia, Reference: p.reference, GatewayReference: p.referenceNo, Amount: p.amount.rupiah(),
		State: state, GatewayStatus: status, CreatedAt: p.created, VisibleAt: p.visible,
	}
}

// queryAnswer is Payment Query's answer (gateways.md 2.7).
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
func (s *Sim) paydiaQuery(x *exchange, r *refusals) processing {
	var reference, referenceNo, merchant string
	c := s.config.Paydia
	r.body(func(f *fields) {
		reference = f.text("originalPartnerReferenceNo", 64)
		merchant = f.text("merchantId", 64)
		referenceNo = f.optionalText("originalReferenceNo", 64)
	})
	return func() answer {
		// The caller cannot know the reference after a lost answer, so a strict
		// gateway's refusal is no violation.
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
		return jsonAnswer(http.StatusOK, head.Code, s.spelt(Paydia, reference, body))
	}
}
