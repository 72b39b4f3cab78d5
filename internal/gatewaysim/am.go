package gatewaysim

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AMConfig sets how AM Digital Payment behaves.
type AMConfig struct {
	Username, Password string
	TokenLifetime      time.Duration // expires_in; the vendor's pages say 3600 s and "usually 24 hours"

	// SignatureScheme is "sha256-username-transaction-id", or "hmac-sha256" with
	// SignatureKey over the concatenated values of SignatureFields.
	SignatureScheme string
	SignatureKey    string
	SignatureFields []string
	// IgnoreSignature accepts a wrong signature (it is a violation all the same).
	IgnoreSignature bool

	// Duplicates is the answer to an existing transaction_id: the vendor documents none.
	Duplicates DuplicatePolicy
	// ListVerb is the HTTP method of list-transaction, GET, POST or any: the page names none.
	ListVerb string
	// ListOrder is the order of list-transaction: one sample on the page has descending ids.
	ListOrder ListOrder
	// MaxLimit is the largest limit of list-transaction.
	MaxLimit int
	// IDStep is the largest difference between one id and the next: ids have gaps.
	IDStep int
	// Methods are the payment methods by payment_id: 33 gets a qr_code, 37 a
	// payment_links, any other a payment_code.
	Methods map[int]string
	// StatusWords are the words of the status ids; the vendor documents those of 2 and 3 only.
	StatusWords map[int]string

	// EnvelopeUnauthorized answers a bad token with the documented 401 envelope
	// instead of Laravel's {"message":"Unauthenticated."}.
	EnvelopeUnauthorized bool
	// RedirectWithoutAccept answers errors to callers without "Accept:
	// application/json" with a redirect to an HTML page, as Laravel does.
	RedirectWithoutAccept bool
	// FreeQRIS refuses an admin_fee other than 0 for QRIS, as one integrator found.
	FreeQRIS bool
	// QRISSurcharge, in rupiah, is added to the amount in the QR code (tag 54): in one
	// sample of the vendor it differs from transaction_total.
	QRISSurcharge int64
}

// DuplicatePolicy chooses AM's answer to a transaction_id that already exists.
type DuplicatePolicy string

// The policies.
const (
	DuplicateReject DuplicatePolicy = "reject" // error:true with HTTP 200
	DuplicateSame   DuplicatePolicy = "same"   // the existing transaction, as if just created
	DuplicateSecond DuplicatePolicy = "second" // a second transaction: the customer can be charged twice
)

// ListOrder is the order of the rows of list-transaction.
type ListOrder string

// The orders.
const (
	OrderDesc      ListOrder = "desc"      // newest id first, as the vendor's sample shows
	OrderAsc       ListOrder = "asc"       // oldest id first
	OrderScrambled ListOrder = "scrambled" // pseudo-random, but always the same
)

// The payment methods with a special answer (AM "Create Transaction" and "List
// Transaction", samples).
const (
	methodQRIS  = 33
	methodGopay = 37
)

func defaultAM() AMConfig {
	return AMConfig{
		Username: "SIMULATED1", Password: "simulated-am-password", TokenLifetime: time.Hour,
		SignatureScheme: SchemeSHA256, SignatureFields: []string{"username", "transaction_id"},
		Duplicates: DuplicateReject, ListVerb: http.MethodGet, ListOrder: OrderDesc, MaxLimit: 100, IDStep: 3,
		Methods: map[int]string{22: "VIRTUAL ACCOUNT", methodQRIS: "QRIS", methodGopay: "GOPAY"},
		StatusWords: map[int]string{
			1: "Pending", 2: "On processing", 3: "Terbayar", 4: "Selesai", 5: "Dibatalkan", 6: "Refund",
			13: "Menunggu", 14: "Gagal",
		},
		RedirectWithoutAccept: true,
	}
}

// The signature schemes of AM (docs/gateways.md 1.5).
const (
	SchemeSHA256 = "sha256-username-transaction-id"
	SchemeHMAC   = "hmac-sha256"
)

// ListMotion changes AM's list after every request for one of its pages, so that rows move
// between pages while a caller reads them.
type ListMotion struct {
	NewRows  int `json:"new_rows"`  // number of other transactions to create
	PaidRows int `json:"paid_rows"` // number of other open transactions that become paid, newest first
	Requests int `json:"requests"`  // stop after this number of requests; 0: never
}

