package config

import (
	"os"
	"reflect"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"

	"terbayar/internal/secret"
)

// A newline at the end of a setting, as in a Secret made with echo, is not visible but
// makes it another password, key or id. So no setting, secrets included, may begin or end
// with white space, or contain a control or invisible character.

// exceptions remove from a setting's value what only this setting may contain.
var exceptions = map[string]func(value string) string{
	// PEM has several lines and ends with a newline.
	"PAYDIA_PRIVATE_KEY": func(value string) string {
		return strings.NewReplacer("\r\n", "", "\n", "").Replace(value)
	},
	// One key a line.
	"API_KEYS": func(value string) string {
		return strings.NewReplacer("\r\n", "", "\n", "").Replace(value)
	},
	// It is written before the customer token: "Bearer " ends in a space.
	"PAYDIA_CUSTOMER_TOKEN_PREFIX": func(value string) string { return strings.TrimSuffix(value, " ") },
}

// settings returns the flags that have an environment variable, those of commands included.
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

// cleanEnvironment checks the environment variables of the settings before they are parsed.
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

// cleanValues checks the parsed settings, those given as flags too. Values that are neither
// strings nor lists of strings were checked by their parsers.
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

// clean checks one value. The error does not contain it.
func clean(variable, value string) error {
	if allowed, ok := exceptions[variable]; ok {
		value = allowed(value)
	}
	switch {
	case strings.HasSuffix(value, "\n"):
		return wrong(variable, "ends in a newline: make the Secret or file with printf, echo adds a newline")
	case strings.TrimRightFunc(value, unicode.IsSpace) != value:
		return wrong(variable, "ends in white space")
	case strings.TrimLeftFunc(value, unicode.IsSpace) != value:
		return wrong(variable, "begins with white space")
	case strings.ContainsFunc(value, invisible):
		return wrong(variable, "contains a control or invisible character")
	default:
		return nil
	}
}

// invisible reports whether a character is a control character or a format character, such
// as a byte order mark or a zero-width space.
func invisible(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }
