package order

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// FieldError says which field of a payment is wrong, and why. Field is its path, e.g.
// "payment.item_details[1].item_price"; empty when the whole document is wrong. Detail does
// not contain the value, which may be a customer's name or a token.
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

// FieldErrors lists all errors of one payment: first the fields that could not be parsed, in
// the order of the document, then the fields whose values are wrong. Its text as an error is
// one line.
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

// Is reports whether target is ErrLate and a passed expired_date is the only error.
func (e FieldErrors) Is(target error) bool {
	return target == ErrLate && len(e) == 1 && e[0] == late
}

// ErrLate matches the error of Parse (errors.Is) when the payment's expired_date has passed
// and nothing else is wrong. The same payment may have been accepted earlier.
var ErrLate = errors.New("its expired_date has passed")

var late = FieldError{"payment.expired_date", "has passed: the customer can no longer pay"}

// Defaults are settings that replace fields an order leaves out.
type Defaults struct {
	MerchantID string // PAYDIA_MERCHANT_ID
}

// envelope is the outer object. Payment is parsed later, when the gateway is known.
type envelope struct {
	Gateway       string         `json:"gateway"`
	CustomerToken secret.Text    `json:"customer_token"`
	Priority      string         `json:"priority"`
	Payment       jsontext.Value `json:"payment"`
}

// Parse parses and checks one payment that is submitted at the time now. Its error is a
// FieldErrors. An order with errors is still returned, as far as it could be parsed, so that
// the answer can name the payment; it is nil when not even the gateway is known.
func Parse(doc []byte, now time.Time, d Defaults) (*Order, error) {
	p := parser{at: make([]step, 0, 4)}
	var env envelope
	dec := decoders.Get().(*jsontext.Decoder)
	defer decoders.Put(dec)
	reset(dec, doc)
	if dec.PeekKind() != '{' {
		return nil, FieldErrors{notAnObject(doc)}
	}
	err := p.value(dec, reflect.ValueOf(&env).Elem())
	if err == nil {
		_, err = dec.ReadToken()
	}
	switch {
	case err == nil:
		return nil, FieldErrors{{"", "more than one JSON value: write one payment per line"}}
	case !errors.Is(err, io.EOF):
		return nil, FieldErrors{brokenJSON(doc, err)}
	}
	gateway, err := payment.ParseGateway(env.Gateway)
	if err != nil {
		switch {
		case p.hasError("gateway"):
		case env.Gateway == "":
			p.add("gateway", "is missing (want amdigipay or paydia)")
		default:
			p.add("gateway", "unknown gateway (want amdigipay or paydia)")
		}
		return nil, p.errs
	}
	o := &Order{Gateway: gateway, CustomerToken: env.CustomerToken}
	body := reflect.ValueOf(o.newBody()).Elem() // so that Key works even if the payment is missing
	switch {
	case env.Payment.Kind() == '{':
		p.at = append(p.at, step{name: "payment"})
		reset(dec, env.Payment)
		if err := p.value(dec, body); err != nil {
			return o, FieldErrors{brokenJSON(doc, err)} // unexpected: it was parsed once already
		}
		if o.Paydia != nil && o.Paydia.MerchantID == "" {
			o.Paydia.MerchantID = d.MerchantID
		}
		p.check(o, body, now)
	case !p.hasError("payment"):
		p.add("payment", "is missing or not an object")
	}
	p.checkToken(o)
	p.checkPriority(o, env.Priority)
	if len(p.errs) > 0 {
		return o, p.errs
	}
	return o, nil
}

// checkPriority sets the priority.
func (p *parser) checkPriority(o *Order, priority string) {
	switch priority {
	case "", "normal":
	case string(payment.Interactive):
		o.Priority = payment.Interactive
	default:
		p.add("priority", "must be normal or interactive")
	}
}

// Restore parses what Content returned. It does not check the values: Parse did.
func Restore(gateway payment.Gateway, content []byte) (*Order, error) {
	o := &Order{Gateway: gateway}
	if err := json.Unmarshal(content, o.newBody()); err != nil {
		return nil, fmt.Errorf("order: restore %s payment: %w", gateway, err)
	}
	return o, nil
}

// newBody sets o.AMDigiPay or o.Paydia to an empty body and returns it, to decode into.
func (o *Order) newBody() any {
	if o.Gateway == payment.Paydia {
		o.Paydia = &Paydia{}
		return o.Paydia
	}
	o.AMDigiPay = &AMDigiPay{}
	return o.AMDigiPay
}

var decoders = sync.Pool{New: func() any { return new(jsontext.Decoder) }}

// reset lets a decoder decode a document, which it does not copy. The parser detects duplicate
// names itself, and continues after them.
func reset(dec *jsontext.Decoder, doc []byte) {
	dec.Reset(bytes.NewBuffer(doc), allowDuplicateNames)
}

var allowDuplicateNames = jsontext.AllowDuplicateNames(true)

// parser parses one document and collects all errors in it. JSON libraries stop at the
// first error, and accept names in another case and numbers such as 1e4.
type parser struct {
	errs FieldErrors
	at   []step // the path of the value that is parsed
}

