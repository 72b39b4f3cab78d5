package worker

import (
	"context"
	"log/slog"
	"time"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

// logLine is the message and the level of a log line.
type logLine struct {
	message string
	level   slog.Level
}

// submitLines are the log lines of submits, by what the retry policy decided.
var submitLines = map[retrypolicy.Action]logLine{
	retrypolicy.Accept:       {"submit accepted", slog.LevelInfo},
	retrypolicy.Retry:        {"submit refused, will retry", slog.LevelInfo},
	retrypolicy.RefreshToken: {"access token refused, will retry", slog.LevelInfo},
	retrypolicy.Verify:       {"submit outcome unknown", slog.LevelWarn},
	retrypolicy.Reject:       {"submit rejected", slog.LevelInfo},
	retrypolicy.Review:       {"submit needs review", slog.LevelError},
}

// notSent is the log line of a submit that did not leave the worker.
var notSent = logLine{"submit not sent, will retry", slog.LevelInfo}

// lookupLines are the log lines of lookups that did not find the payment, or found
// something that needs manual review.
var lookupLines = map[retrypolicy.Action]logLine{
	retrypolicy.Verify: {"lookup: outcome still unknown", slog.LevelInfo},
	retrypolicy.Retry:  {"lookup: not found, will submit again", slog.LevelWarn},
	retrypolicy.Review: {"lookup needs review", slog.LevelError},
}

// foundLines are the log lines of lookups that changed a payment's status, by its new
// status.
var foundLines = map[payment.Status]logLine{
	payment.OnProcessing: {"lookup found: on_processing", slog.LevelInfo},
	payment.Paid:         {"lookup found: paid", slog.LevelInfo},
	payment.Failed:       {"lookup found: failed", slog.LevelInfo},
	payment.Expired:      {"lookup found: expired", slog.LevelInfo},
	payment.Cancelled:    {"lookup found: cancelled", slog.LevelInfo},
	payment.Refunded:     {"lookup found: refunded", slog.LevelInfo},
}

// lineOf returns the log line of an attempt that led to the status. It reports false for
// a combination that does not occur.
func lineOf(a payment.Attempt, status payment.Status) (logLine, bool) {
	action := retrypolicy.Action(a.Action)
	var line logLine
	var ok bool
	switch {
	case a.Kind == payment.KindSubmit && action == retrypolicy.Retry && a.HTTPStatus == 0:
		return notSent, true
	case a.Kind == payment.KindSubmit:
		line, ok = submitLines[action]
	case a.Kind == payment.KindLookup && action == retrypolicy.Accept:
		line, ok = foundLines[status]
	case a.Kind == payment.KindLookup:
		line, ok = lookupLines[action]
	}
	return line, ok
}

// onAttempt logs and counts an attempt that is recorded in the ledger. A lookup that
// changes nothing is not recorded, and so not logged.
func (w *Worker) onAttempt(r *ledger.Record, a payment.Attempt, detail error) {
	w.metrics.Attempt(r.Gateway, a)
	if w.webhooks != nil {
		w.webhooks.Wake()
	}
	line, ok := lineOf(a, r.Status)
	if !ok { // the attributes show which combination is missing in the tables
		line = logLine{"attempt with an unexpected result", slog.LevelError}
	}
	if ctx := context.Background(); w.log.Enabled(ctx, line.level) {
		w.log.LogAttrs(ctx, line.level, line.message, attemptAttrs(r, a, detail, time.Now())...)
	}
}

// attemptAttrs returns the attributes of an attempt's log line. It leaves out empty values.
func attemptAttrs(r *ledger.Record, a payment.Attempt, detail error, now time.Time) []slog.Attr {
	// Of a value that is not a plain string slog would ask encoding/json for its text.
	attrs := make([]slog.Attr, 0, 13)
	attrs = append(attrs,
		slog.String("gateway", string(r.Gateway)), slog.String("transaction_id", r.TransactionID),
		slog.String("kind", string(a.Kind)), slog.String("code", a.Code), slog.String("action", a.Action),
		slog.String("status", string(r.Status)), slog.Int64("duration_ms", a.DurationMS),
	)
	if a.HTTPStatus != 0 {
		attrs = append(attrs, slog.Int("http_status", a.HTTPStatus))
	}
	if a.ExternalID != "" {
		attrs = append(attrs, slog.String("external_id", a.ExternalID))
	}
	if a.Message != "" {
		attrs = append(attrs, slog.String("message", a.Message))
	}
	if r.Reason != "" {
		attrs = append(attrs, slog.String("reason", r.Reason))
	}
	if detail != nil {
		attrs = append(attrs, slog.Any("detail", detail))
	}
	if next := r.NextAttempt(now); !next.IsZero() {
		attrs = append(attrs, slog.String("next", next.UTC().Format(time.RFC3339)))
	}
	return attrs
}

// logExpired logs a payment that expired before it was sent.
func (w *Worker) logExpired(r *ledger.Record) {
	attrs := []any{"gateway", r.Gateway, "transaction_id", r.TransactionID}
	if !r.ExpiresAt.IsZero() { // else it waited longer than PAYDIA_QUEUE_TTL
		attrs = append(attrs, "expires_at", r.ExpiresAt)
	}
	w.log.Warn("payment expired: not sent in time", attrs...)
}

// onUnreadable logs and counts records that a poll skipped.
func (w *Worker) onUnreadable(g payment.Gateway, ids []string, why error) {
	w.metrics.Unreadable(g, len(ids))
	w.log.Error("records skipped: damaged or written by another version", "gateway", g, "records", len(ids), "error", why)
}
