package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// Files reads files again when they change. A change is applied when two reads in a row, an
// interval apart, find the same content: a file that is just being written, or a certificate
// whose key is not there yet, is not used. If the new content is wrong, the former one remains in
// force.
type Files struct {
	Paths []string
	Load  func(contents [][]byte) error // applies the contents
	// OnReload is called with nil when a change was applied, and with the error when the files
	// are unreadable or wrong. It is called once for each change.
	OnReload func(error)

	applied, pending [][]byte
	problem          string // the last error of reading
}

// Read reads and applies the files for the first time.
func (f *Files) Read() error {
	contents, err := f.read()
	if err != nil {
		return err
	}
	f.applied = contents
	return f.Load(contents)
}

// filesInterval is the time between two reads of the files, which are small.
const filesInterval = time.Second

// Watch reads the files at an interval (0: a second) until the context ends.
func (f *Files) Watch(ctx context.Context, interval time.Duration) {
	if interval == 0 {
		interval = filesInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f.check()
		}
	}
}

func (f *Files) check() {
	contents, err := f.read()
	if err != nil {
		if f.problem != err.Error() {
			f.problem = err.Error()
			f.OnReload(err)
		}
		return
	}
	equal := func(other [][]byte) bool { return slices.EqualFunc(contents, other, slices.Equal) }
	switch {
	case equal(f.applied):
		f.pending = nil
		if f.problem != "" { // readable again
			f.OnReload(nil)
		}
	case !equal(f.pending):
		f.pending = contents
	default:
		f.applied, f.pending = contents, nil
		f.OnReload(f.Load(contents))
	}
	f.problem = ""
}

func (f *Files) read() ([][]byte, error) {
	var contents [][]byte
	for _, path := range f.Paths {
		content, err := os.ReadFile(path) //nolint:gosec // G304: the operator's own setting
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	return contents, nil
}

// Certificate is a TLS certificate that may be replaced at any time.
type Certificate struct {
	current atomic.Pointer[tls.Certificate]
}

// Load replaces the certificate by the one in two files: certificate and key.
func (c *Certificate) Load(contents [][]byte) error {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return fmt.Errorf("api: TLS certificate: %w", err)
	}
	c.current.Store(&pair)
	return nil
}

// Expires returns the end of the certificate's validity.
func (c *Certificate) Expires() time.Time {
	leaf := c.leaf()
	if leaf == nil {
		return time.Time{}
	}
	return leaf.NotAfter
}

func (c *Certificate) leaf() *x509.Certificate { return c.current.Load().Leaf }

// TLS returns a configuration that always uses the present certificate.
func (c *Certificate) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}

// LogReload returns a function for Files.OnReload that logs.
func LogReload(log *slog.Logger, what string, failed func(bool)) func(error) {
	return func(err error) {
		failed(err != nil)
		if err != nil {
			log.Error("a changed file could not be applied: its former content remains in force", "file", what, "error", err)
			return
		}
		log.Info("a changed file was applied", "file", what)
	}
}