// step is a step of a path: to a member of an object, or, if it has no name, to an entry of an
// array. A path becomes text only for an error.
type step struct {
	name  string
	index int
}

// path returns the path of the value that is parsed.
func (p *parser) path() string {
	path := ""
	for _, s := range p.at {
		if s.name == "" {
			path = fmt.Sprintf("%s[%d]", path, s.index)
		} else {
			path = join(path, s.name)
		}
	}
	return path
}

// maxErrors bounds the answer to a malformed document of up to 1 MiB.
const maxErrors = 1000

func (p *parser) add(path, detail string) {
	switch {
	case len(p.errs) < maxErrors:
		p.errs = append(p.errs, FieldError{path, detail})
	case len(p.errs) == maxErrors:
		p.errs = append(p.errs, FieldError{"", "further errors are not listed"})
	}
}

// hasError reports whether one of the fields, an object around it or a part of it already
// has an error. Such a field is not checked further.
func (p *parser) hasError(paths ...string) bool {
	for _, e := range p.errs {
		for _, path := range paths {
			if within(e.Field, path) || within(path, e.Field) {
				return true
			}
		}
	}
	return false
}

// hasErrorAround reports whether the field or an object around it already has an error.
func (p *parser) hasErrorAround(path string) bool {
	return slices.ContainsFunc(p.errs, func(e FieldError) bool { return within(path, e.Field) })
}

// within reports whether path is whole itself or a part of it.
func within(path, whole string) bool {
	rest, ok := strings.CutPrefix(path, whole)
	return ok && (rest == "" || whole != "" && (rest[0] == '.' || rest[0] == '['))
}

// value parses the next JSON value into v. A wrong value is added to the errors; the
// returned error is about the JSON itself.
func (p *parser) value(dec *jsontext.Decoder, v reflect.Value) error {
	kind := dec.PeekKind()
	switch into := v.Addr().Interface().(type) {
	case *jsontext.Value:
		raw, err := dec.ReadValue()
		*into = raw // a part of the document, not a copy
		return err
	case *secret.Text:
		var text string
		err := p.value(dec, reflect.ValueOf(&text).Elem())
		*into = secret.NewText(text)
		return err
	}
	switch v.Kind() {
	case reflect.Struct:
		if kind == '{' {
			return p.object(dec, v)
		}
		return p.reject(dec, p.path(), "must be an object")
	case reflect.Slice:
		if kind == '[' {
			return p.list(dec, v)
		}
		return p.reject(dec, p.path(), "must be an array")
	case reflect.Int64:
		if kind != '0' {
			return p.reject(dec, p.path(), notWhole)
		}
		raw, err := dec.ReadValue()
		if err != nil {
			return err
		}
		// 1e4 and 10000.0 are whole numbers too, but a program that writes them computes in
		// floating point, and will be wrong by a rupiah one day.
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil || string(strconv.AppendInt(make([]byte, 0, 20), n, 10)) != string(raw) {
			p.add(p.path(), notWhole)
		}
		v.SetInt(n)
		return nil
	default: // a string
		if kind == 'n' {
			return dec.SkipValue() // null: as if the field were left out
		}
		if kind != '"' {
			return p.reject(dec, p.path(), "must be a string")
		}
		text, err := readString(dec)
		if err == nil {
			v.SetString(string(text))
		}
		return err
	}
}

const notWhole = "must be a whole number in plain digits, such as 13000"

// reject adds an error for the next value and skips it.
func (p *parser) reject(dec *jsontext.Decoder, path, detail string) error {
	p.add(path, detail)
	return dec.SkipValue()
}

// readString reads a string. The result may be a part of the document.
func readString(dec *jsontext.Decoder) ([]byte, error) {
	raw, err := dec.ReadValue()
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil // between the quotes
	}
	return jsontext.AppendUnquote(nil, raw)
}

// object parses an object into a struct. Unlike encoding/json it rejects names in another
// case and duplicate names.
func (p *parser) object(dec *jsontext.Decoder, v reflect.Value) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	fields := structFields[v.Type()]
	var seen [16]bool // no struct has more fields
	for dec.PeekKind() == '"' {
		name, err := readString(dec)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == string(name) })
		switch {
		case i < 0:
			err = p.reject(dec, join(p.path(), string(name)), "unknown field")
		case seen[i]:
			err = p.reject(dec, join(p.path(), fields[i].name), "given twice")
		default:
			seen[i] = true
			p.at = append(p.at, step{name: fields[i].name})
			err = p.value(dec, v.Field(i))
			p.at = p.at[:len(p.at)-1]
		}
		if err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

