package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"terbayar/internal/config"
	"terbayar/internal/worker"
)

// TestCheckErrors: main makes exit codes of these errors, 2 of a wrong setting
// and 1 of the rest.
func TestCheckErrors(t *testing.T) {
	for _, row := range []struct {
		args  []string
		lines int
		is    func(error) bool
	}{
		{[]string{"check", "--redis-url=redis://127.0.0.1:1"}, 6, func(err error) bool { return errors.Is(err, worker.ErrCheck) }},
		{[]string{"check", "--redis-url=redis://127.0.0.1:1", "--retry-policy-file=not-there"}, 6, isSetting},
		{[]string{"check", "--redis-url=redis://127.0.0.1:1", "--amdigipay-username=u", "--amdigipay-password=p", "--amdigipay-status-map=paid=3"}, 6, isSetting},
		{[]string{"check", "--log-level=loud"}, 0, isSetting},
		{[]string{"check", "--redis-url=elsewhere"}, 0, isSetting},
		{[]string{"--version"}, 1, func(err error) bool { return errors.Is(err, config.ErrHelp) }},
	} {
		var out strings.Builder
		err := run(t.Context(), row.args, &out, io.Discard)
		if lines := strings.Count(out.String(), "\n"); !row.is(err) || lines != row.lines {
			t.Errorf("%v: %d lines, want %d; error %v\n%s", row.args, lines, row.lines, err, out.String())
		}
	}
}

func isSetting(err error) bool { return errors.As(err, new(*config.Error)) }
