package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retention"
	"terbayar/internal/terminal"
)

type statusCmd struct {
	Gateway string `arg:"" help:"amdigipay or paydia."`
	ID      string `arg:"" name:"id" help:"The transaction_id (AM) or the partnerReferenceNo (Paydia)."`
	JSON    bool   `name:"json" help:"Print one JSON object."`

	Archive config.Archive `embed:""`
}

func (c *statusCmd) run(ctx context.Context, all *cli, client redis.UniversalClient, out, notes io.Writer) error {
	gateway, err := payment.ParseGateway(c.Gateway)
	if err != nil {
		return config.Wrong("GATEWAY", err)
	}
	reader := ledger.NewReader(client, all.Ledger.Partitions)
	err = checkPartitions(reader.ReadPartitions(ctx))
	if err != nil {
		return err
	}
	r, err := reader.Read(ctx, payment.Key{Gateway: gateway, TransactionID: c.ID})
	if err != nil {
		return asUnreachable(err)
	}
	shown, missing := retention.StatusOf(r, c.Archive.Dir)
	if missing != "" {
		note(notes, missing)
	}
	if c.JSON {
		return writeJSON(out, shown)
	}
	_, err = io.WriteString(out, statusTable(&shown))
	return err
}

// lineWidth is the width of the table: every terminal has 80 columns.
const lineWidth = 80

// row is a row of the table. Long values are wrapped, unless they are to be copied.
type row struct {
	label, value string
	copied       bool
}

func statusTable(p *retention.Status) string {
	var table strings.Builder
	for _, r := range []row{
		{"gateway", string(p.Gateway), false},
		{"transaction id", p.TransactionID, true},
		{"status", string(p.Status), false},
		{"reason", p.Reason, false},
		{"gateway status", p.GatewayStatus, false},
		{"gateway reference", p.GatewayReference, true},
		{"amount", fmt.Sprintf("Rp %d", p.Amount), false},
		{"created at", formatTime(p.CreatedAt), false},
		{"updated at", formatTime(p.UpdatedAt), false},
		{"next at", formatTime(p.NextAt), false},
		{"archived on", string(p.ArchivedOn), false},
		{"payment links", p.PaymentLinks, true},
		{"payment code", p.PaymentCode, true},
		{"QR code", p.QRCode, true},
	} {
		r.write(&table, "", 17)
	}
	if len(p.Attempts) == 0 {
		return table.String()
	}
	// The gateway's message is below its attempt: it may be long.
	const line = "%3v %-20s %-8s %-15s %4s %-13s %7s\n"
	fmt.Fprintf(&table, "\n"+line, "#", "at", "kind", "code", "http", "action", "ms")
	for i, a := range p.Attempts {
		status := ""
		if a.HTTPStatus != 0 {
			status = fmt.Sprint(a.HTTPStatus)
		}
		fmt.Fprintf(&table, line, i+1, formatTime(a.At), cell(string(a.Kind), 8), cell(a.Code, 15), status,
			cell(a.Action, 13), fmt.Sprint(a.DurationMS))
		for _, r := range []row{
			{"external id", a.ExternalID, true},
			{"message", a.Message, false},
		} {
			r.write(&table, "    ", 11)
		}
	}
	return table.String()
}

// formatTime returns "" for the zero time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// cell cuts a text to the width of its column.
func cell(value string, width int) string { return text.Snip(terminal.Safe(value), width, "~") }

// write writes the row, unless its value is empty. A value that is to be copied and does not
// fit next to its label gets its own line, from the first column on.
func (r row) write(table *strings.Builder, indent string, labels int) {
	value := terminal.Safe(r.value)
	if value == "" {
		return
	}
	label := fmt.Sprintf("%s%-*s  ", indent, labels, r.label)
	width := lineWidth - len(label)
	switch {
	case text.StringWidth(value) <= width:
		table.WriteString(label + value + "\n")
	case r.copied:
		table.WriteString(strings.TrimRight(label, " ") + "\n" + value + "\n")
	default:
		for i, part := range wrap(value, width) {
			if i == 1 {
				label = strings.Repeat(" ", len(label))
			}
			table.WriteString(label + part + "\n")
		}
	}
}

// wrap breaks a text into lines, at its spaces where it can.
func wrap(value string, width int) []string {
	var lines []string
	line, used := "", 0
	for word := range strings.FieldsSeq(value) {
		if used > 0 && used+1+text.StringWidth(word) <= width {
			line, used = line+" "+word, used+1+text.StringWidth(word)
			continue
		}
		if used > 0 {
			lines = append(lines, line)
			line, used = "", 0
		}
		for _, r := range word {
			if w := text.RuneWidth(r); used+w > width {
				lines = append(lines, line)
				line, used = string(r), w
			} else {
				line, used = line+string(r), used+w
			}
		}
	}
	return append(lines, line)
}
