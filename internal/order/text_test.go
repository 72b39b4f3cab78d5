package order_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"terbayar/internal/order"
)

// TestIDs checks which characters an id may contain.
func TestIDs(t *testing.T) {
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"letters and digits", "INV-9", true},
		{"a UUID", "b57d8895-790b-4da3-a9e7-0387176de9bf", true},
		{"symbols, and a space inside", `kasir 3/#?%&+{x}:"y"'<z>\`, true},
		{"other alphabets, composed", "café-支付-заказ-จ่าย", true},
		{"emoji", "INV-😀", true},

		{"zero width space", "INV-9\u200b", false},
		{"zero width non-joiner", "INV\u200c-9", false},
		{"zero width joiner", "INV\u200d-9", false},
		{"joiner between emoji", "👨\u200d👩", false},
		{"byte order mark", "\ufeffINV-9", false},
		{"soft hyphen", "INV\u00ad9", false},
		{"word joiner", "INV\u20609", false},
		{"invisible times", "INV\u20629", false},
		{"left-to-right mark", "INV-9\u200e", false},
		{"Arabic letter mark", "INV-9\u061c", false},
		{"bidirectional override", "\u202eINV-9", false},
		{"bidirectional isolate", "INV\u2066-9\u2069", false},
		{"variation selector", "INV-9\ufe0f", false},
		{"variation selector 1", "INV-9\ufe00", false},
		{"variation selector 17", "INV-9\U000e0100", false},
		{"Mongolian variation selector", "INV-9\u180b", false},
		{"Mongolian vowel separator", "INV-9\u180e", false},
		{"tag", "INV-9\U000e0041", false},
		{"language tag", "INV-9\U000e0001", false},
		{"combining grapheme joiner", "INV-9\u034f", false},
		{"Hangul filler", "INV-9\u3164", false},
		{"Hangul choseong filler", "INV-9\u115f", false},
		{"Hangul jungseong filler", "INV-9\u1160", false},
		{"halfwidth Hangul filler", "INV-9\uffa0", false},
		{"Khmer inherent vowel", "INV-9\u17b4", false},
		{"Braille blank", "INV-9\u2800", false},
		{"null notehead", "INV-9\U0001d159", false},
		{"beginning of a beam", "INV-9\U0001d173", false},
		{"shorthand overlap", "INV-9\U0001bca0", false},
		{"interlinear annotation", "INV-9\ufff9", false},
		{"object replacement", "INV-9\ufffc", false},
		{"replacement character", "INV-9\ufffd", false},
		{"deprecated format character", "INV-9\u206a", false},
		{"private use", "INV-9\ue000", false},
		{"private use, plane 16", "INV-9\U0010fffd", false},
		{"unassigned", "INV-9\u0378", false},
		{"unassigned and ignorable", "INV-9\u2065", false},
		{"noncharacter", "INV-9\uffff", false},
		{"noncharacter in the middle", "INV\ufdd0-9", false},
		{"NUL", "INV-9\x00", false},
		{"escape", "INV-\x1b[2J9", false},
		{"tabulator", "INV\t9", false},
		{"line feed", "INV-9\n", false},
		{"carriage return", "INV-9\r", false},
		{"delete", "INV-9\x7f", false},
		{"next line", "INV-9\u0085", false},
		{"C1 control sequence introducer", "INV-9\u009b", false},
		{"line separator", "INV\u20289", false},
		{"paragraph separator", "INV\u20299", false},
		{"no-break space", "INV\u00a09", false},
		{"no-break space at the end", "INV-9\u00a0", false},
		{"narrow no-break space", "INV\u202f9", false},
		{"hair space", "INV\u200a9", false},
		{"ideographic space", "INV\u30009", false},
		{"Ogham space", "INV\u16809", false},
		{"space at the beginning", " INV-9", false},
		{"space at the end", "INV-9 ", false},
		{"only a space", " ", false},
		{"not composed", "cafe\u0301", false},
		{"not composed: singleton", "\u212bngstrom", false},
		{"not composed: Hangul", "\u1112\u1161\u11ab", false},
		{"not composed: order of marks", "a\u0301\u0316", false},
	} {
		quoted, err := json.Marshal(c.text)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range []struct{ doc, old, path string }{
			{amOrder, `"INV-1"`, "payment.transaction_id"},
			{amOrder, `"fee"`, "payment.item_details[1].item_id"},
			{paydiaOrder, `"b57d8895-790b-4da3-a9e7-0387176de9bf"`, "payment.partnerReferenceNo"},
			{paydiaOrder, `"240327001000000"`, "payment.merchantId"},
		} {
			checkField(t, c.name, edit(t, field.doc, field.old, string(quoted)), field.path, c.ok)
		}
	}
}

// TestTexts checks which characters names, titles and descriptions may contain.
func TestTexts(t *testing.T) {
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"letters", "Café é, not composed: e\u0301", true},
		{"symbols", `a/b & <c> "q" 'r' № 5`, true},
		{"no-break space", "Siti\u00a0Rahma", true},
		{"ideographic space", "山田\u3000太郎", true},
		{"spaces at the ends", " Siti ", true},
		{"Arabic", "محمد", true},
		{"Persian with a non-joiner", "علی\u200cرضا", true},
		{"Sinhala Sri", "ශ්\u200dරී", true},
		{"Bengali ya-phalaa", "র\u200d্য", true},
		{"Javanese", "ꦏ꧀\u200dꦏ", true},
		{"Malayalam chillu at the end", "ന്\u200d", true},
		{"emoji", "Kopi ☕ 😀", true},
		{"emoji with a selector", "❤\ufe0f", true},
		{"keycap", "1\ufe0f\u20e3", true},
		{"family", "👨\u200d👩\u200d👧", true},
		{"rainbow flag", "🏳\ufe0f\u200d🌈", true},
		{"skin colour", "👩🏽\u200d🚀", true},
		{"an emoji newer than this Unicode version", "\U0001fae9", true},

		{"joiner in a Latin word", "Si\u200dti", false},
		{"non-joiner in a Latin word", "Si\u200cti", false},
		{"joiner at the beginning", "\u200dSiti", false},
		{"two joiners", "ශ්\u200d\u200dරී", false},
		{"joiner after the last emoji", "😀\u200d", false},
		{"selector on a letter", "S\ufe0fiti", false},
		{"ideographic selector", "葛\U000e0100", false},
		{"tag flag", "🏴\U000e0067\U000e007f", false},
		{"zero width space", "Si\u200bti", false},
		{"soft hyphen", "Si\u00adti", false},
		{"byte order mark", "\ufeffSiti", false},
		{"word joiner", "Si\u2060ti", false},
		{"Hangul filler", "\u3164", false},
		{"Braille blank", "\u2800", false},
		{"bidirectional override", "Siti\u202egpj.exe", false},
		{"bidirectional embedding", "\u202bSiti\u202c", false},
		{"bidirectional isolate", "\u2067Siti\u2069", false},
		{"right-to-left mark", "Siti\u200f", false},
		{"Arabic letter mark", "Siti\u061c", false},
		{"escape sequence", "\x1b]0;x\x07", false},
		{"C1 control", "Siti\u009b2J", false},
		{"line break", "Siti\nRahma", false},
		{"tabulator", "Siti\tRahma", false},
		{"NUL", "Siti\x00", false},
		{"delete", "Siti\x7f", false},
		{"line separator", "Siti\u2028Rahma", false},
		{"private use", "Siti\uf8ff", false},
		{"noncharacter", "Siti\ufffe", false},
		{"white space only", " \u00a0 ", false},
	} {
		quoted, err := json.Marshal(c.text)
		if err != nil {
			t.Fatal(err)
		}
		for _, field := range []struct{ doc, old, path string }{
			{amOrder, `"transaction_name":"testing"`, "payment.transaction_name"},
			{amOrder, `"transaction_desc":"testing"`, "payment.transaction_desc"},
			{amOrder, `"customer_number":"085925065195"`, "payment.customer_number"},
			{amOrder, `"customer_name":"testing"`, "payment.customer_name"},
			{amOrder, `"item_name":"testing"`, "payment.item_details[0].item_name"},
			{paydiaOrder, `"title":"Payment"`, "payment.title"},
		} {
			name, _, _ := strings.Cut(field.old, ":")
			checkField(t, c.name, edit(t, field.doc, field.old, name+":"+string(quoted)), field.path, c.ok)
		}
	}
}

func checkField(t *testing.T, name, doc, path string, ok bool) {
	t.Helper()
	_, err := order.Parse([]byte(doc), before, order.Defaults{})
	var errs order.FieldErrors
	if ok && err != nil || !ok && (!errors.As(err, &errs) || len(errs) != 1 || errs[0].Field != path) {
		t.Errorf("%s in %s: ok %v, %v", name, path, ok, err)
	}
}
