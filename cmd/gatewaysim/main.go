// Command gatewaysim serves both simulated gateways, AM Digital Payment and
// Paydia SNAP, with faults to switch on.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"terbayar/internal/gatewaysim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(exitCode(run(ctx, os.Args[1:], os.Stdout), os.Stderr))
}

// errUsage marks what is wrong with the flags or their variables.
var errUsage = errors.New("wrong usage")

// exitCode says on stderr what went wrong: 2 for wrong usage, 1 for the rest.
func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(stderr, "gatewaysim:", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

// run serves until the context ends.
func run(ctx context.Context, args []string, out io.Writer) error {
	settings, done, err := parse(args, out)
	if err != nil || done {
		return err
	}
	config, err := settings.config()
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	public, keyFile, err := settings.key()
	if err != nil {
		return err
	}
	config.Paydia.PublicKey = public

	sim := gatewaysim.New(config, time.Now)
	if settings.History > 0 {
		sim.AddStrangers(settings.History, 24*time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	}
	sim.SetListMotion(gatewaysim.ListMotion{NewRows: settings.ListNewRows, PaidRows: settings.ListPaidRows})

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", settings.Addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	announce(out, "http://"+listener.Addr().String(), config, keyFile)

	// Requests end with the context, so that an answer that a fault holds back
	// does not hold back the shutdown.
	server := &http.Server{
		Handler: sim.Handler(), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return fmt.Errorf("shut down: %w", err)
	}
	return nil
}

// announce prints where the gateways are, and the environment that points a
// worker at them. The secrets in it are the simulators' own.
func announce(out io.Writer, base string, c gatewaysim.Config, keyFile string) {
	var b strings.Builder
	fmt.Fprintf(&b, "# AM Digital Payment  %s/api\n# Paydia SNAP         %s/snap/v1.0\n# admin               %s/admin/summary\n",
		base, base, base)
	for _, v := range [][2]string{
		{"AMDIGIPAY_BASE_URL", base + "/api"},
		{"AMDIGIPAY_USERNAME", c.AM.Username},
		{"AMDIGIPAY_PASSWORD", c.AM.Password},
		{"AMDIGIPAY_SIGNATURE_SCHEME", c.AM.SignatureScheme},
		{"AMDIGIPAY_SIGNATURE_KEY", c.AM.SignatureKey},
		{"AMDIGIPAY_SIGNATURE_FIELDS", hmacFields(c.AM)},
		{"PAYDIA_BASE_URL", base + "/snap/v1.0"},
		{"PAYDIA_CLIENT_ID", c.Paydia.ClientID},
		{"PAYDIA_CLIENT_SECRET", c.Paydia.ClientSecret},
		{"PAYDIA_PRIVATE_KEY_FILE", keyFile},
		{"PAYDIA_MERCHANT_ID", c.Paydia.MerchantID},
	} {
		if v[1] != "" {
			fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuote(v[1]))
		}
	}
	_, _ = io.WriteString(out, b.String())
}

// hmacFields is empty where the scheme has no fields.
func hmacFields(c gatewaysim.AMConfig) string {
	if c.SignatureScheme != gatewaysim.SchemeHMAC {
		return ""
	}
	return strings.Join(c.SignatureFields, ",")
}

// shellQuote makes a text safe to paste into a shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
