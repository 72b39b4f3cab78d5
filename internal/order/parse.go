package order

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/go-playground/validator/v10"

	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// FieldError says which field of a payment is wrong, and how. Field is the path
// as the order system wrote it, e.g. "payment.item_details[1].item_price". Detail
// holds nothing of the value: it may be a customer's name, or a token.
type FieldError struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

func (e FieldError) Error() string {
	if e.Field == "" {
		return e.Detail
	}
	return e.Field + ": " + e.Detail
}

// FieldErrors is everything that is wrong with one payment: first what could not be read,
// in the order in which it is written, then what does not hold. As an error it is one
// line.
type FieldErrors []FieldError

func (e FieldErrors) Error() string {
	const shown = 5
	var all []string
	for _, one := range e[:min(len(e), shown)] {
		all = append(all, one.Error())
	}
	if more := len(e) - shown; more > 0 {
		all = append(all, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, "; ")
}

// Is reports whether nothing is wrong but that the payment comes too late.
func (e FieldErrors) Is(target error) bool {
	return target == ErrLate && len(e) == 1 && e[0] == late
}

// ErrLate is what the error of Parse is when the payment's date has passed and all else
// is as it should be. The same payment may have been taken earlier.
var ErrLate = errors.New("its expired_date has passed")

var late = FieldError{"payment.expired_date", "has passed: the customer could not pay any more"}

// Defaults are values that an order may leave to the settings.
type Defaults struct {
	MerchantID string // PAYDIA_MERCHANT_ID
}

// envelope is the outer object. Its payment is decoded once the gateway is known.
type envelope struct {
	Gateway       string         `json:"gateway"`
	CustomerToken secret.Text    `json:"customer_token"`
	Payment       jsontext.Value `json:"payment"`
}

// Parse reads one payment that is submitted at the given time. On a mistake the error is
// FieldErrors, and the order is still returned as far as it was understood, so that the
// answer can name the payment; it may be nil.
func Parse(doc []byte, now time.Time, d Defaults) (*Order, error) {
	var r reading
	var env envelope
	// Names given twice are looked for by the reading itself, which goes on behind them.
	dec := jsontext.NewDecoder(bytes.NewReader(doc), jsontext.AllowDuplicateNames(true))
	if dec.PeekKind() != '{' {
		return nil, FieldErrors{notAnObject(doc)}
	}
	err := r.read(dec, "", reflect.ValueOf(&env).Elem())
	if err == nil {
		_, err = dec.ReadToken()
	}
	switch {
	case err == nil:
		return nil, FieldErrors{{"", "more than one JSON value: write one payment a line"}}
	case !errors.Is(err, io.EOF):
		return nil, FieldErrors{brokenJSON(doc, err)}
	}
	gateway, err := payment.ParseGateway(env.Gateway)
	if err != nil {
		switch {
		case r.wrong("gateway"):
		case env.Gateway == "":
			r.add("gateway", "is missing (want amdigipay or paydia)")
		default:
			r.add("gateway", "unknown gateway (want amdigipay or paydia)")
		}
		return nil, r.faults
	}
	o := &Order{Gateway: gateway, CustomerToken: env.CustomerToken}
	body := o.restore() // an empty payment of the right kind, so that Key works
	switch {
	case env.Payment.Kind() == '{':
		dec := jsontext.NewDecoder(bytes.NewReader(env.Payment), jsontext.AllowDuplicateNames(true))
		if err := r.read(dec, "payment", reflect.ValueOf(body).Elem()); err != nil {
			return o, FieldErrors{brokenJSON(doc, err)} // not to be expected: it was read once
		}
		if o.Paydia != nil && o.Paydia.MerchantID == "" {
			o.Paydia.MerchantID = d.MerchantID
		}
		r.check(o, now)
	case !r.wrong("payment"):
		r.add("payment", "is missing or not an object")
	}
	r.checkToken(o)
	if len(r.faults) > 0 {
		return o, r.faults
	}
	return o, nil
}

// Restore reads back what Content wrote. The ledger's records were checked when
// they came in, so only damage is looked for here.
func Restore(gateway payment.Gateway, content []byte) (*Order, error) {
	o := &Order{Gateway: gateway}
	if err := json.Unmarshal(content, o.restore()); err != nil {
		return nil, fmt.Errorf("order: restore %s payment: %w", gateway, err)
	}
	return o, nil
}

// restore makes the empty gateway part and returns what to decode into.
func (o *Order) restore() any {
	if o.Gateway == payment.Paydia {
		o.Paydia = &Paydia{}
		return o.Paydia
	}
	o.AMDigiPay = &AMDigiPay{}
	return o.AMDigiPay
}

// reading reads one document and notes every fault in it. JSON libraries stop at the
// first, and let names in another case and numbers such as 1e4 pass.
type reading struct {
	faults FieldErrors
}

// maxFaults bounds the answer: a document of a mebibyte has room for more mistakes than
// anybody reads.
const maxFaults = 1000

func (r *reading) add(path, detail string) {
	switch {
	case len(r.faults) < maxFaults:
		r.faults = append(r.faults, FieldError{path, detail})
	case len(r.faults) == maxFaults:
		r.faults = append(r.faults, FieldError{"", "and more that is not listed"})
	}
}

// wrong reports whether a fault was found in one of the fields, in what they are part of,
// or in a part of them: nothing more can be said of them then.
func (r *reading) wrong(paths ...string) bool {
	for _, f := range r.faults {
		for _, path := range paths {
			if within(f.Field, path) || within(path, f.Field) {
				return true
			}
		}
	}
	return false
}

// within reports whether a path is the other one, or leads to a part of it.
func within(path, whole string) bool {
	rest, ok := strings.CutPrefix(path, whole)
	return ok && (rest == "" || whole != "" && (rest[0] == '.' || rest[0] == '['))
}

// read reads the next value into v. The error is one of the JSON itself; what is wrong
// with the value is noted.
func (r *reading) read(dec *jsontext.Decoder, path string, v reflect.Value) error {
	kind := dec.PeekKind()
	switch into := v.Addr().Interface().(type) {
	case *jsontext.Value:
		raw, err := dec.ReadValue()
		*into = bytes.Clone(raw)
		return err
	case *secret.Text:
		var text string
		err := r.read(dec, path, reflect.ValueOf(&text).Elem())
		*into = secret.NewText(text)
		return err
	}
	switch v.Kind() {
	case reflect.Struct:
		if kind == '{' {
			return r.object(dec, path, v)
		}
		return r.refuse(dec, path, "is not an object")
	case reflect.Slice:
		if kind == '[' {
			return r.list(dec, path, v)
		}
		return r.refuse(dec, path, "is not a list")
	case reflect.Int64:
		if kind != '0' {
			return r.refuse(dec, path, notWhole)
		}
		raw, err := dec.ReadValue()
		if err != nil {
			return err
		}
		// Digits only: 1e4 and 10000.0 are whole numbers too, but whoever writes them counts
		// in floating point, and is wrong by a rupiah some day.
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != string(raw) {
			r.add(path, notWhole)
		}
		v.SetInt(n)
		return nil
	default: // a text
		if kind == 'n' {
			return dec.SkipValue() // as if it had been left out
		}
		if kind != '"' {
			return r.refuse(dec, path, "is not a text")
		}
		token, err := dec.ReadToken()
		if err == nil {
			v.SetString(token.String())
		}
		return err
	}
}

const notWhole = "is not a whole number in plain digits, such as 13000"

// refuse notes a fault and goes on behind the value.
func (r *reading) refuse(dec *jsontext.Decoder, path, detail string) error {
	r.add(path, detail)
	return dec.SkipValue()
}

// object reads an object into a struct. Unlike encoding/json's, its names have one
// spelling, and stand there once.
func (r *reading) object(dec *jsontext.Decoder, path string, v reflect.Value) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	fields := map[string]int{}
	for i := range v.NumField() {
		fields[jsonName(v.Type().Field(i))] = i
	}
	seen := map[string]bool{}
	for dec.PeekKind() == '"' {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		name := token.String()
		at := join(path, name)
		field, known := fields[name]
		switch {
		case !known:
			err = r.refuse(dec, at, "unknown field")
		case seen[name]:
			err = r.refuse(dec, at, "given twice")
		default:
			seen[name] = true
			err = r.read(dec, at, v.Field(field))
		}
		if err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

func (r *reading) list(dec *jsontext.Decoder, path string, v reflect.Value) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for i := 0; dec.PeekKind() != ']' && dec.PeekKind() != 0; i++ {
		entry := reflect.New(v.Type().Elem()).Elem()
		if err := r.read(dec, fmt.Sprintf("%s[%d]", path, i), entry); err != nil {
			return err
		}
		v.Set(reflect.Append(v, entry))
	}
	_, err := dec.ReadToken()
	return err
}

// jsonName is what a field is called in JSON.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// join is the path of a member. A name that no field of ours could have is cut and
// quoted: it may hold anything.
func join(path, name string) string {
	const longest = 64
	plain := func(r rune) bool {
		return r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
	}
	if len(name) > longest || strings.TrimFunc(name, plain) != "" || name == "" {
		if runes := []rune(name); len(runes) > longest {
			name = string(runes[:longest]) + "..."
		}
		name = strconv.QuoteToASCII(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// notAnObject says what there is instead of a payment.
func notAnObject(doc []byte) FieldError {
	dec := jsontext.NewDecoder(bytes.NewReader(doc), jsontext.AllowDuplicateNames(true))
	if err := dec.SkipValue(); err != nil {
		return brokenJSON(doc, err)
	}
	if dec.PeekKind() == 0 && bytes.HasPrefix(bytes.TrimSpace(doc), []byte("[")) {
		return FieldError{"", "a JSON array and not a JSON object: write one payment a line (NDJSON), for example with jq -c '.[]'"}
	}
	return FieldError{"", "not a JSON object: write one payment a line, each an object"}
}

// brokenJSON says where the JSON breaks, and in which field.
func brokenJSON(doc []byte, err error) FieldError {
	var broken *jsontext.SyntacticError
	if !errors.As(err, &broken) {
		return FieldError{"", "broken JSON"}
	}
	path := ""
	for token := range broken.JSONPointer.Tokens() {
		if path != "" && token != "" && strings.Trim(token, "0123456789") == "" {
			path += "[" + token + "]"
		} else {
			path = join(path, token)
		}
	}
	what := "broken JSON"
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		what = "broken JSON: it ends too early,"
	case jsontext.Value(doc).IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)):
		what = "a text is not valid UTF-8"
	}
	return FieldError{path, fmt.Sprintf("%s at byte %d", what, broken.ByteOffset+1)}
}

// maxItems is as in AMDigiPay's tags. Entries of a longer list are not looked at.
const maxItems = 1000

var checks = newChecks()

func newChecks() *validator.Validate {
	v := validator.New(validator.WithRequiredStructEnabled())
	v.RegisterTagNameFunc(jsonName) // errors speak of the fields by their JSON names
	for tag, fault := range faults {
		err := v.RegisterValidation(tag, func(fl validator.FieldLevel) bool { return fault(fl.Field().String()) == "" })
		if err != nil {
			panic(err) // a name clash in this very map: found by the first test
		}
	}
	return v
}

// faults are the checks of our own, by their names in the tags.
var faults = map[string]func(string) string{
	"id":     idFault,
	"text":   textFault,
	"date":   dateFault,
	"rupiah": valueFault,
}

// words turns a failed check of the validator's into a sentence.
var words = map[string]string{
	"required": "is missing or empty",
	"max":      "is longer than %s",
	"min":      "has fewer entries than %s",
	"gt":       "must be given, and be more than %s",
	"gte":      "must not be less than %s",
	"lte":      "must not be more than %s",
	"email":    "is not an e-mail address",
	"eq":       "must be %s",
}

// dateFault holds a date to the form of AM's example, "2026-05-21 18:23:10". Go reads
// more than that (fractions of a second, one digit for the hour), so it has to come out
// again as it went in.
func dateFault(s string) string {
	if t, err := time.ParseInLocation(time.DateTime, s, payment.Jakarta); err != nil || t.Format(time.DateTime) != s {
		return "is not a date of the form YYYY-MM-DD HH:mm:ss (Jakarta time)"
	}
	return ""
}

// valueFault holds an amount to the form of SNAP's example, "10000.00".
func valueFault(s string) string {
	if amount, err := payment.ParseDecimal(s); err != nil || !amount.Valid() || amount.Decimal() != s {
		return "is not a whole amount of rupiah with two decimals, such as 10000.00"
	}
	return ""
}

// check looks at what was read without a fault.
func (r *reading) check(o *Order, now time.Time) {
	var body any = o.AMDigiPay
	if o.Paydia != nil {
		body = o.Paydia
	}
	var failed validator.ValidationErrors
	if err := checks.Struct(body); errors.As(err, &failed) {
		unread := reading{faults: r.faults} // one fault is enough for a field that could not be read
		for _, f := range failed {
			_, path, _ := strings.Cut(f.Namespace(), ".")
			if path = "payment." + path; !unread.wrong(path) {
				r.add(path, sentence(f))
			}
		}
	}
	if o.AMDigiPay != nil {
		r.checkSums(o.AMDigiPay)
		if !r.wrong(late.Field) && !o.ExpiresAt().After(now) {
			r.add(late.Field, late.Detail)
		}
	}
}

func sentence(f validator.FieldError) string {
	if fault, ours := faults[f.Tag()]; ours {
		return fault(f.Value().(string)) // the tag stands on texts only
	}
	detail := words[f.Tag()]
	switch {
	case f.Tag() == "max" && f.Kind() == reflect.Slice:
		return "has more entries than " + f.Param()
	case strings.Contains(detail, "%s"):
		return fmt.Sprintf(detail, f.Param())
	}
	return detail
}

// checkToken wants Paydia's customer token: Authorization-Customer is mandatory (Paydia
// "Auth Payment", header 3). It has to fit into a header: it has no stated limit, and
// what servers take for one header is 8 KiB.
func (r *reading) checkToken(o *Order) {
	const field, longest = "customer_token", 8192
	token := o.CustomerToken.Reveal()
	switch {
	case r.wrong(field):
	case token == "" && o.Paydia != nil:
		r.add(field, "is missing or empty")
	case len(token) > longest:
		r.add(field, fmt.Sprintf("is longer than %d", longest))
	case strings.IndexFunc(token, func(r rune) bool { return r < '!' || r > '~' }) >= 0:
		r.add(field, "has white space or other characters that cannot stand in a header")
	}
}

// checkSums holds AM's amounts together: total = nominal + fee = the items. Sums of
// numbers of which one is wrong already are not looked at. None can overflow: the
// numbers were held to their limits before.
func (r *reading) checkSums(p *AMDigiPay) {
	const total, items = "payment.transaction_total", "payment.item_details"
	if !r.wrong(total, "payment.nominal", "payment.admin_fee") && p.TransactionTotal != p.Nominal+p.AdminFee {
		r.add(total, "is not nominal + admin_fee")
	}
	if len(p.ItemDetails) == 0 || len(p.ItemDetails) > maxItems {
		return
	}
	var sum payment.Rupiah
	known := !r.wrong(total)
	for i, item := range p.ItemDetails {
		of := func(name string) string { return fmt.Sprintf("%s[%d].%s", items, i, name) }
		if !r.wrong(of("item_price"), of("item_quantity"), of("item_total_price")) &&
			item.ItemTotalPrice != item.ItemPrice*payment.Rupiah(item.ItemQuantity) {
			r.add(of("item_total_price"), "is not item_price x item_quantity")
		}
		known = known && !r.wrong(of("item_total_price"))
		sum += item.ItemTotalPrice
	}
	if known && sum != p.TransactionTotal {
		r.add(items, "the item_total_price do not add up to transaction_total")
	}
}