func (p *parser) list(dec *jsontext.Decoder, v reflect.Value) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for i := 0; dec.PeekKind() != ']' && dec.PeekKind() != 0; i++ {
		v.Grow(1)
		v.SetLen(i + 1)
		p.at = append(p.at, step{index: i})
		err := p.value(dec, v.Index(i))
		p.at = p.at[:len(p.at)-1]
		if err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// join returns the path of an object's member. A name that is long or has unusual characters
// is truncated and quoted: the client chose it.
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

// notAnObject returns the error for a document that is not an object.
func notAnObject(doc []byte) FieldError {
	dec := jsontext.NewDecoder(bytes.NewBuffer(doc), allowDuplicateNames)
	if err := dec.SkipValue(); err != nil {
		return brokenJSON(doc, err)
	}
	if dec.PeekKind() == 0 && bytes.HasPrefix(bytes.TrimSpace(doc), []byte("[")) {
		return FieldError{"", "must be a JSON object, not an array: write one payment per line (NDJSON), for example with jq -c '.[]'"}
	}
	return FieldError{"", "must be a JSON object: write one payment per line"}
}

// brokenJSON returns the error for a syntax error: the field and the byte.
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
		what = "broken JSON: unexpected end"
	case jsontext.Value(doc).IsValid(allowDuplicateNames, jsontext.AllowInvalidUTF8(true)):
		what = "a string is not valid UTF-8"
	}
	return FieldError{path, fmt.Sprintf("%s at byte %d", what, broken.ByteOffset+1)}
}

// maxItems is the maximum in the tag of AMDigiPay.ItemDetails.
const maxItems = 1000

// check checks the values of the fields that were parsed without an error.
func (p *parser) check(o *Order, body reflect.Value, now time.Time) {
	p.checkFields(body, &parser{errs: p.errs})
	if o.AMDigiPay != nil {
		p.checkSums(o.AMDigiPay)
		if !p.hasError(late.Field) && !o.ExpiresAt().After(now) {
			p.add(late.Field, late.Detail)
		}
	}
}

// checkFields checks the fields of a struct, and of all structs in it. A field that unparsed has
// an error of, because it could not be parsed, gets no second error.
func (p *parser) checkFields(v reflect.Value, unparsed *parser) {
	fields := structFields[v.Type()]
	for i := range fields {
		p.at = append(p.at, step{name: fields[i].name})
		member := v.Field(i)
		problem := fields[i].problem(member)
		switch {
		case problem != "":
			// An error in an entry of a list says nothing about the number of entries.
			if path := p.path(); member.Kind() == reflect.Slice && !unparsed.hasErrorAround(path) || !unparsed.hasError(path) {
				p.add(path, problem)
			}
		case member.Kind() == reflect.Slice:
			for i := range member.Len() {
				p.at = append(p.at, step{index: i})
				p.checkFields(member.Index(i), unparsed)
				p.at = p.at[:len(p.at)-1]
			}
		case member.Kind() == reflect.Struct:
			p.checkFields(member, unparsed)
		}
		p.at = p.at[:len(p.at)-1]
	}
}

// checkToken requires a customer token for Paydia: the header Authorization-Customer is
// mandatory (Paydia "Auth Payment", header 3). Paydia states no maximum; servers commonly
// accept headers of up to 8 KiB.
func (p *parser) checkToken(o *Order) {
	const field, longest = "customer_token", 8192
	token := o.CustomerToken.Reveal()
	switch {
	case p.hasError(field):
	case token == "" && o.Paydia != nil:
		p.add(field, "is missing or empty")
	case len(token) > longest:
		p.add(field, fmt.Sprintf("is longer than %d characters", longest))
	case !printableASCII(token) || strings.Contains(token, " "):
		p.add(field, "contains white space or other characters that an HTTP header must not contain")
	}
}

// checkSums requires total = nominal + fee = sum of the items. A sum with a number that
// already has an error is not compared, so no compared sum has overflowed.
//
// If total and nominal + fee differ, either may be wrong: the items are wrong too if their sum
// equals neither.
func (p *parser) checkSums(o *AMDigiPay) {
	const total, items = "payment.transaction_total", "payment.item_details"
	knowsTotal, knowsParts := !p.hasError(total), !p.hasError("payment.nominal", "payment.admin_fee")
	if knowsTotal && knowsParts && o.TransactionTotal != o.Nominal+o.AdminFee {
		p.add(total, "must equal nominal + admin_fee")
	}
	if len(o.ItemDetails) == 0 || len(o.ItemDetails) > maxItems {
		return
	}
	var sum payment.Rupiah
	known := knowsTotal || knowsParts
	for i, item := range o.ItemDetails {
		of := func(name string) string { return fmt.Sprintf("%s[%d].%s", items, i, name) }
		if item.ItemTotalPrice != item.ItemPrice*payment.Rupiah(item.ItemQuantity) &&
			!p.hasError(of("item_price"), of("item_quantity"), of("item_total_price")) {
			p.add(of("item_total_price"), "must equal item_price x item_quantity")
		}
		known = known && (len(p.errs) == 0 || !p.hasError(of("item_total_price")))
		sum += item.ItemTotalPrice
	}
	if known && (!knowsTotal || sum != o.TransactionTotal) && (!knowsParts || sum != o.Nominal+o.AdminFee) {
		p.add(items, "the sum of all item_total_price must equal transaction_total")
	}
}
