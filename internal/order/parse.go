package order

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/go-playground/validator/v10"

	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// FieldError says which field of a payment is wrong, and how. Field is the path
// as the order system wrote it, e.g. "payment.item_details[1].item_price".
type FieldError struct {
	Field  string
	Detail string
}

func (e *FieldError) Error() string {
	if e.Field == "" {
		return e.Detail
	}
	return e.Field + ": " + e.Detail
}

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

// strict refuses what encoding/json lets pass: unknown names, names in another
// case, a name given twice, invalid UTF-8.
var strict = json.RejectUnknownMembers(true)

// Parse reads one payment. On a mistake the error is a *FieldError, and the
// order is still returned as far as it was understood, so that the answer can
// name the payment; it may be nil.
func Parse(doc []byte, d Defaults) (*Order, error) {
	var env envelope
	if err := json.Unmarshal(doc, &env, strict); err != nil {
		return nil, fieldError("", err)
	}
	if env.Gateway == "" {
		return nil, &FieldError{"gateway", "is missing (want amdigipay or paydia)"}
	}
	gateway, err := payment.ParseGateway(env.Gateway)
	if err != nil {
		return nil, &FieldError{"gateway", err.Error()}
	}
	o := &Order{Gateway: gateway, CustomerToken: env.CustomerToken}
	if len(env.Payment) == 0 || env.Payment.Kind() != '{' {
		o.restore() // an empty payment of the right kind, so that Key works
		return o, &FieldError{"payment", "is missing or not an object"}
	}
	body := o.restore()
	if err := json.Unmarshal(env.Payment, body, strict); err != nil {
		return o, fieldError("payment", err)
	}
	if o.Paydia != nil && o.Paydia.MerchantID == "" {
		o.Paydia.MerchantID = d.MerchantID
	}
	return o, o.check()
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

var checks = newChecks()

func newChecks() *validator.Validate {
	v := validator.New(validator.WithRequiredStructEnabled())
	// Errors speak of the fields by their JSON names.
	v.RegisterTagNameFunc(func(f reflect.StructField) string {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		return name
	})
	for tag, check := range map[string]validator.Func{
		"rupiah": func(fl validator.FieldLevel) bool {
			amount, err := payment.ParseDecimal(fl.Field().String())
			return err == nil && amount.Valid()
		},
		// An id goes into Redis keys, URLs, logs and signatures: it may hold any
		// printable character, but no control character and no edge of white space.
		"plain": func(fl validator.FieldLevel) bool {
			s := fl.Field().String()
			return strings.TrimSpace(s) == s && strings.IndexFunc(s, unicode.IsControl) < 0
		},
	} {
		if err := v.RegisterValidation(tag, check); err != nil {
			panic(err) // a name clash in this very map: found by the first test
		}
	}
	return v
}

// words turns a failed check into a sentence. The offending value is left out:
// it may be a customer's name, and the field's name is enough to find it.
var words = map[string]string{
	"required": "is missing or empty",
	"max":      "is longer than %s",
	"min":      "has fewer entries than %s",
	"gt":       "must be more than %s",
	"gte":      "must not be less than %s",
	"lte":      "must not be more than %s",
	"datetime": "is not a date of the form YYYY-MM-DD HH:mm:ss",
	"email":    "is not an e-mail address",
	"plain":    "has control characters, or white space at an end",
	"rupiah":   "is not a whole amount of rupiah with two decimals, such as 10000.00",
	"eq":       "must be %s",
}

func (o *Order) check() error {
	var body any = o.AMDigiPay
	if o.Paydia != nil {
		body = o.Paydia
	}
	var failed validator.ValidationErrors
	switch err := checks.Struct(body); {
	case errors.As(err, &failed):
		first := failed[0]
		_, path, _ := strings.Cut(first.Namespace(), ".")
		detail := words[first.Tag()]
		if strings.Contains(detail, "%s") {
			detail = fmt.Sprintf(detail, first.Param())
		}
		return &FieldError{"payment." + path, detail}
	case err != nil:
		return fmt.Errorf("order: check: %w", err)
	}
	if o.Paydia != nil {
		return o.checkPaydia()
	}
	return o.AMDigiPay.checkSums()
}

// checkPaydia wants the customer token: Authorization-Customer is mandatory
// (Paydia "Auth Payment", header 3). It has to fit into a header.
func (o *Order) checkPaydia() error {
	token := o.CustomerToken.Reveal()
	switch {
	case token == "":
		return &FieldError{"customer_token", "is missing or empty"}
	case len(token) > 8192:
		return &FieldError{"customer_token", "is longer than 8192"}
	case strings.IndexFunc(token, func(r rune) bool { return r < '!' || r > '~' }) >= 0:
		return &FieldError{"customer_token", "has characters that cannot stand in a header"}
	}
	return nil
}

// checkSums holds AM's amounts together: total = nominal + fee = the items.
func (p *AMDigiPay) checkSums() error {
	if p.TransactionTotal != p.Nominal+p.AdminFee {
		return &FieldError{"payment.transaction_total", fmt.Sprintf(
			"is %d, but nominal + admin_fee is %d", p.TransactionTotal, p.Nominal+p.AdminFee)}
	}
	var sum payment.Rupiah
	for i, item := range p.ItemDetails {
		if want := item.ItemPrice * payment.Rupiah(item.ItemQuantity); item.ItemTotalPrice != want {
			return &FieldError{fmt.Sprintf("payment.item_details[%d].item_total_price", i), fmt.Sprintf(
				"is %d, but item_price x item_quantity is %d", item.ItemTotalPrice, want)}
		}
		sum += item.ItemTotalPrice
	}
	if sum != p.TransactionTotal {
		return &FieldError{"payment.item_details", fmt.Sprintf(
			"the item_total_price add up to %d, but transaction_total is %d", sum, p.TransactionTotal)}
	}
	return nil
}

// fieldError turns what the JSON library says into a field and a sentence.
func fieldError(prefix string, err error) *FieldError {
	var syntactic *jsontext.SyntacticError
	var semantic *json.SemanticError
	switch {
	case errors.As(err, &semantic):
		detail := "has the wrong type"
		switch {
		case semantic.JSONPointer == "":
			detail = "not a JSON object"
		case errors.Is(err, json.ErrUnknownName):
			detail = "unknown field"
		case semantic.GoType != nil && semantic.GoType.Kind() == reflect.Int64:
			detail = "is not a whole number"
		case semantic.GoType != nil && semantic.GoType.Kind() == reflect.String:
			detail = "is not a text"
		}
		return &FieldError{fieldPath(prefix, semantic.JSONPointer), detail}
	case errors.As(err, &syntactic) && errors.Is(err, jsontext.ErrDuplicateName):
		return &FieldError{fieldPath(prefix, syntactic.JSONPointer), "given twice"}
	case errors.As(err, &syntactic):
		return &FieldError{prefix, fmt.Sprintf("broken JSON at byte %d", syntactic.ByteOffset+1)}
	default:
		return &FieldError{prefix, "broken JSON"}
	}
}

// fieldPath turns a JSON pointer (/item_details/1/item_price) into the path
// that people write (payment.item_details[1].item_price).
func fieldPath(prefix string, pointer jsontext.Pointer) string {
	path := prefix
	for token := range pointer.Tokens() {
		switch {
		case token != "" && strings.Trim(token, "0123456789") == "":
			path += "[" + token + "]"
		case path == "":
			path = token
		default:
			path += "." + token
		}
	}
	return path
}
