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

func newCipher(t *testing.T, keys string) *secret.Cipher {
	t.Helper()
	c, err := secret.NewCipher(secret.NewText(keys))
	if err != nil {
		t.Fatal(err)
	}
	return c
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
		t.Error("Reveal does not return the secret")
	}
}

func TestKeyRotation(t *testing.T) {
	old, rotated, other := newCipher(t, key('a')), newCipher(t, key('b')+", "+key('a')), newCipher(t, key('c'))
	ciphertext, err := old.Encrypt(secret.NewText("eyJ..."), "paydia:1")
	if err != nil || strings.Contains(ciphertext, "eyJ") {
		t.Fatal(ciphertext, err)
	}
	if got, err := rotated.Decrypt(ciphertext, "paydia:1"); err != nil || got.Reveal() != "eyJ..." {
		t.Errorf("after rotation: %v", err)
	}
	if _, err := other.Decrypt(ciphertext, "paydia:1"); !errors.Is(err, secret.ErrNoKey) {
		t.Errorf("another key: %v", err)
	}
	if _, err := old.Decrypt(ciphertext, "paydia:2"); !errors.Is(err, secret.ErrNoKey) {
		t.Errorf("another payment: %v", err)
	}
	fresh, err := rotated.Encrypt(secret.NewText("eyJ..."), "paydia:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Decrypt(fresh, "paydia:1"); err == nil {
		t.Error("does not encrypt with the first key")
	}
	if second, _ := old.Encrypt(secret.NewText("eyJ..."), "paydia:1"); second == ciphertext {
		t.Error("encrypting twice gives the same ciphertext")
	}
	id := secret.KeyID(ciphertext)
	if ids := old.KeyIDs(); len(ids) != 1 || ids[0] != id || len(id) != 16 || strings.Contains(key('a'), id) {
		t.Errorf("encrypted with key %q, keys %q", id, ids)
	}
	if _, err := other.Decrypt(ciphertext, "paydia:1"); !strings.Contains(err.Error(), id) {
		t.Errorf("%v does not name the key", err)
	}
	v1 := "v1." + strings.TrimPrefix(ciphertext, "v2."+id+".")
	if got, err := rotated.Decrypt(v1, "paydia:1"); err != nil || got.Reveal() != "eyJ..." || secret.KeyID(v1) != "" {
		t.Errorf("v1: %v", err)
	}
	for _, damaged := range []string{"", "v1.", "v1.!", "v2.", "v2." + id, "v2." + id + ".", "v2.." + v1[3:], "v2.0123456789abcdef." + v1[3:], "v3." + ciphertext[3:], ciphertext[:len(ciphertext)-2]} {
		if _, err := old.Decrypt(damaged, "paydia:1"); err == nil {
			t.Errorf("%q was decrypted", damaged)
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
	if _, err := newCipher(t, "").Encrypt(secret.NewText("x"), "y"); !errors.Is(err, secret.ErrNoKey) {
		t.Error(err)
	}
}
