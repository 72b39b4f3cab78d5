package config

import (
	"crypto/x509"
	"strings"
	"testing"
)

// TestEverySettingIsClean: whatever setting there is, in the environment or as a flag,
// is refused by name when white space or a control character got into it, and its value
// is not printed.
func TestEverySettingIsClean(t *testing.T) {
	for variable, flag := range variables(t) {
		for _, bad := range []string{"hunter2\n", "hunter2\r\n", "hunter2 ", "hunter2\t", " hunter2", "\nhunter2", "hunter2\u00a0", "\ufeffhunter2", "hun\u200bter2", "hun\x01ter2", "hun\x1bter2", "\n", " "} {
			switch { // deliberately, see exceptions
			case variable == "PAYDIA_PRIVATE_KEY" && strings.Trim(bad, "\r\n") != bad && strings.TrimSpace(bad) != "":
				continue // is not PEM, which is another error
			case variable == "PAYDIA_PRIVATE_KEY" && bad == "\n":
				continue
			case variable == "PAYDIA_CUSTOMER_TOKEN_PREFIX" && strings.TrimSuffix(bad, " ") != bad:
				continue
			}
			_, err := parse(t, map[string]string{variable: bad})
			if err == nil || !strings.HasPrefix(err.Error(), variable+": ") || strings.Contains(err.Error(), "ter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s=%q: %v", variable, bad, err)
			}
			_, err = parse(t, nil, "--"+flag+"="+bad)
			if err == nil || !strings.HasPrefix(err.Error(), variable) || strings.Contains(err.Error(), "\n") {
				t.Errorf("--%s=%q: %v", flag, bad, err)
			}
		}
	}
}

// TestExceptions: what may end in a space or a newline all the same.
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