// SetListMotion starts changing the list; the zero value stops it.
func (s *Sim) SetListMotion(m ListMotion) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listMotion = m
}

// AddOtherTransactions adds n transactions to AM that no caller created. Their creation times
// are spread evenly over the span before now. All have the customer c: with Pays they are paid
// already, with NeverPays they stay open.
func (s *Sim) AddOtherTransactions(n int, span time.Duration, c Customer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for i := range n {
		s.addOther(now.Add(span*time.Duration(i-n)/time.Duration(n)), c)
	}
}

type amStore struct {
	rows   []*amRow // by id, ascending
	byID   map[int64]*amRow
	lastID int64
	others int
}

func newAMStore() amStore { return amStore{byID: map[int64]*amRow{}} }

// amRow is one transaction at AM.
type amRow struct {
	lifecycle

	id        int64
	method    int
	reference string
	amount    int64
	expired   string
	name      string
	desc      string
	number    string
	payer     string
	email     string
	items     []amItem
	other     bool
}

// amItem is one line of item_details. In answers every value is a string (AM "Create
// Transaction", response).
type amItem struct {
	ID       string `json:"item_id"`
	Price    string `json:"item_price"`
	Quantity string `json:"item_quantity"`
	Total    string `json:"item_total_price"`
	Name     string `json:"item_name"`
}

// amData is a transaction in AM's answers (AM "Create Transaction", response;
// customer_email by docs.amdigipay.com).
type amData struct {
	ID            int64    `json:"id"`
	PaymentID     int      `json:"payment_id"`
	PaymentName   string   `json:"payment_name"`
	StatusID      int      `json:"status_id"`
	Status        string   `json:"status"`
	TransactionID string   `json:"transaction_id"`
	Total         string   `json:"transaction_total"`
	ExpiredDate   string   `json:"expired_date"`
	Name          string   `json:"transaction_name"`
	Desc          string   `json:"transaction_desc"`
	Number        string   `json:"customer_number"`
	CustomerName  string   `json:"customer_name"`
	Email         string   `json:"customer_email,omitempty"`
	PaymentLinks  *string  `json:"payment_links"`
	PaymentCode   *string  `json:"payment_code"`
	QRCode        *string  `json:"qr_code"`
	Items         []amItem `json:"item_details"`
}

// amEnvelope is the body of AM's successes and refusals.
type amEnvelope struct {
	Error   bool   `json:"error"`
	Message string `json:"message"`
	Data    any    `json:"data"`
}

func amSuccess(message string, data any) answer {
	return jsonAnswer(http.StatusOK, message, amEnvelope{Message: message, Data: data})
}

// amRefusal returns a business refusal: error:true with HTTP 200 (docs/gateways.md 1.4).
func amRefusal(message string) answer {
	return jsonAnswer(http.StatusOK, message, amEnvelope{Error: true, Message: message})
}

// amError returns an answer with the other envelope, that of the documented 401 and 500.
func amError(status int, message string) answer {
	return jsonAnswer(status, message, struct {
		Status  string `json:"status"`
		Message string `json:"message"`
		Data    any    `json:"data"`
	}{"error", message, nil})
}

func (s *Sim) routeAM() {
	s.mux.Handle("/api/login", s.serve(AMLogin, s.amLogin))
	s.mux.Handle("/api/payment/transaction", s.serve(AMCreate, s.authenticated(s.amCreate)))
	s.mux.Handle("/api/payment/list-transaction", s.serve(AMList, s.authenticated(s.amList)))
	s.mux.Handle("/api/payment/detail-transaction/{id}", s.serve(AMDetail, s.authenticated(s.amDetail)))
	s.mux.Handle("/api/payment/payment-list", s.serve(AMPaymentList, s.authenticated(s.amPaymentList)))
}

