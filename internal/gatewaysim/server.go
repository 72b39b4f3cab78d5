package gatewaysim

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Server is both simulated gateways, served on one address.
type Server struct {
	*Sim

	URL        string // "http://127.0.0.1:12345", without a path
	PrivateKey []byte // Paydia's private key (PEM); nil if Config.Paydia.PublicKey was set

	options ServerOptions
	server  *http.Server
	cancel  context.CancelFunc // ends the callbacks, and the answers that a fault holds back
	failed  chan error
	sending sync.WaitGroup // callbacks
}

// ServerOptions are the optional parts of a Server.
type ServerOptions struct {
	Addr       string                          // to listen on; default "127.0.0.1:0"
	Now        func() time.Time                // default time.Now
	Middleware func(http.Handler) http.Handler // around the handler of the gateways; it must not recover from panics
	// PrivateKey (PEM, PKCS#8) is used instead of a new key pair.
	PrivateKey []byte
	// PrivateKeyFile is where the caller keeps the private key: Settings then names the
	// file and does not contain the key.
	PrivateKeyFile string
}

// NewServer starts both gateways. If the configuration has no public key for Paydia and
// the options no private key, it generates a key pair. The caller must call Close.
func NewServer(config Config, o ServerOptions) (*Server, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{options: o, failed: make(chan error, 1)}
	if config.Paydia.PublicKey == nil {
		var err error
		if s.PrivateKey, config.Paydia.PublicKey, err = keyPair(o.PrivateKey); err != nil {
			return nil, err
		}
	}
	s.Sim = New(config, o.Now)
	listener, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("gatewaysim: %w", err)
	}
	s.URL = "http://" + listener.Addr().String()
	handler := s.Handler()
	if o.Middleware != nil {
		handler = o.Middleware(handler)
	}
	var base context.Context
	base, s.cancel = context.WithCancel(context.Background())
	s.server = &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return base },
	}
	s.sending.Go(func() { s.sendCallbacks(base) })
	go func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("gatewaysim: serve: %w", err)
		}
	}()
	return s, nil
}

// keyPair returns the private key and its public key, and generates both if there is none.
func keyPair(private []byte) ([]byte, *rsa.PublicKey, error) {
	if private == nil {
		return NewKeyPair()
	}
	block, _ := pem.Decode(private)
	if block == nil {
		return nil, nil, errors.New("gatewaysim: the private key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("gatewaysim: private key: %w", err)
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, nil, errors.New("gatewaysim: the private key is not an RSA key")
	}
	return private, &rsaKey.PublicKey, nil
}

// Failed delivers the error if the server stops by itself, before Close.
func (s *Server) Failed() <-chan error { return s.failed }

// Close answers the requests in flight at once, without the delays of faults, and stops the
// server. After one second it closes the remaining connections.
func (s *Server) Close() error {
	s.cancel()
	s.sending.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		if err := s.server.Close(); err != nil {
			return fmt.Errorf("gatewaysim: close: %w", err)
		}
	}
	return nil
}

// Setting is one environment variable of the worker.
type Setting struct{ Name, Value string }

// Settings returns the environment variables that point a worker at the simulators, in a
// fixed order and without empty ones. The secrets in them are the simulators' own.
func (s *Server) Settings() []Setting {
	am, paydia := s.config.AM, s.config.Paydia
	fields := ""
	if am.SignatureScheme == SchemeHMAC {
		fields = strings.Join(am.SignatureFields, ",")
	}
	key := Setting{"PAYDIA_PRIVATE_KEY", string(s.PrivateKey)}
	if s.options.PrivateKeyFile != "" {
		key = Setting{"PAYDIA_PRIVATE_KEY_FILE", s.options.PrivateKeyFile}
	}
	var settings []Setting
	for _, v := range []Setting{
		{"AMDIGIPAY_BASE_URL", s.URL + "/api"},
		{"AMDIGIPAY_USERNAME", am.Username},
		{"AMDIGIPAY_PASSWORD", am.Password},
		{"AMDIGIPAY_SIGNATURE_SCHEME", am.SignatureScheme},
		{"AMDIGIPAY_SIGNATURE_KEY", am.SignatureKey},
		{"AMDIGIPAY_SIGNATURE_FIELDS", fields},
		{"PAYDIA_BASE_URL", s.URL + "/snap/v1.0"},
		{"PAYDIA_CLIENT_ID", paydia.ClientID},
		{"PAYDIA_CLIENT_SECRET", paydia.ClientSecret},
		key,
		{"PAYDIA_MERCHANT_ID", paydia.MerchantID},
	} {
		if v.Value != "" {
			settings = append(settings, v)
		}
	}
	return settings
}

// Flag returns the setting as a flag of the worker: "--amdigipay-username=SIMULATED1".
func (s Setting) Flag() string {
	return "--" + strings.ToLower(strings.ReplaceAll(s.Name, "_", "-")) + "=" + s.Value
}

// String returns "NAME=value", as in os.Environ.
func (s Setting) String() string { return s.Name + "=" + s.Value }
