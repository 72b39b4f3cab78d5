// Package telemetry is how the programs are watched: logs and metrics.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"
)

// NewLogger makes a logger that writes to w. The level is debug, info, warn or
// error; the format is json, text, or auto: text on a terminal, json elsewhere.
// Text is coloured on a terminal only.
//
// Attributes whose names look like those of secrets are masked. This is a second
// net: secrets are secret.Text, which masks itself.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("telemetry: unknown log level %q", level)
	}
	terminal := isTerminal(w)
	if format == "auto" {
		format = "json"
		if terminal {
			format = "text"
		}
	}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l, ReplaceAttr: mask})), nil
	case "text":
		return slog.New(tint.NewTextHandler(w, &tint.Options{
			Level: l, ReplaceAttr: mask, NoColor: !terminal, TimeFormat: time.TimeOnly + ".000",
		})), nil
	default:
		return nil, fmt.Errorf("telemetry: unknown log format %q", format)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// secretWords are what the name of an attribute with a secret may hold; one that
// ends in "key" or "keys" is masked too.
var secretWords = []string{"authorization", "token", "password", "passwd", "secret", "signature", "credential", "cookie"}

func mask(groups []string, a slog.Attr) slog.Attr {
	if looksSecret(a.Key) || slices.ContainsFunc(groups, looksSecret) {
		a.Value = slog.StringValue("[masked]")
	}
	return a
}

func looksSecret(name string) bool {
	name = strings.ToLower(name)
	return strings.HasSuffix(name, "key") || strings.HasSuffix(name, "keys") ||
		slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(name, w) })
}

// AsynqLogger lets asynq log through slog. Where asynq would end the process
// (Fatal), it only says so: what ends the worker is for main.
//
// While Redis is away asynq complains without end. Of warnings and errors that
// differ in numbers, names and addresses only, one in repeatAfter is told, with how
// many were left out before it; those are there at level debug.
func AsynqLogger(l *slog.Logger) asynq.Logger {
	return &asynqLogger{log: l, told: make(map[string]telling)}
}

// repeatAfter is how long a line of one kind stands for all of them.
const repeatAfter = 30 * time.Second

type asynqLogger struct {
	log *slog.Logger

	mu   sync.Mutex
	told map[string]telling // by the kind of line; there are about twenty
}

// telling is what was told of one kind of line.
type telling struct {
	at      time.Time // when one was last told
	leftOut int       // how many were not, since
}

func (a *asynqLogger) Debug(args ...any) { a.log.Debug(text(args)) }
func (a *asynqLogger) Info(args ...any)  { a.log.Info(text(args)) }
func (a *asynqLogger) Warn(args ...any)  { a.once(slog.LevelWarn, text(args)) }
func (a *asynqLogger) Error(args ...any) { a.once(slog.LevelError, text(args)) }
func (a *asynqLogger) Fatal(args ...any) { a.log.Error(text(args), "fatal", true) }

func text(args []any) string { return "asynq: " + fmt.Sprint(args...) }

// varying is what may differ between two lines of one kind: task ids, lists of
// them, and whatever has a digit in it.
var varying = regexp.MustCompile(`\bid=\S+|\[[^\]]*\]|\S*[0-9]\S*`)

// once logs a line unless one of its kind has just been logged.
func (a *asynqLogger) once(level slog.Level, line string) {
	kind, now := level.String()+varying.ReplaceAllString(line, ""), time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.told[kind]
	if !before.at.IsZero() && now.Sub(before.at) < repeatAfter {
		before.leftOut++
		a.told[kind] = before
		a.log.Debug(line)
		return
	}
	a.told[kind] = telling{at: now}
	if before.leftOut > 0 {
		a.log.Log(context.Background(), level, line, "left_out", before.leftOut)
	} else {
		a.log.Log(context.Background(), level, line)
	}
}
