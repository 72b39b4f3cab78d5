package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"terbayar/internal/api"
	"terbayar/internal/redistest"
)

// TestShutdown: clients that, as a load balancer, send new requests until /readyz is 503 see no
// failed request, a request that waits is answered, and a batch finishes.
func TestShutdown(t *testing.T) {
	e := newEnv(t, redistest.Server(t).Client(t), func(e *env) { e.options.ShutdownDelay = 300 * time.Millisecond })
	var load sync.WaitGroup
	var answered atomic.Int64
	for c := range 8 {
		load.Go(func() {
			for i := 0; ; i++ {
				if a := e.do("GET", "/readyz", ""); a.StatusCode != 200 {
					return
				}
				if a := e.do("POST", "/v1/payments", paydia(fmt.Sprintf("ORD-%d-%d", c, i))); a.StatusCode != 202 {
					t.Errorf("%d %s", a.StatusCode, a.body)
				}
				answered.Add(1)
			}
		})
	}
	load.Go(func() {
		if a := e.do("POST", "/v1/payments?wait=30s", paydia("WAIT")); a.StatusCode != 202 {
			t.Errorf("wait: %d %s", a.StatusCode, a.body)
		}
	})
	lines, answers := e.startBatch()
	fmt.Fprintln(lines, paydia("BATCH-1"))
	if answer, err := answers.ReadString('\n'); err != nil {
		t.Fatal(answer, err)
	}
	for answered.Load() < 100 {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	e.stop()
	load.Wait()
	for {
		conn, err := net.Dial("tcp", e.addr)
		if err != nil {
			break // it accepts no connection any more
		}
		conn.Close()
	}
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("connections were accepted for %v", took)
	}
	fmt.Fprintln(lines, paydia("BATCH-2"))
	lines.Close()
	if rest, err := io.ReadAll(answers); err != nil || !strings.Contains(string(rest), `"BATCH-2","result":"enqueued"`) {
		t.Errorf("%s %v", rest, err)
	}
	t.Logf("%d requests", answered.Load())
}

// TestShutdownCutsBatch: a batch that does not finish in time is cut off, and what was received of
// it is answered.
func TestShutdownCutsBatch(t *testing.T) {
	e := newEnv(t, redistest.Mini(t), func(e *env) { e.options.ShutdownTimeout = 100 * time.Millisecond })
	lines, answers := e.startBatch()
	defer lines.Close()
	fmt.Fprintln(lines, paydia("ORD-1"))
	if answer, err := answers.ReadString('\n'); err != nil || !strings.Contains(answer, `"enqueued"`) {
		t.Fatal(answer, err)
	}
	e.stop()
	if _, err := answers.ReadString('\n'); err == nil || err == io.EOF {
		t.Errorf("the answer ends with %v", err)
	}
}

// TestMetricsListener: with a listener of their own, /metrics, /healthz and /readyz are there alone, without
// TLS, and until the shutdown ends: /readyz reports it.
func TestMetricsListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t, redistest.Mini(t), func(e *env) { e.options.MetricsListener = l })
	get := func(path string) int {
		t.Helper()
		res, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		if a := e.do("GET", path, ""); a.StatusCode != 404 {
			t.Errorf("%s is on the public listener: %d", path, a.StatusCode)
		}
		if a := e.do("POST", path, "{}"); a.StatusCode != 404 {
			t.Errorf("POST %s is on the public listener: %d", path, a.StatusCode)
		}
		if status := get(path); status != 200 {
			t.Errorf("%s: %d", path, status)
		}
	}
	for _, path := range []string{"/v1/payments?gateway=paydia&id=ORD-1", "/v1/events", "/openapi.json", "/docs"} {
		if status := get(path); status != 404 {
			t.Errorf("%s is on the listener of the metrics: %d", path, status)
		}
	}
	lines, answers := e.startBatch()
	fmt.Fprintln(lines, paydia("BATCH-1"))
	if answer, err := answers.ReadString('\n'); err != nil {
		t.Fatal(answer, err)
	}
	e.stop()
	for get("/readyz") != 503 {
		time.Sleep(time.Millisecond)
	}
	if status := get("/healthz"); status != 200 {
		t.Errorf("/healthz during the shutdown: %d", status)
	}
	lines.Close()
	if rest, err := io.ReadAll(answers); err != nil {
		t.Error(string(rest), err)
	}
	if err := <-e.done; err != nil {
		t.Error(err)
	}
	e.done <- nil // for the cleanup
	if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
		conn.Close()
		t.Error("the listener of the metrics is left")
	}
}

// certificate writes a new certificate for 127.0.0.1 and its key.
func certificate(t *testing.T, name string, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTLS: HTTP/2 over TLS, batches included, with a certificate that is replaced.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	certificate(t, "first", certFile, keyFile)
	cert := &api.Certificate{}
	reloads := make(chan error, 10)
	files := &api.Files{Paths: []string{certFile, keyFile}, Load: cert.Load, OnReload: func(err error) { reloads <- err }}
	if err := files.Read(); err != nil {
		t.Fatal(err)
	}
	go files.Watch(t.Context(), 10*time.Millisecond)

	e := newEnv(t, redistest.Mini(t))
	e.options.Keys = e.keys
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- api.New(e.options).Serve(ctx, l, cert.TLS()) }()
	post := func(path, body string) (answer, protocol, name string) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // G402: its own certificate
		defer client.CloseIdleConnections()
		r, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+l.Addr().String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+e.key)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text), res.Proto, res.TLS.PeerCertificates[0].DNSNames[0]
	}
	if a, protocol, name := post("/v1/payments", paydia("ORD-1")); !strings.Contains(a, `"enqueued"`) || protocol != "HTTP/2.0" || name != "first" {
		t.Error(a, protocol, name)
	}
	if a, protocol, _ := post("/v1/payments/batch", paydia("ORD-1")+"\n"+paydia("ORD-2")); strings.Count(a, "\n") != 2 || protocol != "HTTP/2.0" {
		t.Error(a, protocol)
	}
	certificate(t, "second", certFile, keyFile)
	if err := <-reloads; err != nil {
		t.Fatal(err)
	}
	if a, _, name := post("/v1/payments", paydia("ORD-1")); !strings.Contains(a, `"duplicate"`) || name != "second" {
		t.Error(a, name)
	}
	if err := os.WriteFile(certFile, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-reloads; err == nil {
		t.Error("a wrong certificate is applied")
	}
	if _, _, name := post("/v1/payments", paydia("ORD-1")); name != "second" {
		t.Error(name)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
