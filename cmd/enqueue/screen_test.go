package main

import (
	"bufio"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"terbayar/internal/intake"
)

// openTerminal returns a terminal of 100 columns, and what a user sees of it.
func openTerminal(t *testing.T) (terminal *os.File, seen *bufio.Reader) {
	t.Helper()
	user, terminal, err := pty.Open()
	if err != nil {
		t.Skip("no terminal:", err)
	}
	t.Cleanup(func() { user.Close(); terminal.Close() })
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	return terminal, bufio.NewReader(user)
}

// TestBar: answers and messages on the terminal of the bar are printed on lines of their own, and
// the bar shows rate, counts, and the time left if the input's size is known.
func TestBar(t *testing.T) {
	terminal, seen := openTerminal(t)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(1000); err != nil {
		t.Fatal(err)
	}
	pipe, _, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	counts := &summary{results: map[intake.Result]int{intake.Enqueued: 30, intake.Duplicate: 10, intake.Invalid: 2}}
	for _, c := range []struct {
		in      io.Reader
		percent bool
	}{{file, true}, {pipe, false}} {
		s := newScreen(c.in, terminal, terminal)
		s.update(400, counts) // not yet drawn: a short run has no bar
		s.start = s.start.Add(-time.Minute)
		s.update(500, counts)
		if err := s.print(func() error { _, err := io.WriteString(terminal, "{answer}\n"); return err }); err != nil {
			t.Fatal(err)
		}
		s.update(500, counts)
		note(s, "message")
		s.update(1000, counts)
		s.end(counts)
		var got []string
		for range 3 {
			line, err := seen.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, line)
		}
		for i, want := range []string{"{answer}\r\n", "enqueue: message\r\n", "enqueue: 42 payments in 1m0s: 1/s, 40 accepted, 2 refused\r\n"} {
			// The text follows what erases the line.
			bar, ok := strings.CutSuffix(got[i], "\x1b[2K\r"+want)
			if !ok {
				t.Errorf("%q does not end with %q on an empty line", got[i], want)
			}
			if !strings.Contains(bar, "1/s, 40 accepted, 2 refused") {
				t.Errorf("no bar: %q", bar)
			}
			if strings.Contains(bar, "40%") || c.percent != (strings.Contains(bar, "50%") || strings.Contains(bar, "99%")) {
				t.Errorf("%q", bar)
			}
		}
	}
}

// TestNoBar: there is no bar if standard error is no terminal or a dumb one, or if payments are typed.
func TestNoBar(t *testing.T) {
	terminal, _ := openTerminal(t)
	file, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, s := range map[string]*screen{
		"no file": newScreen(strings.NewReader(""), terminal, io.Discard),
		"a file":  newScreen(strings.NewReader(""), terminal, file),
		"typed":   newScreen(terminal, terminal, terminal),
	} {
		if s.bar != nil {
			t.Errorf("%s: a bar", name)
		}
	}
	t.Setenv("TERM", "dumb")
	if newScreen(strings.NewReader(""), terminal, terminal).bar != nil {
		t.Error("a bar on a dumb terminal")
	}
}
