package order

import "testing"

// FuzzPlainEmail checks that each plainEmail is an e-mail address for the validator, which it
// replaces.
func FuzzPlainEmail(f *testing.F) {
	for _, s := range []string{"a@example.com", "siti.rahma-1@mail.example.co.id", "a@b.c", "a@b", "a@b.3", "-a@b.c", "a@b..c", "a.@b.c", "a@b@c.d", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if plainEmail(s) && emails.Var(s, "email") != nil {
			t.Errorf("%q is not an e-mail address", s)
		}
	})
}

// TestPlainEmail checks that usual addresses do not need the validator.
func TestPlainEmail(t *testing.T) {
	for _, s := range []string{"a@example.com", "siti.rahmawati@example.com", "siti-2@mail.example.co.id"} {
		if !plainEmail(s) {
			t.Errorf("%q is not plain", s)
		}
	}
}
