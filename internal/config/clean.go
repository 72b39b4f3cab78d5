package config

import (
	"os"
	"reflect"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"

	"terbayar/internal/secret"
)

// A setting with a newline at its end, as in a Secret made with echo, looks right
// and is another password, key or id. So no setting may begin or end with white
// space, or hold a control or invisible character, secrets included.

// exceptions are the settings that may hold what others may not.
var exceptions = map[string]func(value string) string{
	// PEM is lines, with a newline at its end.
	"PAYDIA_PRIVATE_KEY": func(value string) string {
		return strings.NewReplacer("\r\n", "", "\n", "").Replace(value)
	},
	// It stands before the customer token, as it is: "Bearer " ends in a space.
	"PAYDIA_CUSTOMER_TOKEN_PREFIX": func(value string) string { return strings.TrimSuffix(value, " ") },
}

// settings are the flags that are settings, those of commands included: each has
// an environment variable.
func settings(parser *kong.Kong) []*kong.Flag {
	var flags []*kong.Flag
	_ = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok && len(f.Envs) > 0 {
			flags = append(flags, f)
		}
		return next(nil)
	})
	return flags
}

// cleanEnvironment checks the environment variables of the settings, whatever
// they would be read as.
func cleanEnvironment(flags []*kong.Flag) error {
	for _, f := range flags {
		for _, variable := range f.Envs {
			if err := clean(variable, os.Getenv(variable)); err != nil {
				return err
			}
		}
	}
	return nil
}

// cleanValues checks the settings as they were read, from flags too. What is
// neither a text nor a list of texts was checked when it was read.
func cleanValues(flags []*kong.Flag) error {
	for _, f := range flags {
		var values []string
		switch v := f.Target.Interface().(type) {
		case secret.Text:
			values = []string{v.Reveal()}
		case []string:
			values = v
		default:
			if f.Target.Kind() == reflect.String {
				values = []string{f.Target.String()}
			}
		}
		for _, value := range values {
			if err := clean(f.Envs[0], value); err != nil {
				return err
			}
		}
	}
	return nil
}

// clean checks one value. The error never holds it.
func clean(variable, value string) error {
	if allowed, ok := exceptions[variable]; ok {
		value = allowed(value)
	}
	switch {
	case strings.HasSuffix(value, "\n"):
		return wrong(variable, "ends in a newline: a Secret or file made with echo has one, made with printf it has none")
	case strings.TrimRightFunc(value, unicode.IsSpace) != value:
		return wrong(variable, "ends in white space")
	case strings.TrimLeftFunc(value, unicode.IsSpace) != value:
		return wrong(variable, "begins with white space")
	case strings.ContainsFunc(value, invisible):
		return wrong(variable, "holds a control or invisible character")
	default:
		return nil
	}
}

// invisible reports whether a character cannot be seen: a control character, or
// one of format, such as a byte order mark or a zero-width space.
func invisible(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }
