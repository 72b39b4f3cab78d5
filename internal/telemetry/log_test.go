package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/secret"
)

func TestFormats(t *testing.T) {
	for _, row := range []struct {
		format string
		json   bool
	}{
		{"json", true},
		{"auto", true}, // a buffer is not a terminal
		{"text", false},
	} {
		var out bytes.Buffer
		log, err := NewLogger(&out, "info", row.format)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("paid", "gateway", "paydia")
		if json.Valid(out.Bytes()) != row.json || !strings.Contains(out.String(), "paid") || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%s: %q", row.format, &out)
		}
	}
}

func TestNoTerminal(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if isTerminal(f) {
		t.Error("a file counts as a terminal")
	}
}

func TestLevels(t *testing.T) {
	for level, want := range map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError} {
		log, err := NewLogger(&bytes.Buffer{}, level, "json")
		if err != nil {
			t.Fatal(err)
		}
		if h := log.Handler(); !h.Enabled(context.Background(), want) || h.Enabled(context.Background(), want-1) {
			t.Errorf("level %s does not start at %s", level, want)
		}
	}
	for _, row := range [][2]string{{"loud", "json"}, {"info", "xml"}, {"", "json"}, {"info", ""}} {
		if _, err := NewLogger(&bytes.Buffer{}, row[0], row[1]); err == nil {
			t.Errorf("%q, %q: no error", row[0], row[1])
		}
	}
}

func TestSecretsAreMasked(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		log, err := NewLogger(&out, "debug", format)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range strings.Fields(`authorization Authorization-Customer access_token customerToken password
			PAYDIA_CLIENT_SECRET X-SIGNATURE private_key PAYLOAD_KEYS apikey Cookie credentials passwd`) {
			log.Info("m", name, "hunter2")
			log.With(name, "hunter2").Info("m")
			log.WithGroup(name).Info("m", "value", "hunter2")
			log.Info("m", slog.Group("request", name, "hunter2"))
			log.Info("m", slog.Group(name, "value", "hunter2"))
			log.Info("m", name, []string{"hunter2"})
		}
		log.Info("m", "any", secret.NewText("hunter2"))
		if strings.Contains(out.String(), "hunter2") {
			t.Errorf("%s:\n%s", format, &out)
		}
		out.Reset()
		log.Info("shown", "gateway", "paydia", "transaction_id", "INV-1", "code", "5006301", "external_id", "77")
		for _, want := range []string{"shown", "paydia", "INV-1", "5006301", "77"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %s in %s", format, want, &out)
			}
		}
	}
}

func TestAsynqLogger(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, "debug", "json")
	if err != nil {
		t.Fatal(err)
	}
	l := AsynqLogger(log)
	l.Debug("a", 1)
	l.Info("b")
	l.Warn("c")
	l.Error("d")
	l.Fatal("e")
	var got []string
	for line := range strings.Lines(out.String()) {
		var entry struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		got = append(got, entry.Level+" "+entry.Msg)
	}
	want := []string{"DEBUG asynq: a1", "INFO asynq: b", "WARN asynq: c", "ERROR asynq: d", "ERROR asynq: e"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestAsynqRepeats: of each kind of message one in 30 s is logged. Messages at level info and
// fatal are always logged.
func TestAsynqRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log, err := NewLogger(&out, "info", "json")
		if err != nil {
			t.Fatal(err)
		}
		l := AsynqLogger(log)
		for _, step := range []struct {
			wait time.Duration
			log  func(args ...any)
			text string
			want string // the level, and how many were left out; "" when nothing is logged
		}{
			{0, l.Error, "Dequeue error: dial tcp 127.0.0.1:6379: connect: connection refused", "ERROR"},
			{0, l.Error, "Dequeue error: dial tcp 127.0.0.2:6380: connect: connection refused", ""},
			{0, l.Error, "Dequeue error: OOM command not allowed", "ERROR"},
			{0, l.Error, "Failed to forward scheduled tasks: dial tcp 127.0.0.1:6379: connect: connection refused", "ERROR"},
			{time.Second, l.Error, "Failed to extend lease for tasks [paydia:ORD-A paydia:B]: EOF", "ERROR"},
			{0, l.Error, "Failed to extend lease for tasks [amdigipay:C]: EOF", ""},
			{0, l.Warn, "Retry exhausted for task id=paydia:ORD", "WARN"},
			{0, l.Warn, "Retry exhausted for task id=paydia:ABC", ""},
			{0, l.Error, "Retry exhausted for task id=paydia:ABC", "ERROR"}, // another level is another kind
			{0, l.Fatal, "could not start", "ERROR"},
			{0, l.Fatal, "could not start", "ERROR"},
			{0, l.Info, "Exiting", "INFO"},
			{0, l.Info, "Exiting", "INFO"},
			{28*time.Second + 999*time.Millisecond, l.Error, "Dequeue error: dial tcp 127.0.0.1:6379: connect: connection refused", ""},
			{time.Millisecond, l.Error, "Dequeue error: dial tcp 127.0.0.1:6379: connect: connection refused", "ERROR, 2 left out"},
			{0, l.Error, "Dequeue error: OOM command not allowed", "ERROR"},
			{time.Second, l.Error, "Dequeue error: dial tcp 127.0.0.1:6379: connect: connection refused", ""},
			{29 * time.Second, l.Error, "Dequeue error: dial tcp 127.0.0.1:6379: connect: connection refused", "ERROR, 1 left out"},
			{30 * time.Second, l.Error, "Dequeue error: dial tcp 127.0.0.1:6379: connect: connection refused", "ERROR"},
		} {
			time.Sleep(step.wait)
			out.Reset()
			step.log(step.text)
			got := ""
			if out.Len() > 0 {
				var entry struct {
					Level, Msg string
					LeftOut    int `json:"left_out"`
				}
				if err := json.Unmarshal(out.Bytes(), &entry); err != nil || entry.Msg != "asynq: "+step.text {
					t.Fatalf("%v: %s", err, &out)
				}
				if got = entry.Level; entry.LeftOut > 0 {
					got += fmt.Sprintf(", %d left out", entry.LeftOut)
				}
			}
			if got != step.want {
				t.Errorf("%s: %q, want %q", step.text, got, step.want)
			}
		}
	})
}

// TestOmittedLinesAtDebug: omitted messages are logged at level debug.
func TestOmittedLinesAtDebug(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, "debug", "json")
	if err != nil {
		t.Fatal(err)
	}
	l := AsynqLogger(log)
	for _, id := range []string{"A", "B", "C"} {
		l.Warn("Could not remove task id=" + id)
	}
	for _, want := range []string{"id=A", "id=B", "id=C"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, &out)
		}
	}
}