// amLogin checks a login. It accepts JSON, as documented, and forms, as integrators send.
func (s *Sim) amLogin(x *exchange) action {
	if a, ok := x.checkMethod(http.MethodPost); !ok {
		return rejectWith(a)
	}
	var username, password string
	switch x.mediaType() {
	case "application/json":
		f, ok := readFields(x.payload)
		if !ok {
			x.violation("body is not a JSON object")
			return rejectWith(s.invalid(x, []wrongField{{"username", true}, {"password", true}}))
		}
		username, password = f.text("username", 255), f.text("password", 255)
		if len(*f.wrong) > 0 {
			x.addFieldViolations(*f.wrong)
			return rejectWith(s.invalid(x, *f.wrong))
		}
	case "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(x.payload))
		if err != nil {
			x.violation("body is not a form")
		}
		username, password = form.Get("username"), form.Get("password")
	default:
		x.violation("header Content-Type is neither JSON nor a form")
	}
	if username != s.config.AM.Username || password != s.config.AM.Password {
		x.violation("wrong username or password")
		return rejectWith(amError(http.StatusUnauthorized, "Invalid username or password"))
	}
	return func() answer {
		lifetime := s.config.AM.TokenLifetime
		return amSuccess("Login success", struct {
			AccessToken string `json:"access_token"`
			TokenType   string `json:"token_type"`
			ExpiresIn   int64  `json:"expires_in"`
		}{s.issueToken(AM, x.now, lifetime), "bearer", int64(lifetime / time.Second)})
	}
}

// authenticated rejects requests without a valid token. It calls the validator in any case,
// to record the other violations of the request.
func (s *Sim) authenticated(validate validator) validator {
	return func(x *exchange) action {
		_, ok := s.checkBearer(x, AM)
		process := validate(x)
		if ok {
			return process
		}
		if s.config.AM.EnvelopeUnauthorized {
			return rejectWith(amError(http.StatusUnauthorized, "Invalid username or password"))
		}
		if s.redirects(x) {
			return rejectWith(redirect("/login"))
		}
		return rejectWith(laravel(http.StatusUnauthorized, "Unauthenticated."))
	}
}

// redirects reports whether Laravel answers an error of this request with a redirect to an
// HTML page instead of JSON.
func (s *Sim) redirects(x *exchange) bool {
	return s.config.AM.RedirectWithoutAccept && !strings.Contains(x.Header.Get("Accept"), "application/json")
}

func redirect(location string) answer {
	a := htmlPage(http.StatusFound)
	a.location = location
	return a
}

func (x *exchange) mediaType() string {
	mediaType, _, err := mime.ParseMediaType(x.header("Content-Type"))
	if err != nil {
		return ""
	}
	return mediaType
}

// invalid returns Laravel's 422.
func (s *Sim) invalid(x *exchange, wrong []wrongField) answer {
	if s.redirects(x) {
		return redirect("/")
	}
	errs := map[string][]string{}
	for _, w := range wrong {
		format := "The %s format is invalid."
		if w.missing {
			format = "The %s field is required."
		}
		errs[w.name] = append(errs[w.name], fmt.Sprintf(format, w.name))
	}
	return jsonAnswer(http.StatusUnprocessableEntity, "The given data was invalid.", struct {
		Message string              `json:"message"`
		Errors  map[string][]string `json:"errors"`
	}{"The given data was invalid.", errs})
}

// amLimit is the default length of a text column in Laravel. The vendor's page documents no
// limit.
const amLimit = 255

// amCreate checks create-transaction (AM "Create Transaction", example request; the page's
// table of parameters is a copy of the login page's).
func (s *Sim) amCreate(x *exchange) action {
	if a, ok := x.checkMethod(http.MethodPost); !ok {
		return rejectWith(a)
	}
	f, ok := readFields(x.payload)
	if !ok {
		x.violation("body is not a JSON object")
	}
	if x.mediaType() != "application/json" {
		x.violation("header Content-Type is not application/json")
		ok = false // Laravel parses no field of such a body
	}
	if !ok {
		return rejectWith(s.invalid(x, []wrongField{{"transaction_id", true}}))
	}
	row := &amRow{
		method:    int(f.number("payment_id")),
		reference: f.text("transaction_id", amLimit),
		amount:    f.number("transaction_total"),
		expired:   f.text("expired_date", amLimit),
		name:      f.text("transaction_name", amLimit),
		desc:      f.optionalText("transaction_desc", amLimit),
		number:    f.text("customer_number", amLimit),
		payer:     f.text("customer_name", amLimit),
		email:     f.optionalText("customer_email", amLimit),
	}
	username, signature := f.text("username", amLimit), f.text("signature", amLimit)
	nominal, fee := f.number("nominal"), f.number("admin_fee")
	sum := row.readItems(f)
	expires, err := time.ParseInLocation(time.DateTime, row.expired, jakarta)
	if err != nil && row.expired != "" {
		f.malformed("expired_date")
	}
	row.expires = expires
	if signature != "" && (len(signature) != 64 || strings.Trim(signature, "0123456789abcdef") != "") {
		f.malformed("signature")
	}
	for _, name := range f.unknown() {
		x.violation("field %s is unknown", name)
	}
	if len(*f.wrong) > 0 {
		x.addFieldViolations(*f.wrong)
		return rejectWith(s.invalid(x, *f.wrong))
	}

	var refusal string // the first one is the answer
	wrong := func(message string) {
		x.violation("%s", message)
		refusal = cmp.Or(refusal, message)
	}
	if username != s.config.AM.Username {
		wrong("Invalid username")
	}
	if signature != s.amSignature(f) {
		x.violation("signature is wrong")
		if !s.config.AM.IgnoreSignature {
			refusal = cmp.Or(refusal, "Invalid signature")
		}
	}
	if _, known := s.config.AM.Methods[row.method]; !known {
		wrong("Payment method not found")
	}
	if row.amount != nominal+fee || row.amount == 0 {
		wrong("transaction_total is not nominal + admin_fee")
	}
	if row.amount != sum {
		wrong("transaction_total is not the sum of item_details")
	}
	if s.config.AM.FreeQRIS && row.method == methodQRIS && fee != 0 {
		wrong("admin_fee must be 0 for QRIS")
	}
	if refusal != "" {
		return rejectWith(amRefusal(refusal))
	}
	return func() answer { return s.createTransaction(x, row) }
}

