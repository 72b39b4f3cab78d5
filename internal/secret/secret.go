// Package secret has a string type that never prints its value, and the encryption of
// customer tokens at rest in Redis.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Text is a secret string. Printing, logging or marshalling it yields "[secret]"; only
// Reveal returns the value.
type Text struct{ s string }

// NewText wraps a secret.
func NewText(s string) Text { return Text{s} }

const masked = "[secret]"

// Reveal returns the secret itself. Review every caller.
func (t Text) Reveal() string { return t.s }

// Empty reports whether the secret is the empty string.
func (t Text) Empty() bool { return t.s == "" }

// String implements fmt.Stringer.
func (t Text) String() string { return masked }

// Format implements fmt.Formatter, for all verbs.
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

// LogValue implements slog.LogValuer.
func (t Text) LogValue() slog.Value { return slog.StringValue(masked) }

// MarshalText implements encoding.TextMarshaler, which JSON uses too.
func (t Text) MarshalText() ([]byte, error) { return []byte(masked), nil }

// UnmarshalText implements encoding.TextUnmarshaler, for flags, environment variables and
// JSON.
func (t *Text) UnmarshalText(b []byte) error {
	t.s = string(b)
	return nil
}
