package config

import (
	"errors"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"terbayar/internal/secret"
)

func notEmpty(variable, value string) error {
	if value == "" {
		return wrong(variable, "is empty")
	}
	return nil
}

func oneOf(variable, value string, words ...string) error {
	if !slices.Contains(words, value) {
		return wrong(variable, "%q is not one of %s", value, strings.Join(words, ", "))
	}
	return nil
}

func between(variable string, n, low, high int) error {
	if n < low || n > high {
		return wrong(variable, "%d is not between %d and %d", n, low, high)
	}
	return nil
}

func atLeast(variable string, d, low time.Duration) error {
	if d < low {
		return wrong(variable, "%s is less than %s", d, low)
	}
	return nil
}

func address(variable, value string) error {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return wrong(variable, "%q is not host:port or :port", value)
	}
	return nil
}

// baseURL does not quote the value in its errors: it may contain a password.
func baseURL(variable, value string) error {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return wrong(variable, "is not an absolute http or https URL")
	case u.User != nil:
		return wrong(variable, "must not contain a user or password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return wrong(variable, "must not contain a query or fragment")
	}
	return nil
}

// credential is one of the settings that switch a gateway on when all of them are set.
type credential struct {
	variable string
	set      bool
}

// allOrNone rejects a gateway that has only some of its credentials: it would be off,
// against the operator's intention.
func allOrNone(credentials ...credential) error {
	var set, missing []string
	for _, c := range credentials {
		if c.set {
			set = append(set, c.variable)
		} else {
			missing = append(missing, c.variable)
		}
	}
	if len(set) == 0 || len(missing) == 0 {
		return nil
	}
	return wrong(strings.Join(missing, ", "), "missing, although %s is set", strings.Join(set, ", "))
}

// oneSource rejects a variable that is set together with the one with the suffix _FILE.
func oneSource(variable string, set bool, file string) error {
	return onlyOne(variable, set, variable+"_FILE", file != "")
}

// onlyOne rejects two variables that are both set.
func onlyOne(variable string, set bool, other string, otherSet bool) error {
	if set && otherSet {
		return wrong(variable, "and %s are both set: set only one of them", other)
	}
	return nil
}

// valueOrFile returns a secret that is the value of a variable, or the content of the file
// that the variable with the suffix _FILE names. It also returns which of the two variables
// was used.
func valueOrFile(variable string, value secret.Text, file string) (secret.Text, string, error) {
	if err := oneSource(variable, !value.Empty(), file); err != nil {
		return secret.Text{}, "", err
	}
	if file == "" {
		return value, variable, nil
	}
	variable += "_FILE"
	content, err := os.ReadFile(file) //nolint:gosec // the operator's own setting
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err // without the path: a wrong one may be a secret
		}
		return secret.Text{}, "", wrong(variable, "cannot be read: %v", err)
	}
	return secret.NewText(string(content)), variable, nil
}