// readItems reads item_details and returns the sum of its lines.
func (t *amRow) readItems(f *fields) int64 {
	var sum int64
	for _, item := range f.objects("item_details") {
		price, quantity, total := item.number("item_price"), item.number("item_quantity"), item.number("item_total_price")
		if total != price*quantity {
			item.malformed("item_total_price")
		}
		sum += total
		t.items = append(t.items, amItem{
			ID:       item.text("item_id", amLimit),
			Price:    strconv.FormatInt(price, 10),
			Quantity: strconv.FormatInt(quantity, 10),
			Total:    strconv.FormatInt(total, 10),
			Name:     item.text("item_name", amLimit),
		})
		for _, name := range item.unknown() {
			item.malformed(name)
		}
	}
	return sum
}

// amSignature returns the correct signature of a request (docs/gateways.md 1.5).
func (s *Sim) amSignature(f *fields) string {
	c := s.config.AM
	if c.SignatureScheme == SchemeHMAC {
		mac := hmac.New(sha256.New, []byte(c.SignatureKey))
		for _, name := range c.SignatureFields {
			mac.Write([]byte(f.asText(name)))
		}
		return hex.EncodeToString(mac.Sum(nil))
	}
	return sha256Signature(c.Username, f.asText("transaction_id"))
}

func sha256Signature(username, transactionID string) string {
	sum := sha256.Sum256([]byte(username + transactionID))
	return hex.EncodeToString(sum[:])
}

// createTransaction creates the row, or answers as configured if the id already exists.
func (s *Sim) createTransaction(x *exchange, row *amRow) answer {
	if r, ok := s.refusal(AM, row.reference, row.amount); ok {
		return amRefusal(r.Code)
	}
	same := func(old *amRow) bool { return old.reference == row.reference }
	if i := slices.IndexFunc(s.am.rows, same); i >= 0 && s.config.AM.Duplicates != DuplicateSecond {
		old := s.am.rows[i]
		switch {
		case old.visible.After(x.now):
			// The older request has not been processed yet. When it is, AM finds the
			// newer row and refuses it: only the newer one remains.
			s.am.rows = slices.Delete(s.am.rows, i, i+1)
			delete(s.am.byID, old.id)
		case s.config.AM.Duplicates == DuplicateSame:
			return amSuccess("success", s.amObject(old, x.now))
		default:
			return amRefusal("transaction_id already exists")
		}
	}
	row.lifecycle = lifecycle{
		customer: s.customer(AM, row.reference), created: x.now, visible: x.now.Add(x.visibleAfter), expires: row.expires,
	}
	s.insertAM(row)
	if x.pending {
		return jsonAnswer(http.StatusAccepted, "processing", amEnvelope{Message: "processing"})
	}
	return amSuccess("success", s.amObject(row, x.now))
}

// insertAM gives a row the next id and stores it.
func (s *Sim) insertAM(row *amRow) {
	s.am.lastID += 1 + int64(s.chance("id", s.am.lastID)*float64(s.config.AM.IDStep))
	row.id = s.am.lastID
	s.am.rows = append(s.am.rows, row)
	s.am.byID[row.id] = row
}

