package secret_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"terbayar/internal/secret"
)

func key(b byte) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(b), 32)))
}

func sealer(t *testing.T, keys string) *secret.Cipher {
	t.Helper()
	s, err := secret.NewCipher(secret.NewText(keys))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTextNeverPrints(t *testing.T) {
	s := secret.NewText("hunter2")
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "all", struct{ S secret.Text }{s})
	doc, err := json.Marshal(map[string]any{"s": s, "p": &s})
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprint(s, &s) + log.String() + string(doc)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%T"} {
		printed += fmt.Sprintf(verb, s) + fmt.Sprintf(verb, struct{ S secret.Text }{s})
	}
	if strings.Contains(printed, "hunter2") || strings.Contains(printed, "68756e7465723") {
		t.Error(printed)
	}
	if s.Reveal() != "hunter2" {
		t.Error("Reveal does not reveal")
	}
}

func TestSealRotation(t *testing.T) {
	old, rotated, other := sealer(t, key('a')), sealer(t, key('b')+", "+key('a')), sealer(t, key('c'))
	sealed, err := old.Encrypt(secret.NewText("eyJ..."), "paydia:1")
	if err != nil || strings.Contains(sealed, "eyJ") {
		t.Fatal(sealed, err)
	}
	if got, err := rotated.Decrypt(sealed, "paydia:1"); err != nil || got.Reveal() != "eyJ..." {
		t.Errorf("after rotation: %v", err)
	}
	if _, err := other.Decrypt(sealed, "paydia:1"); !errors.Is(err, secret.ErrNoKey) {
		t.Errorf("another key: %v", err)
	}
	if _, err := old.Decrypt(sealed, "paydia:2"); !errors.Is(err, secret.ErrNoKey) {
		t.Errorf("another payment: %v", err)
	}
	fresh, err := rotated.Encrypt(secret.NewText("eyJ..."), "paydia:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Decrypt(fresh, "paydia:1"); err == nil {
		t.Error("the first key does not seal")
	}
	if again, _ := old.Encrypt(secret.NewText("eyJ..."), "paydia:1"); again == sealed {
		t.Error("sealing twice gives the same text")
	}
	id := secret.KeyID(sealed)
	if ids := old.KeyIDs(); len(ids) != 1 || ids[0] != id || len(id) != 16 || strings.Contains(key('a'), id) {
		t.Errorf("sealed by %q, keys %q", id, ids)
	}
	if _, err := other.Decrypt(sealed, "paydia:1"); !strings.Contains(err.Error(), id) {
		t.Errorf("%v does not name the key", err)
	}
	nameless := "v1." + strings.TrimPrefix(sealed, "v2."+id+".") // as it was sealed before
	if got, err := rotated.Decrypt(nameless, "paydia:1"); err != nil || got.Reveal() != "eyJ..." || secret.KeyID(nameless) != "" {
		t.Errorf("sealed before keys had ids: %v", err)
	}
	for _, damaged := range []string{"", "v1.", "v1.!", "v2.", "v2." + id, "v2." + id + ".", "v2.." + nameless[3:], "v2.0123456789abcdef." + nameless[3:], "v3." + sealed[3:], sealed[:len(sealed)-2]} {
		if _, err := old.Decrypt(damaged, "paydia:1"); err == nil {
			t.Errorf("%q opened", damaged)
		}
	}
}

func TestBadKeys(t *testing.T) {
	for _, keys := range []string{"x", "aGVsbG8=", key('a') + ",", key('a') + ",zzz"} {
		_, err := secret.NewCipher(secret.NewText(keys))
		if err == nil || strings.Contains(err.Error(), keys) {
			t.Errorf("%q: %v", keys, err)
		}
	}
	if _, err := sealer(t, "").Encrypt(secret.NewText("x"), "y"); !errors.Is(err, secret.ErrNoKey) {
		t.Error(err)
	}
}
