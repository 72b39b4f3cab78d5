package config

import (
	"cmp"

	"terbayar/internal/secret"
)

// Webhooks holds the endpoints that receive result events. Neither URL nor File: there are none.
type Webhooks struct {
	URL      secret.Text `name:"webhook-url" env:"WEBHOOK_URL" group:"Webhooks:" help:"The URL that receives all result events: https://, or http:// for an address of WEBHOOK_ALLOW."`
	Secret   secret.Text `name:"webhook-secret" env:"WEBHOOK_SECRET" group:"Webhooks:" help:"The secret that signs them, as Standard Webhooks: whsec_ and base64 of 24 to 64 random bytes. While it is rotated, up to three, separated by commas."`
	File     string      `name:"webhooks-file" env:"WEBHOOKS_FILE" group:"Webhooks:" predictor:"file" help:"A YAML file with several endpoints, instead of WEBHOOK_URL."`
	Allow    string      `name:"webhook-allow" env:"WEBHOOK_ALLOW" group:"Webhooks:" help:"Loopback, private and link-local addresses that endpoints may have, and those that may have no TLS: addresses and CIDRs, separated by commas."`
	Schedule string      `name:"webhook-schedule" env:"WEBHOOK_SCHEDULE" default:"5s,30s,2m,5m,10m,20m,40m,1h,2h,3h,5h,8h,12h,14h,24h" group:"Webhooks:" help:"The times between the tries of a delivery; after the last try it is given up."`
}

// Enabled reports whether there are endpoints.
func (w *Webhooks) Enabled() bool { return !w.URL.Empty() || w.File != "" }

// Validate is called by kong.
func (w *Webhooks) Validate() error {
	return cmp.Or(
		allOrNone(
			credential{"WEBHOOK_URL", !w.URL.Empty()},
			credential{"WEBHOOK_SECRET", !w.Secret.Empty()},
		),
		onlyOne("WEBHOOK_URL", !w.URL.Empty(), "WEBHOOKS_FILE", w.File != ""),
	)
}
