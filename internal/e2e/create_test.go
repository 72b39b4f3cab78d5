package e2e_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"terbayar/internal/ledger"
	"terbayar/internal/testenv/programs"
)

// TestRejectsWhenStopped: however enqueue create ends, the file of --rejects has each line that was
// answered as not accepted, once and unchanged. After Ctrl-C nothing is recorded from the line on
// that it names; the whole input can be submitted again.
func TestRejectsWhenStopped(t *testing.T) {
	slow(t)
	const every = 5 // every fifth line is wrong
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			all := programs.NewPayments("REJ", 20_000, time.Hour)
			var input []string
			for i, p := range all {
				line := string(p.Line) + "\r\n"
				if i%every == 0 {
					line = strings.Replace(line, `"gateway"`, `"colour":"red","gateway"`, 1)
				}
				input = append(input, line)
			}
			name, rejects := e.File("payments.ndjson", strings.Join(input, "")), e.File("rejects.ndjson", "")
			p := e.Start("enqueue", []string{"create", "--rejects", rejects, name})
			e.Eventually("300 answers", func() bool { return p.Stdout.Lines() >= 300 })
			p.Signal(signal)
			code := p.Exit()

			out := p.Stdout.String()
			answers := lines[answer](e, out[:strings.LastIndex(out, "\n")+1]) // kill -9 may cut a line off
			if len(answers) == len(all) {
				t.Fatal("ended before the signal")
			}
			var want strings.Builder
			for _, a := range answers {
				if (a.Result == "invalid") != ((a.Line-1)%every == 0) {
					t.Errorf("%+v", a)
				}
				if a.Result == "invalid" {
					want.WriteString(input[a.Line-1])
				}
			}
			got, err := os.ReadFile(rejects)
			switch {
			case err != nil:
				t.Error(err)
			case signal == syscall.SIGKILL && !strings.HasPrefix(string(got), want.String()): // may have more than was printed
				t.Error("the rejects are not complete")
			case signal != syscall.SIGKILL && string(got) != want.String():
				t.Errorf("%d bytes of rejects, want %d", len(got), want.Len())
			}
			if signal != syscall.SIGKILL {
				next := fmt.Sprintf("nothing submitted from line %d on; submit the whole input again", len(answers)+1)
				if code != 1 || !strings.Contains(p.Stderr.String(), next) || !strings.Contains(p.Stderr.String(), rejects) {
					t.Errorf("exit %d, want %q: %s", code, next, p.Stderr.String())
				}
				for _, p := range all[len(answers):min(len(answers)+600, len(all))] {
					if _, err := e.Ledger.Read(e.Context(), p.Key); !errors.Is(err, ledger.ErrNotFound) {
						t.Fatalf("%s: %v", p.Key, err)
					}
				}
			}

			again := e.enqueue("", "create", name)
			results := map[string]int{}
			for _, a := range lines[answer](e, again.Stdout) {
				results[a.Result]++
			}
			if again.Code != 1 || results["invalid"] != len(all)/every || results["enqueued"]+results["duplicate"] != len(all)-len(all)/every {
				t.Errorf("exit %d, %v", again.Code, results)
			}
			fixed := e.enqueue(strings.ReplaceAll(string(got), `"colour":"red",`, ""), "create")
			if fixed.Code != 0 || strings.Count(fixed.Stdout, "enqueued") != bytes.Count(got, []byte("\n")) {
				t.Errorf("exit %d: %s", fixed.Code, fixed.Stderr)
			}
		})
	}
}

// TestCreateCompressed: a file that is compressed with gzip is submitted, and checked without
// Redis.
func TestCreateCompressed(t *testing.T) {
	slow(t)
	e := newEnv(t)
	all := samples(10)
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(programs.Input(all)))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := e.File("payments.ndjson.gz", b.String())
	dry := e.Run("enqueue", []string{"create", "--dry-run", name}, "", "REDIS_URL=redis://127.0.0.1:1/0", "PAYLOAD_KEYS=")
	if dry.Code != 0 || dry.Stderr != "" || strings.Count(dry.Stdout, `"result":"valid"}`) != len(all) {
		t.Errorf("exit %d: %s%s", dry.Code, dry.Stdout, dry.Stderr)
	}
	if _, err := e.Ledger.Read(e.Context(), all[0].Key); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("a dry run: %v", err)
	}
	if r := e.enqueue("", "create", name); r.Code != 0 || strings.Count(r.Stdout, `"result":"enqueued"}`) != len(all) {
		t.Errorf("exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	e.noSecrets()
}
