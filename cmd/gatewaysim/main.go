// Command gatewaysim serves both simulated gateways, AM Digital Payment and Paydia SNAP,
// with faults to switch on. It prints the settings for a worker that uses them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// errUsage marks errors in flags and environment variables.
var errUsage = errors.New("wrong usage")

// exitCode prints the error and returns 2 for wrong usage, 1 for any other error.
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

// run serves until ctx is done.
func run(ctx context.Context, args []string, out io.Writer) error {
	settings, done, err := parse(args, out)
	if err != nil || done {
		return err
	}
	config, err := settings.config()
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	options := gatewaysim.ServerOptions{Addr: settings.Addr}
	switch {
	case settings.Paydia.PublicKeyFile != "":
		config.Paydia.PublicKey, err = readPublicKey(settings.Paydia.PublicKeyFile)
	case settings.Paydia.KeyDir != "":
		options.PrivateKeyFile, options.PrivateKey, err = loadPrivateKey(settings.Paydia.KeyDir)
	}
	if err != nil {
		return err
	}
	server, err := gatewaysim.NewServer(config, options)
	if err != nil {
		return err
	}
	if settings.History > 0 {
		server.AddOtherTransactions(settings.History, 24*time.Hour, gatewaysim.Customer{Behaviour: gatewaysim.Pays})
	}
	server.SetListMotion(gatewaysim.ListMotion{NewRows: settings.ListNewRows, PaidRows: settings.ListPaidRows})
	printSettings(out, server)
	select {
	case err := <-server.Failed():
		return err
	case <-ctx.Done():
		return server.Close()
	}
}

// printSettings prints the addresses of the gateways, and commands for sh that set the
// worker's environment. The secrets in it are the simulators' own.
func printSettings(out io.Writer, server *gatewaysim.Server) {
	var b strings.Builder
	fmt.Fprintf(&b, "# AM Digital Payment  %[1]s/api\n# Paydia SNAP         %[1]s/snap/v1.0\n# admin               %[1]s/admin/summary\n", server.URL)
	for _, v := range server.Settings() {
		fmt.Fprintf(&b, "export %s=%s\n", v.Name, shellQuote(oneLine(v.Value)))
	}
	_, _ = io.WriteString(out, b.String())
}

// oneLine writes line breaks as \n, as PAYDIA_PRIVATE_KEY allows.
func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", `\n`) }

// shellQuote quotes a text for sh.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
