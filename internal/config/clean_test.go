package config

import (
	"crypto/x509"
	"strings"
	"testing"
)

// TestClean: clean rejects white space at either end, and control and invisible characters
// anywhere, without quoting the value.
func TestClean(t *testing.T) {
	for _, bad := range []string{"hunter2\n", "hunter2\r\n", "hunter2 ", "hunter2\t", " hunter2", "\nhunter2", "hunter2\u00a0", "\ufeffhunter2", "hun\u200bter2", "hun\x01ter2", "hun\x1bter2", "\n", " "} {
		err := clean("NAME", bad)
		if err == nil || !strings.HasPrefix(err.Error(), "NAME: ") || strings.Contains(err.Error(), "ter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"", "hunter2", "two words", "é"} {
		if err := clean("NAME", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

// TestEverySettingIsCleaned: Parse cleans every setting, in the environment and as a flag.
func TestEverySettingIsCleaned(t *testing.T) {
	for variable, flag := range variables() {
		const bad = "hun\u200bter2"
		_, err := parse(t, map[string]string{variable: bad})
		if err == nil || !strings.HasPrefix(err.Error(), variable+": ") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%s=%q: %v", variable, bad, err)
		}
		if variable != "PAYDIA_PRIVATE_KEY" { // may end in a newline
			const bad = "hunter2\n"
			_, err := parse(t, map[string]string{variable: bad})
			if err == nil || !strings.HasPrefix(err.Error(), variable+": ") || strings.Contains(err.Error(), "ter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s=%q: %v", variable, bad, err)
			}
		}
		_, err = parse(t, nil, "--"+flag+"="+bad)
		if err == nil || !strings.HasPrefix(err.Error(), variable) {
			t.Errorf("--%s=%q: %v", flag, bad, err)
		}
	}
}

// TestExceptions: the private key may end in a newline, and the token prefix in a space.
func TestExceptions(t *testing.T) {
	key := pemKey(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKeyOf(t, 2048)))
	paydia := map[string]string{"PAYDIA_CLIENT_ID": "c", "PAYDIA_CLIENT_SECRET": "s", "PAYDIA_CUSTOMER_TOKEN_PREFIX": "Bearer "}
	for _, form := range []string{key, strings.TrimSpace(key), key + "\n", strings.ReplaceAll(key, "\n", "\r\n"), strings.ReplaceAll(strings.TrimSpace(key), "\n", `\n`)} {
		paydia["PAYDIA_PRIVATE_KEY"] = form
		got, err := parse(t, paydia)
		if err != nil {
			t.Errorf("%.40q: %v", form, err)
			continue
		}
		if got.Paydia.CustomerTokenPrefix != "Bearer " {
			t.Errorf("prefix %q", got.Paydia.CustomerTokenPrefix)
		}
	}
	for _, prefix := range []string{"Bearer  ", "Bearer \n", "Bearer\t", " Bearer "} {
		paydia["PAYDIA_CUSTOMER_TOKEN_PREFIX"] = prefix
		if _, err := parse(t, paydia); err == nil || !strings.HasPrefix(err.Error(), "PAYDIA_CUSTOMER_TOKEN_PREFIX: ") {
			t.Errorf("%q: %v", prefix, err)
		}
	}
}