func (s *Sim) addOther(created time.Time, c Customer) {
	s.am.others++
	created = created.Truncate(time.Second)
	amount := int64(10_000 + 250*(s.am.others%40))
	price := strconv.FormatInt(amount, 10)
	s.insertAM(&amRow{
		lifecycle: lifecycle{customer: c, created: created, visible: created, expires: created.Add(24 * time.Hour)},
		method:    methodQRIS,
		reference: fmt.Sprintf("OTHER-%d", s.am.others),
		amount:    amount,
		expired:   created.Add(24 * time.Hour).In(jakarta).Format(time.DateTime),
		name:      "testing", desc: "testing", number: "08567462363", payer: "testing",
		items: []amItem{{"testing", price, "1", price, "testing"}},
		other: true,
	})
}

// moveList applies the ListMotion after a page was read.
func (s *Sim) moveList(now time.Time) {
	motion := s.listMotion
	switch {
	case motion.Requests == 1:
		s.listMotion = ListMotion{}
	case motion.Requests > 1:
		s.listMotion.Requests--
	}
	for range motion.NewRows {
		s.addOther(now, Customer{Behaviour: NeverPays})
	}
	left := motion.PaidRows
	for _, t := range slices.Backward(s.am.rows) {
		if left == 0 {
			return
		}
		if t.other && t.customer.Behaviour == NeverPays {
			t.customer = Customer{Behaviour: Pays, After: now.Sub(t.created)}
			left--
		}
	}
}

// status returns a row's state and status id at the given time.
func (t *amRow) status(now time.Time) (State, int) {
	state, _ := t.stateAt(now)
	if id := t.customer.StatusID; id != 0 && (state != Open || t.customer.Behaviour == NeverPays) {
		return state, id
	}
	return state, map[State]int{Open: 2, Paid: 3, Cancelled: 5, Refunded: 6, Failed: 14}[state]
}

func (s *Sim) statusWord(id int) string {
	return cmp.Or(s.config.AM.StatusWords[id], "Status "+strconv.Itoa(id))
}

func (s *Sim) amData(t *amRow, now time.Time) amData {
	_, id := t.status(now)
	d := amData{
		ID: t.id, PaymentID: t.method, PaymentName: s.config.AM.Methods[t.method], StatusID: id, Status: s.statusWord(id),
		TransactionID: t.reference, Total: strconv.FormatInt(t.amount, 10), ExpiredDate: t.expired,
		Name: t.name, Desc: t.desc, Number: t.number, CustomerName: t.payer, Email: t.email, Items: t.items,
	}
	switch t.method {
	case methodQRIS:
		number := t.created.In(jakarta).Format("0601021504") + fmt.Sprintf("%04d", t.id%10_000)
		code := qris(t.id, t.reference, t.amount+s.config.AM.QRISSurcharge, number)
		d.QRCode = &code
	case methodGopay:
		link := fmt.Sprintf("https://app.midtrans.com/snap/v3/redirection/%08x-0000-4000-8000-%012x", s.config.Seed, t.id)
		d.PaymentLinks = &link
	default:
		code := fmt.Sprintf("8808%012d", t.id)
		d.PaymentCode = &code
	}
	return d
}

// amObject returns a row as a JSON object of an answer.
func (s *Sim) amObject(t *amRow, now time.Time) any {
	return s.withSpelling(AM, t.reference, s.amData(t, now))
}

func (s *Sim) amToRow(t *amRow, now time.Time) Row {
	state, id := t.status(now)
	return Row{
		Gateway: AM, Reference: t.reference, GatewayReference: strconv.FormatInt(t.id, 10), Amount: t.amount,
		State: state, GatewayStatus: s.statusWord(id), CreatedAt: t.created, VisibleAt: t.visible,
	}
}

// amPagination is the pagination in the answer of list-transaction.
type amPagination struct {
	TotalFound  int `json:"total_found"`
	Limit       int `json:"limit"`
	CurrentPage int `json:"current_page"`
	TotalPage   int `json:"total_page"`
}

