package clients

import (
	"encoding/json"
	"testing"

	"terbayar/internal/payment"
)

func TestScalar(t *testing.T) {
	for _, row := range []struct {
		json   string
		want   Scalar
		rupiah payment.Rupiah
	}{
		{`"13000"`, "13000", 13000},
		{`13000`, "13000", 13000},
		{`"13000.00"`, "13000.00", 13000},
		{`13000.00`, "13000.00", 13000},
		{`null`, "", 0},
		{`""`, "", 0},
		{`0`, "0", -1},
		{`-5`, "-5", -1},
		{`"13000.50"`, "13000.50", -1},
		{`1.3e4`, "1.3e4", -1},
		{`"13.000"`, "13.000", -1},
		{`true`, "true", -1},
		{`{"a":1}`, `{"a":1}`, -1},
		{`"caf\u00e9 & <b>"`, "café & <b>", -1},
	} {
		var got struct{ V Scalar }
		if err := json.Unmarshal([]byte(`{"v":`+row.json+`}`), &got); err != nil {
			t.Errorf("%s: %v", row.json, err)
		}
		if got.V != row.want || got.V.Rupiah() != row.rupiah {
			t.Errorf("%s: %q, %d rupiah; want %q, %d", row.json, got.V, got.V.Rupiah(), row.want, row.rupiah)
		}
	}
}

func TestEncodeJSON(t *testing.T) {
	got, err := EncodeJSON(map[string]string{"title": "a/b & <c> é"})
	if want := `{"title":"a/b & <c> é"}`; err != nil || string(got) != want {
		t.Errorf("%s (%v), want %s", got, err, want)
	}
}
