package callbacks

import (
	"bytes"
	"encoding/json"
	"mime"
	"mime/multipart"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"terbayar/internal/payment"
)

// The longest ids, in characters: those of package order.
const (
	maxAMID     = 255
	maxPaydiaID = 64
)

// parse returns the transaction id of a callback, or an outcome if it has none. Everything else in
// the body (status, amount, signature) is ignored: the lookup decides.
func parse(g payment.Gateway, contentType string, body []byte) (id string, outcome Outcome) {
	if g == payment.Paydia {
		return parsePaydia(body)
	}
	return parseAM(contentType, body)
}

// parsePaydia parses a notification of SNAP's service 56. The name of the field is compared without
// case: ASPI's samples have it in two spellings.
func parsePaydia(body []byte) (id string, outcome Outcome) {
	var fields struct {
		ID string `json:"originalPartnerReferenceNo"`
	}
	if json.Unmarshal(body, &fields) != nil || !isID(fields.ID, maxPaydiaID) {
		return "", Malformed
	}
	return fields.ID, ""
}

// parseAM parses a callback of AM. Its encoding is not documented: it may be JSON or a form.
func parseAM(contentType string, body []byte) (id string, outcome Outcome) {
	fields, ok := amFields(contentType, bytes.TrimSpace(body))
	id = fields["transaction_id"]
	switch {
	case !ok:
		return "", Malformed
	case len(fields) == 0, strings.HasPrefix(id, "TEST-") && fields["signature"] == "testing": // the dashboard's button "Test"
		return "", Test
	case id == "" && fields["reff_id"] != "": // of a disbursement
		return "", Other
	case !isID(id, maxAMID):
		return "", Malformed
	}
	return id, ""
}

// amFields returns the fields of a callback that are texts or numbers.
func amFields(contentType string, body []byte) (fields map[string]string, ok bool) {
	fields = map[string]string{}
	mediaType, params, _ := mime.ParseMediaType(contentType)
	switch {
	case mediaType == "multipart/form-data":
		form, err := multipart.NewReader(bytes.NewReader(body), params["boundary"]).ReadForm(maxBody)
		if err != nil {
			return nil, false
		}
		defer func() { _ = form.RemoveAll() }()
		for name, values := range form.Value {
			fields[name] = values[0]
		}
	case len(body) == 0, string(body) == "[]": // PHP's empty array
	case body[0] == '{':
		var members map[string]any
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber()
		if decoder.Decode(&members) != nil || decoder.More() {
			return nil, false
		}
		for name, value := range members {
			switch v := value.(type) {
			case string:
				fields[name] = v
			case json.Number:
				fields[name] = v.String()
			}
		}
	default:
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, false
		}
		for name, values := range form {
			fields[name] = values[0]
		}
	}
	return fields, true
}

// isID reports whether a text has the form of a transaction id, and may be logged.
func isID(s string, limit int) bool {
	return s != "" && utf8.ValidString(s) && utf8.RuneCountInString(s) <= limit &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
