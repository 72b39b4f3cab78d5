package main

import (
	"fmt"
	"io"

	"terbayar/internal/api"
	"terbayar/internal/config"
	"terbayar/internal/payment"
)

type keysCmd struct {
	New keysNewCmd `cmd:"" help:"Make an API key for enqueue serve."`
}

type keysNewCmd struct {
	Name     string `arg:"" help:"The name of its user, for logs and metrics. Several keys may have one name."`
	Gateway  string `help:"It sees and submits only payments of this gateway."`
	Prefix   string `help:"It sees and submits only payments whose transaction ids begin with this text."`
	Until    string `placeholder:"DATE" help:"The last day on which it works, as YYYY-MM-DD, in Jakarta."`
	ReadOnly bool   `name:"read-only" help:"It submits no payments."`
}

// Help is shown below the one-line help.
func (c *keysNewCmd) Help() string {
	return `It prints two lines: the key, which is shown only here and is sent as "Authorization: Bearer tbr_...", and the line for
API_KEYS_FILE or API_KEYS, which has only its SHA-256.`
}

func (c *keysNewCmd) run(out, notes io.Writer) error {
	scope := api.Scope{Prefix: c.Prefix, ReadOnly: c.ReadOnly}
	if c.Gateway != "" {
		var err error
		if scope.Gateway, err = payment.ParseGateway(c.Gateway); err != nil {
			return config.Wrong("--gateway", err)
		}
	}
	token, key, err := api.NewKey(c.Name, scope, c.Until)
	if err != nil {
		return config.Invalid(err)
	}
	note(notes, "line 1 is the key, for the order system; it is not shown again. Line 2 is for API_KEYS_FILE")
	_, err = fmt.Fprintf(out, "%s\n%s\n", token, key)
	return err
}
