package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"terbayar/internal/secret"
)

// Serve holds the settings of enqueue serve.
type Serve struct {
	HTTPAddr        string        `name:"serve-http-addr" env:"SERVE_HTTP_ADDR" default:":8081" group:"HTTP API:" help:"The address to listen on."`
	MetricsAddr     string        `name:"serve-metrics-addr" env:"SERVE_METRICS_ADDR" group:"HTTP API:" help:"Another address for /metrics, /healthz and /readyz, always without TLS. They are then not at SERVE_HTTP_ADDR, which order systems reach."`
	TLSCertFile     string        `name:"serve-tls-cert-file" env:"SERVE_TLS_CERT_FILE" group:"HTTP API:" predictor:"file" help:"The TLS certificate, PEM, with its chain; read again when it changes. Without it there is no TLS."`
	TLSKeyFile      string        `name:"serve-tls-key-file" env:"SERVE_TLS_KEY_FILE" group:"HTTP API:" predictor:"file" help:"The key of the TLS certificate, PEM."`
	Keys            secret.Text   `name:"api-keys" env:"API_KEYS" group:"HTTP API:" help:"The keys of the order systems, one a line, as enqueue keys new prints them. Without any, only loopback callers are answered."`
	KeysFile        string        `name:"api-keys-file" env:"API_KEYS_FILE" group:"HTTP API:" predictor:"file" help:"The file with the keys; read again when it changes."`
	RateLimit       Rate          `name:"serve-rate-limit" env:"SERVE_RATE_LIMIT" group:"HTTP API:" placeholder:"N/UNIT" help:"How many requests each API key may make, at all replicas together, e.g. 10/s, 300/m or 5000/h; a batch is one request. No limit by default."`
	TrustedProxies  Networks      `name:"serve-trusted-proxies" env:"SERVE_TRUSTED_PROXIES" group:"HTTP API:" placeholder:"NETWORKS" help:"The proxies in front of this server, as addresses and CIDRs separated by commas: their X-Forwarded-For has the address of a client, which the limit of the callbacks needs."`
	Callback        secret.Text   `name:"callback-secret" env:"CALLBACK_SECRET" group:"HTTP API:" help:"The secret part of the path of the gateways' callbacks, e.g. from openssl rand -hex 24; several separated by commas while it is changed. Without it callbacks are off."`
	CallbackFile    string        `name:"callback-secret-file" env:"CALLBACK_SECRET_FILE" group:"HTTP API:" predictor:"file" help:"The file with the secret."`
	ShutdownDelay   time.Duration `name:"serve-shutdown-delay" env:"SERVE_SHUTDOWN_DELAY" default:"5s" group:"HTTP API:" help:"How long requests are accepted after SIGTERM, while /readyz is 503 already: load balancers need this time."`
	ShutdownTimeout time.Duration `name:"serve-shutdown-timeout" env:"SERVE_SHUTDOWN_TIMEOUT" default:"20s" group:"HTTP API:" help:"How long requests in flight may take after that; a batch is then cut off, which may take 8s more."`
}

// Validate is called by kong.
func (s *Serve) Validate() error {
	var metrics error
	if s.MetricsAddr != "" {
		metrics = address("SERVE_METRICS_ADDR", s.MetricsAddr)
	}
	_, callbackErr := s.CallbackSecrets()
	return cmp.Or(
		address("SERVE_HTTP_ADDR", s.HTTPAddr), metrics,
		allOrNone(
			credential{"SERVE_TLS_CERT_FILE", s.TLSCertFile != ""},
			credential{"SERVE_TLS_KEY_FILE", s.TLSKeyFile != ""},
		),
		oneSource("API_KEYS", !s.Keys.Empty(), s.KeysFile),
		callbackErr,
		atLeast("SERVE_SHUTDOWN_DELAY", s.ShutdownDelay, 0),
		atLeast("SERVE_SHUTDOWN_TIMEOUT", s.ShutdownTimeout, time.Millisecond),
	)
}

// callbackSecret is the form of a secret: characters that no client and no proxy encodes in a path,
// and enough of them that it cannot be guessed.
var callbackSecret = regexp.MustCompile(`^[A-Za-z0-9_-]{24,200}$`)

// CallbackSecrets returns the secrets of the callbacks, from the variable or from the file. Without
// any, callbacks are off. The error contains no secret.
func (s *Serve) CallbackSecrets() ([]string, error) {
	text, variable, err := valueOrFile("CALLBACK_SECRET", s.Callback, s.CallbackFile)
	if err != nil || s.CallbackFile == "" && text.Empty() {
		return nil, err
	}
	secrets := strings.Split(strings.TrimSpace(text.Reveal()), ",")
	for i, one := range secrets {
		secrets[i] = strings.TrimSpace(one)
		if !callbackSecret.MatchString(secrets[i]) {
			return nil, wrong(variable, "secret %d is not 24 to 200 letters, digits, hyphens and underscores (openssl rand -hex 24)", i+1)
		}
		if slices.Contains(secrets[:i], secrets[i]) {
			return nil, wrong(variable, "secret %d is the same as an earlier one", i+1)
		}
	}
	return secrets, nil
}

// Networks are IP networks.
type Networks []netip.Prefix

// UnmarshalText implements encoding.TextUnmarshaler: addresses and CIDRs, separated by commas.
func (n *Networks) UnmarshalText(text []byte) error {
	*n = nil
	if len(text) == 0 {
		return nil
	}
	for i, field := range strings.Split(string(text), ",") {
		field = strings.TrimSpace(field)
		prefix, err := netip.ParsePrefix(field)
		if addr, addrErr := netip.ParseAddr(field); addrErr == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("entry %d is neither an address nor a CIDR (want e.g. 10.0.0.0/8)", i+1)
		}
		if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
		}
		*n = append(*n, prefix.Masked())
	}
	return nil
}
