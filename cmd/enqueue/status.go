package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/config"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

type statusCmd struct {
	Gateway string `arg:"" help:"amdigipay or paydia."`
	ID      string `arg:"" name:"id" help:"The transaction_id, or the partnerReferenceNo."`
	JSON    bool   `name:"json" help:"Print one JSON object."`
}

func (c *statusCmd) run(ctx context.Context, client redis.UniversalClient, out io.Writer) error {
	gateway, err := payment.ParseGateway(c.Gateway)
	if err != nil {
		return config.Wrong("GATEWAY", err)
	}
	r, err := ledger.NewReader(client).Read(ctx, payment.Key{Gateway: gateway, TransactionID: c.ID})
	if err != nil {
		return reached(err)
	}
	if c.JSON {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		return enc.Encode(r.Payment)
	}
	return writeStatus(out, &r.Payment)
}

func writeStatus(out io.Writer, p *payment.Payment) error {
	// Without a frame: a QR code is long, and wants to be copied whole.
	head := table.NewWriter()
	head.SetStyle(table.StyleLight)
	head.Style().Options = table.OptionsNoBordersAndSeparators
	for _, row := range [][2]string{
		{"gateway", string(p.Gateway)},
		{"transaction id", p.TransactionID},
		{"status", string(p.Status)},
		{"reason", p.Reason},
		{"gateway status", p.GatewayStatus},
		{"gateway reference", p.GatewayReference},
		{"amount", fmt.Sprintf("Rp %d", p.Amount)},
		{"created at", p.CreatedAt.Format(time.RFC3339)},
		{"updated at", p.UpdatedAt.Format(time.RFC3339)},
		{"payment links", p.PaymentLinks},
		{"payment code", p.PaymentCode},
		{"QR code", p.QRCode},
	} {
		if row[1] != "" {
			head.AppendRow(table.Row{row[0], row[1]})
		}
	}
	attempts := table.NewWriter()
	attempts.SetStyle(table.StyleLight)
	attempts.AppendHeader(table.Row{"#", "at", "kind", "code", "http", "action", "ms", "external id"})
	for i, a := range p.Attempts {
		attempts.AppendRow(table.Row{
			i + 1, a.At.Format(time.RFC3339), a.Kind, a.Code, a.HTTPStatus, a.Action, a.DurationMS, a.ExternalID,
		})
	}
	_, err := fmt.Fprintf(out, "%s\n%s\n", head.Render(), attempts.Render())
	return err
}
