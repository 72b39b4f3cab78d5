// Package telemetry provides logs and metrics.
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

// NewLogger returns a logger that writes to w. The level is debug, info, warn or error; the
// format is json, text, or auto: text on a terminal, json elsewhere. Text is coloured on a
// terminal only.
//
// Attributes whose names look like those of secrets are masked. This is a second
// protection: secrets have the type secret.Text, which masks itself.
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

// secretWords are parts of names of secret attributes. A name that ends in "key" or "keys" is
// secret, too.
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

// AsynqLogger returns a logger for asynq that writes to l. A message at level Fatal does not
// end the process.
//
// While Redis is down, asynq logs the same errors again and again. Messages that differ only
// in numbers, ids and addresses are of one kind. Of each kind, one warning or error in
// repeatInterval is logged, with the number of omitted ones (left_out); those are logged at
// level debug.
func AsynqLogger(l *slog.Logger) asynq.Logger {
	return &asynqLogger{log: l, logged: make(map[string]repeats)}
}

const repeatInterval = 30 * time.Second

type asynqLogger struct {
	log *slog.Logger

	mu     sync.Mutex
	logged map[string]repeats // by level and kind, of which there are about twenty
}

// repeats counts the messages of one kind.
type repeats struct {
	at      time.Time // when one was last logged
	leftOut int       // how many have been omitted since
}

func (a *asynqLogger) Debug(args ...any) { a.log.Debug(text(args)) }
func (a *asynqLogger) Info(args ...any)  { a.log.Info(text(args)) }
func (a *asynqLogger) Warn(args ...any)  { a.limited(slog.LevelWarn, text(args)) }
func (a *asynqLogger) Error(args ...any) { a.limited(slog.LevelError, text(args)) }
func (a *asynqLogger) Fatal(args ...any) { a.log.Error(text(args), "fatal", true) }

func text(args []any) string { return "asynq: " + fmt.Sprint(args...) }

// varying matches what may differ between messages of one kind: task ids, lists of them, and
// words with a digit.
var varying = regexp.MustCompile(`\bid=\S+|\[[^\]]*\]|\S*[0-9]\S*`)

// limited logs a message unless one of its kind was logged within repeatInterval.
func (a *asynqLogger) limited(level slog.Level, line string) {
	kind, now := level.String()+varying.ReplaceAllString(line, ""), time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.logged[kind]
	if !before.at.IsZero() && now.Sub(before.at) < repeatInterval {
		before.leftOut++
		a.logged[kind] = before
		a.log.Debug(line)
		return
	}
	a.logged[kind] = repeats{at: now}
	if before.leftOut > 0 {
		a.log.Log(context.Background(), level, line, "left_out", before.leftOut)
	} else {
		a.log.Log(context.Background(), level, line)
	}
}
