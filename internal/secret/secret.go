// Package secret holds what must not be seen: a text type that never prints
// itself, and the sealing of customer tokens at rest in Redis.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Text is a secret that stays out of logs, errors and JSON by accident: every
// ordinary way of printing it yields "[secret]". Only Reveal gives it up.
type Text struct{ s string }

// NewText wraps a secret.
func NewText(s string) Text { return Text{s} }

const masked = "[secret]"

// Reveal is the secret itself. Each caller is a place to look at twice.
func (t Text) Reveal() string { return t.s }

// Empty reports whether there is no secret at all.
func (t Text) Empty() bool { return t.s == "" }

// String implements fmt.Stringer.
func (t Text) String() string { return masked }

// Format implements fmt.Formatter, for every verb there is.
func (t Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

// LogValue implements slog.LogValuer.
func (t Text) LogValue() slog.Value { return slog.StringValue(masked) }

// MarshalText implements encoding.TextMarshaler, and so covers JSON too.
func (t Text) MarshalText() ([]byte, error) { return []byte(masked), nil }

// UnmarshalText takes the secret from a flag, an environment variable or JSON.
func (t *Text) UnmarshalText(b []byte) error {
	t.s = string(b)
	return nil
}
