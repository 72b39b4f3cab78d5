package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"terbayar/internal/config"
	"terbayar/internal/worker"
)

// TestCheckErrors: main exits with 2 for a wrong setting, and with 1 for another error.
func TestCheckErrors(t *testing.T) {
	for _, row := range []struct {
		args  []string
		lines int
		is    func(error) bool
	}{
		{[]string{"check", "--redis-url=redis://127.0.0.1:1"}, 7, func(err error) bool { return errors.Is(err, worker.ErrCheck) }},
		{[]string{"check", "--redis-url=redis://127.0.0.1:1", "--retry-policy-file=not-there"}, 7, isSetting},
		{[]string{"check", "--redis-url=redis://127.0.0.1:1", "--amdigipay-username=u", "--amdigipay-password=p", "--amdigipay-status-map=paid=3"}, 7, isSetting},
		{[]string{"check", "--log-level=loud"}, 0, isSetting},
		{[]string{"check", "--redis-url=elsewhere"}, 0, isSetting},
		{[]string{"--version"}, 1, func(err error) bool { return errors.Is(err, config.ErrHelp) }},
	} {
		t.Run(strings.Join(row.args, " "), func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			err := run(t.Context(), row.args, &out, io.Discard)
			if lines := strings.Count(out.String(), "\n"); !row.is(err) || lines != row.lines {
				t.Errorf("%d lines, want %d; error %v\n%s", lines, row.lines, err, out.String())
			}
		})
	}
}

func isSetting(err error) bool { return errors.As(err, new(*config.Error)) }