// amList checks list-transaction (AM "List Transaction"). The page requires the headers
// Content-Type and Accept.
func (s *Sim) amList(x *exchange) action {
	verbs := []string{s.config.AM.ListVerb}
	if s.config.AM.ListVerb == "any" {
		verbs = []string{http.MethodGet, http.MethodPost}
	}
	if a, ok := x.checkMethod(verbs...); !ok {
		return rejectWith(a)
	}
	for _, name := range []string{"Content-Type", "Accept"} {
		if got := x.header(name); got != "application/json" {
			x.violation("header %s is not application/json", name)
		}
	}
	params, wrong := x.listParams()
	if len(wrong) > 0 {
		x.addFieldViolations(wrong)
		return rejectWith(s.invalid(x, wrong))
	}
	limit, page := min(cmp.Or(params["limit"], 10), s.config.AM.MaxLimit), cmp.Or(params["current_page"], 1)
	status, filtered := params["status"]
	return func() answer {
		defer s.moveList(x.now)
		found := s.visibleRows(x.now, status, filtered)
		rows := []any{}
		for i := (page - 1) * limit; i < min(page*limit, len(found)); i++ {
			rows = append(rows, s.amObject(found[i], x.now))
		}
		var echo *int
		if filtered {
			echo = &status
		}
		return jsonAnswer(http.StatusOK, "success", struct {
			Pagination any    `json:"pagination"`
			Status     *int   `json:"status"`
			Error      bool   `json:"error"`
			Message    string `json:"message"`
			Data       []any  `json:"data"`
		}{s.withSpelling(AM, "", amPagination{len(found), limit, page, max(1, (len(found)+limit-1)/limit)}), echo, false, "success", rows})
	}
}

// listParams reads status, limit and current_page from the URL and, with POST, from a JSON
// body.
func (x *exchange) listParams() (map[string]int, []wrongField) {
	texts := map[string]string{}
	for name, values := range x.URL.Query() {
		texts[name] = strings.Join(values, ",")
	}
	if len(x.payload) > 0 {
		f, ok := readFields(x.payload)
		if !ok || x.Method == http.MethodGet {
			x.violation("list-transaction has a body that is not allowed or not JSON")
			f = newFields("", nil, nil)
		}
		for name := range f.members {
			texts[name] = f.asText(name)
		}
	}
	params := map[string]int{}
	var wrong []wrongField
	for name, text := range texts {
		n, err := strconv.Atoi(text)
		switch {
		case name != "status" && name != "limit" && name != "current_page":
			x.violation("parameter %s is unknown", name)
		case err != nil || n < 1:
			wrong = append(wrong, wrongField{name: name})
		default:
			params[name] = n
		}
	}
	return params, wrong
}

// visibleRows returns the rows that AM shows at the given time, in the configured order.
func (s *Sim) visibleRows(now time.Time, status int, filtered bool) []*amRow {
	var found []*amRow
	for _, t := range s.am.rows {
		if t.visible.After(now) {
			continue
		}
		if _, id := t.status(now); !filtered || id == status {
			found = append(found, t)
		}
	}
	switch s.config.AM.ListOrder {
	case OrderAsc:
	case OrderScrambled:
		slices.SortFunc(found, func(a, b *amRow) int {
			return cmp.Compare(crc16(strconv.FormatInt(a.id, 10)), crc16(strconv.FormatInt(b.id, 10)))
		})
	default:
		slices.Reverse(found)
	}
	return found
}

func (s *Sim) amDetail(x *exchange) action {
	if a, ok := x.checkMethod(http.MethodGet); !ok {
		return rejectWith(a)
	}
	id, err := strconv.ParseInt(x.PathValue("id"), 10, 64)
	if err != nil {
		x.violation("detail-transaction needs the numeric id, not the transaction_id")
		return rejectWith(amRefusal("Transaction not found"))
	}
	return func() answer {
		row := s.am.byID[id]
		if row == nil || row.visible.After(x.now) {
			return amRefusal("Transaction not found")
		}
		return amSuccess("success", s.amObject(row, x.now))
	}
}

func (s *Sim) amPaymentList(x *exchange) action {
	if a, ok := x.checkMethod(http.MethodGet); !ok {
		return rejectWith(a)
	}
	type method struct {
		ID   int    `json:"id"`
		Name string `json:"payment_name"`
	}
	methods := []method{}
	for id, name := range s.config.AM.Methods {
		methods = append(methods, method{id, name})
	}
	slices.SortFunc(methods, func(a, b method) int { return a.ID - b.ID })
	return func() answer { return amSuccess("success", methods) }
}
