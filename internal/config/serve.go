package config

import (
	"cmp"
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
	ShutdownDelay   time.Duration `name:"serve-shutdown-delay" env:"SERVE_SHUTDOWN_DELAY" default:"5s" group:"HTTP API:" help:"How long requests are accepted after SIGTERM, while /readyz is 503 already: load balancers need this time."`
	ShutdownTimeout time.Duration `name:"serve-shutdown-timeout" env:"SERVE_SHUTDOWN_TIMEOUT" default:"20s" group:"HTTP API:" help:"How long requests in flight may take after that; a batch is then cut off, which may take 8s more."`
}

// Validate is called by kong.
func (s *Serve) Validate() error {
	var metrics error
	if s.MetricsAddr != "" {
		metrics = address("SERVE_METRICS_ADDR", s.MetricsAddr)
	}
	return cmp.Or(
		address("SERVE_HTTP_ADDR", s.HTTPAddr), metrics,
		allOrNone(
			credential{"SERVE_TLS_CERT_FILE", s.TLSCertFile != ""},
			credential{"SERVE_TLS_KEY_FILE", s.TLSKeyFile != ""},
		),
		oneSource("API_KEYS", !s.Keys.Empty(), s.KeysFile),
		atLeast("SERVE_SHUTDOWN_DELAY", s.ShutdownDelay, 0),
		atLeast("SERVE_SHUTDOWN_TIMEOUT", s.ShutdownTimeout, time.Millisecond),
	)
}
