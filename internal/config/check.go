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
		return wrong(variable, "%q is none of %s", value, strings.Join(words, ", "))
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

// baseURL leaves the value out of its errors: a password may stand in it.
func baseURL(variable, value string) error {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return wrong(variable, "is not an absolute http or https URL")
	case u.User != nil:
		return wrong(variable, "must not hold a user or password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return wrong(variable, "must not hold a query or fragment")
	}
	return nil
}

// part is one of the settings that switch a gateway on together.
type part struct {
	variable string
	set      bool
}

// complete refuses a gateway of which only some parts are set: it would be off,
// which nobody who set them meant.
func complete(parts ...part) error {
	var set, missing []string
	for _, p := range parts {
		if p.set {
			set = append(set, p.variable)
		} else {
			missing = append(missing, p.variable)
		}
	}
	if len(set) == 0 || len(missing) == 0 {
		return nil
	}
	return wrong(strings.Join(missing, ", "), "missing, although %s is set", strings.Join(set, ", "))
}

// eitherWay is a secret that comes in a variable or in the file that the
// variable with _FILE at its end names. It also says which of them it came from.
func eitherWay(variable string, value secret.Text, file string) (secret.Text, string, error) {
	switch {
	case file == "":
		return value, variable, nil
	case !value.Empty():
		return secret.Text{}, "", wrong(variable, "and %s_FILE are both set: which one counts?", variable)
	}
	variable += "_FILE"
	content, err := os.ReadFile(file) //nolint:gosec // the operator's own setting
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err // without the path: the variable's name says enough
		}
		return secret.Text{}, "", wrong(variable, "cannot be read: %v", err)
	}
	return secret.NewText(string(content)), variable, nil
}
