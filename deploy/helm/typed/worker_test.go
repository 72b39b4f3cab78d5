package typed

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
)

// Values, as JSON, of one setting.
type sample struct {
	value, setting string // name in the chart, variable of the worker
	accepted       []string
	refused        []string // by the chart and by the worker
	stricter       []string // refused by the chart alone: the worker reports them later, or needs them elsewhere
}

// samples has a row for every setting that the chart sets: TestSamples checks it.
var samples = []sample{
	{"redis.addresses", "REDIS_URL", list(`["127.0.0.1:1"]`), list(`[]`), list(`["127.0.0.1:0"]`, `["127.0.0.1:65536"]`, `["127.0.0.1:99999"]`, `["redis"]`)},
	{"redis.database", "REDIS_URL", list(`0`, `15`), list(`-1`), list(`16`, `99`)}, // Redis has 16
	{"redis.durability", "REDIS_DURABILITY", list(`"auto"`, `"replicas"`, `"trusted"`, `"none"`), list(`"most"`, `""`), nil},
	{"redis.waitReplicas", "REDIS_WAIT_REPLICAS", list(`"auto"`, `1`, `255`), list(`-1`, `256`, `"all"`), nil},
	{"redis.waitTimeout", "REDIS_WAIT_TIMEOUT", list(`"auto"`, `"1ms"`, `"2999ms"`), list(`"0s"`, `"0.9ms"`, `"3s"`, `"9999999h"`, `"1"`), nil},
	{"amdigipay.baseUrl", "AMDIGIPAY_BASE_URL", list(`"http://127.0.0.1:1"`, `"https://[::1]:1/api/"`), list(`"127.0.0.1"`, `"ftp://a"`, `"https://a?b=c"`, `"https://a#b"`, `"https://u@a"`, `"https://a/%zz"`, `"https://a:b"`), list(`"https://a:0"`, `"https://a:99999/api"`)},
	{"amdigipay.username", "AMDIGIPAY_USERNAME", list(`"merchant"`, `"a $(HOME) $$ b"`), list(`" a"`, `"a "`, `"a\tb"`, `"a\u200b"`, `"\u00a0a"`), nil},
	{"amdigipay.signatureScheme", "AMDIGIPAY_SIGNATURE_SCHEME", list(`"hmac-sha256"`), list(`"md5"`), nil},
	{
		"amdigipay.signatureFields", "AMDIGIPAY_SIGNATURE_FIELDS", list(
			`["payment_id","username","expired_date","nominal","admin_fee","transaction_id","transaction_total","transaction_name","transaction_desc","customer_number","customer_name","customer_email"]`),
		list(`["total"]`, `["username","merchant"]`, `[]`, `[""]`), nil,
	},
	{"amdigipay.rateLimit", "AMDIGIPAY_RATE_LIMIT", list(`"1/s"`, `"999999/h"`), list(`"0/s"`, `"10/day"`, `"1000000/m"`, `"10"`), nil},
	{"amdigipay.statusMap", "AMDIGIPAY_STATUS_MAP", list(`"1=on_processing,2=paid,3=failed,4=expired,5=cancelled,6=refunded"`), list(
		`"1=queued"`, `"1=submitting"`, `"1=verifying"`, `"1=rejected"`, `"1=needs_review"`, `"1=done"`, `"a=paid"`, `"1=paid,1=failed"`, `"1=paid,01=failed"`, `"1:paid"`, `""`, `"1=paid,"`), nil},
	{"amdigipay.listMethod", "AMDIGIPAY_LIST_METHOD", list(`"GET"`, `"POST"`), list(`"get"`, `"PUT"`), nil},
	{"amdigipay.listLimit", "AMDIGIPAY_LIST_LIMIT", list(`1`, `10000`), list(`0`, `10001`), nil},
	{"amdigipay.loginEncoding", "AMDIGIPAY_LOGIN_ENCODING", list(`"json"`, `"form"`), list(`"xml"`), nil},
	{"paydia.baseUrl", "PAYDIA_BASE_URL", list(`"http://127.0.0.1:1/snap/v1.0"`), list(`"/snap"`, `"https://u:p@a"`, `"https://"`), list(`"https://a:65536"`)},
	{"paydia.clientId", "PAYDIA_CLIENT_ID", list(`"00123"`), list(`"a\u0001b"`, `"1 "`), nil},
	{"paydia.merchantId", "PAYDIA_MERCHANT_ID", list(`"240327001000000"`), list(`" 1"`, `"`+strings.Repeat("1", 65)+`"`, `"`+strings.Repeat("é", 33)+`"`), list(`"é"`)},
	{"paydia.channelId", "PAYDIA_CHANNEL_ID", list(`"00001"`), list(`"123456"`, `"a"`, `""`), nil},
	{"paydia.queueTTL", "PAYDIA_QUEUE_TTL", list(`"off"`, `"1ms"`, `"24h"`), list(`"0s"`, `"0.5ms"`, `"never"`, `"1d"`), nil},
	{"paydia.rateLimit", "PAYDIA_RATE_LIMIT", list(`"10/s"`), list(`"10/sec"`, `"-1/s"`), nil},
	{"paydia.customerTokenPrefix", "PAYDIA_CUSTOMER_TOKEN_PREFIX", list(`"Bearer "`, `" "`), list(`" Bearer"`, `"Bearer  "`, `"a\nb"`), nil},
	{"paydia.queryEmptyReference", "PAYDIA_QUERY_EMPTY_REFERENCE", list(`true`, `false`), list(`"maybe"`), nil},
	{"eventsStream", "EVENTS_STREAM", list(`"terbayar:events"`), list(`""`, `" a"`, `"a\u200b"`), list(`"a b"`)},
	{"eventsRetention", "EVENTS_RETENTION", list(`"never"`, `"1d"`, `"65535d"`, `"1s"`), list(`"0s"`, `"0.9s"`, `"0d"`, `"65536d"`, `"90"`, `"0"`, `""`), list(`"1500ms"`)},
	{"retention", "RETENTION", list(`"never"`, `"400d"`, `"1s"`), list(`"0s"`, `"0.9s"`, `"0d"`, `"65536d"`, `"90"`, `""`), list(`"1500ms"`)},
	{"ledgerPartitions", "LEDGER_PARTITIONS", list(`1`, `64`), list(`0`, `65`), nil},
	{"webhooks.allow", "WEBHOOK_ALLOW", list(`["10.96.0.0/12"]`, `["192.0.2.255","::1","fd00::/8","::ffff:10.0.0.0/104"]`), list(
		`["10.0.0.256"]`, `["10.0.0.0/33"]`, `["10.0.0"]`, `["shop"]`, `["fd00::/129"]`, `["10.0.0.0/"]`), list(`[""]`)},
	{"webhooks.schedule", "WEBHOOK_SCHEDULE", list(`"1ms"`, `"168h"`, `"1s,1m0.5s,1h"`, `"1s`+strings.Repeat(",1s", 48)+`"`), list(
		`"0s"`, `"0.5ms"`, `"168h1ms"`, `"1d"`, `"5s,"`, `"5s;1m"`, `"1s`+strings.Repeat(",1s", 49)+`"`), list(`"1s, 2s"`, `""`)},
	{"worker.concurrency", "WORKER_CONCURRENCY", list(`1`, `10000`), list(`0`, `10001`, `"many"`), nil},
	{"worker.gatewayTimeout", "GATEWAY_TIMEOUT", list(`"1ms"`, `"15s"`), list(`"0s"`, `"0.9ms"`, `"40s"`, `"1"`, `"10m"`, `"9999999h"`), nil},
	{"worker.shutdownTimeout", "WORKER_SHUTDOWN_TIMEOUT", list(`"2ms"`, `"1m0.5s"`), list(`"0s"`, `"15s"`, `"-1s"`), nil},
	{"worker.breakerFailures", "GATEWAY_BREAKER_FAILURES", list(`1`, `10000`), list(`0`, `10001`), nil},
	{"worker.breakerPause", "GATEWAY_BREAKER_PAUSE", list(`"1ms"`), list(`"0s"`, `"0.01ms"`), nil},
	{"worker.refusals", "GATEWAY_REFUSALS", list(`1`, `1000`), list(`0`, `1001`), nil},
	{"worker.statusPollInterval", "STATUS_POLL_INTERVAL", list(`"100ms"`), list(`"0s"`, `"99ms"`), nil},
	{"worker.statusFullScanInterval", "STATUS_FULL_SCAN_INTERVAL", list(`"1s"`), list(`"0s"`, `"999ms"`), nil},
	{"worker.expiryGrace", "EXPIRY_GRACE", list(`"0s"`), list(`"-1s"`, `"1d"`, `"9999999h"`), nil},
	{"worker.latePaymentWindow", "LATE_PAYMENT_WINDOW", list(`"0s"`), list(`"-1h"`, `"7d"`, `"9999999h"`), nil},
	{"worker.log.level", "LOG_LEVEL", list(`"debug"`, `"info"`, `"warn"`, `"error"`), list(`"trace"`), nil},
	{"worker.log.format", "LOG_FORMAT", list(`"json"`, `"text"`), list(`"xml"`), list(`"auto"`)},
	{"retryPolicy", "RETRY_POLICY_FILE", list(
		rule("paydia", `"code":"5006301","action":"verify","backoff":{"type":"fibonacci","base":"10s","cap":"10s","jitter":"100%"},"max_attempts":10000,"max_elapsed":"1s"`),
		rule("paydia", `"code":"429xx00","action":"retry","backoff":{"cap":"2s"}`),
		rule("paydia", `"code":"401xx01","action":"refresh_token","backoff":{"cap":"1s","jitter":"0%"}`),
		rule("paydia", `"code":"4036304","action":"accept","vendor_confirms":"R. Wibowo, 2026-11-02, accepted"`),
		rule("amdigipay", `"code":"error:true","match":"(?i)limit pelanggan","action":"reject"},{"code":"error:true","action":"review"`),
		verify("paydia", `"settle":"30s","lookups":2,"then":"retry","vendor_confirms":"R. Wibowo, 2026-11-02, nothing after 60 s"`),
		verify("amdigipay", `"settle":"1ms","lookups":1`),
	), list(
		verify("paydia", `"settle":"0s"`),
		verify("paydia", `"lookups":0`),
		verify("paydia", `"lookups":10001`),
		verify("paydia", `"then":"accept"`),
		verify("paydia", `"then":"retry"`),
		verify("paydia", `"then":"retry","settle":"29s","vendor_confirms":"R. Wibowo, 2026-11-02, by mail"`),
		verify("paydia", `"then":"retry","lookups":1,"vendor_confirms":"R. Wibowo, 2026-11-02, by mail"`),
		verify("paydia", `"vendor_confirms":"yes, confirmed"`),
		verify("paydia", `"vendor_confirms":"<who, when, what>"`),
		verify("paydia", `"vendor_confirms":"1 2 3"`),
		verify("amdigipay", `"typo":1`),
		rule("paydia", `"code":"5006301","action":"verify","backoff":{"base":"10s","cap":"9s"}`),
		rule("paydia", `"code":"5006301","action":"verify","backoff":{"cap":"4999ms"}`),
		rule("paydia", `"code":"429xx00","action":"retry","backoff":{"cap":"1999ms"}`),
		rule("paydia", `"code":"401xx01","action":"refresh_token","backoff":{"cap":"999ms"}`),
		rule("paydia", `"code":"5006301","action":"verify","backoff":{"base":"0s"}`),
		rule("paydia", `"code":"5006301","action":"verify","backoff":{"cap":"0s"}`),
		rule("paydia", `"code":"5006301","action":"verify","backoff":{"jitter":"101%"}`),
		rule("paydia", `"code":"5006301","action":"verify","backoff":{"type":"linear"}`),
		rule("paydia", `"code":"5006301","action":"verify","max_elapsed":"0s"`),
		rule("paydia", `"code":"5006301","action":"verify","max_attempts":0`),
		rule("paydia", `"code":"5006301","action":"review","max_attempts":3`),
		rule("paydia", `"code":"5006301","action":"review","backoff":{"base":"1s"}`),
		rule("paydia", `"code":"5006301","action":"review","max_elapsed":"1s"`),
		rule("paydia", `"code":"5006301","action":"wait"`),
		rule("paydia", `"code":"5006301","action":"review"},{"code":"5006301","action":"verify"`),
		rule("paydia", `"code":"5006301","match":"(","action":"review"`),
		rule("paydia", `"code":"5006301","match":"","action":"review"`),
		rule("paydia", `"code":"5006301","match":"a\u0007","action":"review"`),
		rule("paydia", `"code":"5006301","match":"`+strings.Repeat("é", 501)+`","action":"review"`),
		rule("paydia", `"code":"500630","action":"review"`),
		rule("paydia", `"code":"error:true","action":"review"`),
		rule("amdigipay", `"code":"5006301","action":"review"`),
		rule("paydia", `"action":"review"`),
		rule("paydia", `"code":"5006301"`),
		rule("paydia", `"code":"5006301","action":"retry"`),
		rule("paydia", `"code":"token:undecryptable","action":"retry","vendor_confirms":"R. Wibowo, 2026-11-02, by mail"`),
		rule("amdigipay", `"code":"net:unknown","action":"retry","vendor_confirms":"R. Wibowo, 2026-11-02, by mail"`),
		`{"gateways":{"other":{}}}`,
	), nil},
}

// constant are settings that no value changes.
var constant = []string{"PAYDIA_PRIVATE_KEY_FILE", "PAYLOAD_KEYS_FILE", "SSL_CERT_DIR", "WORKER_HTTP_ADDR", "HTTPS_PROXY"}

func list(s ...string) []string { return s }

func rule(gateway, fields string) string {
	return fmt.Sprintf(`{"gateways":{%q:{"rules":[{%s}]}}}`, gateway, fields)
}

func verify(gateway, fields string) string {
	return fmt.Sprintf(`{"gateways":{%q:{"verify":{%s}}}}`, gateway, fields)
}

// apiSamples has a row for every setting of enqueue serve that the worker does not have.
var apiSamples = []sample{
	{"api.rateLimit", "SERVE_RATE_LIMIT", list(`"1/s"`, `"999999/h"`), list(`"0/s"`, `"10/day"`, `"10"`), nil},
	{"api.trustedProxies", "SERVE_TRUSTED_PROXIES", list(`["10.0.0.0/8"]`, `["192.0.2.255","::1","fd00::/8","::ffff:10.0.0.0/104"]`), list(
		`["10.0.0.256"]`, `["10.0.0.0/33"]`, `["10.0.0"]`, `["ingress"]`, `["fd00::/129"]`, `["10.0.0.0/"]`, `["fd00::g"]`), list(`[""]`)},
	{"api.shutdownDelay", "SERVE_SHUTDOWN_DELAY", list(`"1s"`, `"1m0.5s"`), list(`"-1s"`, `"5"`), list(`"0s"`, `"999ms"`)}, // requests would fail
	{"api.shutdownTimeout", "SERVE_SHUTDOWN_TIMEOUT", list(`"20s"`, `"10m"`), list(`"0s"`, `"0.5ms"`, `"-1s"`), list(`"7500ms"`)},
	{"api.log.level", "LOG_LEVEL", list(`"debug"`, `"info"`, `"warn"`, `"error"`), list(`"trace"`), nil},
	{"api.log.format", "LOG_FORMAT", list(`"json"`, `"text"`), list(`"xml"`), list(`"auto"`)},
	// The same in both programs.
	{"redis.durability", "REDIS_DURABILITY", list(`"auto"`, `"replicas"`, `"trusted"`, `"none"`), list(`"most"`), nil},
	{"paydia.merchantId", "PAYDIA_MERCHANT_ID", list(`"240327001000000"`), list(`" 1"`), nil},
	{"eventsStream", "EVENTS_STREAM", list(`"terbayar:events"`), list(`""`, `" a"`), nil},
	{"ledgerPartitions", "LEDGER_PARTITIONS", list(`1`, `64`), list(`0`, `65`), nil},
}

// program is one whose settings are compared with the values of the chart.
type program struct {
	component string
	samples   []sample
	base      []string          // arguments of helm
	secrets   map[string]string // settings whose values are in Secrets
	constant  []string          // settings that no value changes
	// starts runs it with settings, without the Secrets in missing. ok is false if it refuses a setting.
	starts func(t *testing.T, env map[string]string, missing ...string) (output string, ok bool)
}

// withSecrets returns an environment with the Secrets, or with all but some.
func (p *program) withSecrets(env map[string]string, directory string, missing ...string) (all []string) {
	env = maps.Clone(env)
	maps.Copy(env, p.secrets)
	for _, name := range missing {
		if delete(env, name); strings.HasSuffix(name, "_FILE") {
			env[name] = filepath.Join(directory, "missing")
		}
	}
	for name, value := range env {
		all = append(all, name+"="+value)
	}
	return all
}

func write(t *testing.T, directory, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(directory, name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func values(of ...string) []string {
	args := []string{"--values", chart + "/ci/minimal-values.yaml"}
	for _, value := range of {
		args = append(args, "--set-json", value)
	}
	return args
}

// TestSamples checks that the worker starts with every value that the chart accepts, and that the
// chart refuses every value with which no worker starts, and names it.
func TestSamples(t *testing.T) {
	files, worker := t.TempDir(), build(t, "worker")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := &program{
		component: "worker", samples: samples, constant: constant,
		secrets: map[string]string{
			"AMDIGIPAY_PASSWORD": "p", "AMDIGIPAY_SIGNATURE_KEY": "k", "PAYDIA_CLIENT_SECRET": "s",
			"PAYDIA_PRIVATE_KEY_FILE": write(t, files, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
			"PAYLOAD_KEYS_FILE":       write(t, files, "payload-keys", []byte(base64.StdEncoding.EncodeToString(make([]byte, 32)))),
			"WEBHOOK_URL":             "https://shop.example/terbayar",
			"WEBHOOK_SECRET":          "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32)),
		},
		// Nothing listens on port 1: "worker check" then exits with 1, and with 2 for a wrong setting.
		base: values(
			`redis.addresses=["127.0.0.1:1"]`,
			`amdigipay={"enabled":true,"username":"u","existingSecret":"s","baseUrl":"http://127.0.0.1:1","signatureScheme":"hmac-sha256","signatureFields":["username"]}`,
			`paydia={"enabled":true,"clientId":"c","existingSecret":"s","baseUrl":"http://127.0.0.1:1"}`,
			`payloadKeys.existingSecret="s"`, `webhooks.existingSecret="s"`,
		),
	}
	p.starts = func(t *testing.T, env map[string]string, missing ...string) (output string, ok bool) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), worker, "check")
		cmd.Env = p.withSecrets(env, files, missing...)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 && exit.ExitCode() != 2 {
			t.Fatalf("worker check: %v\n%s", err, out)
		}
		return string(out), exit.ExitCode() == 1
	}
	p.test(t, files)
}

// TestAPISamples is TestSamples for enqueue serve.
func TestAPISamples(t *testing.T) {
	files, enqueue := t.TempDir(), build(t, "enqueue")
	keys, err := exec.CommandContext(t.Context(), enqueue, "keys", "new", "shop").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(keys), "\n")
	certificate, private := selfSigned(t)
	p := &program{
		component: "api", samples: apiSamples,
		secrets: map[string]string{
			"API_KEYS_FILE":        write(t, files, "api-keys", []byte(line)),
			"CALLBACK_SECRET_FILE": write(t, files, "callback-secret", []byte(strings.Repeat("0123456789abcdef", 3)+"\n")),
			"PAYLOAD_KEYS_FILE":    write(t, files, "payload-keys", []byte(base64.StdEncoding.EncodeToString(make([]byte, 32)))),
			"SERVE_TLS_CERT_FILE":  write(t, files, "tls.crt", certificate),
			"SERVE_TLS_KEY_FILE":   write(t, files, "tls.key", private),
		},
		constant: []string{
			"REDIS_URL", "REDIS_WAIT_REPLICAS", "REDIS_WAIT_TIMEOUT", // as in samples
			"API_KEYS_FILE", "CALLBACK_SECRET_FILE", "PAYLOAD_KEYS_FILE", "SERVE_TLS_CERT_FILE", "SERVE_TLS_KEY_FILE",
			"SERVE_HTTP_ADDR", "SERVE_METRICS_ADDR", "SSL_CERT_DIR", "GOMEMLIMIT",
		},
		base: values(
			`redis.addresses=["127.0.0.1:1"]`, `payloadKeys.existingSecret="s"`,
			`api={"enabled":true,"keys":{"existingSecret":"s"},"callbacks":{"existingSecret":"s"},"tls":{"existingSecret":"s"}}`,
			`networkPolicy.enabled=false`,
		),
	}
	p.starts = func(t *testing.T, env map[string]string, missing ...string) (output string, ok bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, enqueue, "serve")
		env = maps.Clone(env)
		metrics := freeAddress(t)
		env["SERVE_HTTP_ADDR"], env["SERVE_METRICS_ADDR"] = "127.0.0.1:0", metrics
		cmd.Env = p.withSecrets(env, files, missing...)
		var out bytes.Buffer
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for {
			select {
			case err := <-ended:
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != 2 {
					t.Fatalf("enqueue serve: %v\n%s", err, out.String())
				}
				return out.String(), false
			case <-time.After(20 * time.Millisecond):
				if res, err := http.Get("http://" + metrics + "/readyz"); err == nil && res.Body.Close() == nil && res.StatusCode == http.StatusOK {
					cancel()
					_ = <-ended // it was stopped
					return out.String(), true
				}
			}
		}
	}
	p.test(t, files)
}

// freeAddress returns an address on which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// selfSigned returns a certificate and its key, as PEM.
func selfSigned(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"pay.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func (p *program) test(t *testing.T, files string) {
	t.Helper()
	defaults := settings(t, render(t, "terbayar", p.base...), p.component)

	sampled := map[string]bool{}
	for _, s := range p.samples {
		sampled[s.setting] = true
		if len(s.accepted) == 0 || len(s.refused) == 0 {
			t.Errorf("%s needs an accepted and a refused sample", s.value)
		}
	}
	for name := range settings(t, render(t, "terbayar", "--values", chart+"/ci/full-values.yaml"), p.component) {
		if !sampled[name] && !slices.Contains(p.constant, name) {
			t.Errorf("%s has no row in samples", name)
		}
	}

	for i := range slices.MaxFunc(p.samples, func(a, b sample) int { return len(a.accepted) - len(b.accepted) }).accepted {
		t.Run(fmt.Sprintf("accepted %d", i), func(t *testing.T) {
			args := slices.Clone(p.base)
			var names []string
			for _, s := range p.samples {
				if i < len(s.accepted) {
					args = append(args, "--set-json", s.value+"="+s.accepted[i])
					names = append(names, s.setting)
				}
			}
			r := render(t, "terbayar", args...)
			env := settings(t, r, p.component)
			if policy := only[apps.Deployment](t, r, p.component).Spec.Template.Annotations["terbayar/retry-policy"]; policy != "" {
				env["RETRY_POLICY_FILE"] = write(t, files, fmt.Sprintf("accepted-%d.yaml", i), []byte(policy))
			}
			for _, name := range names {
				if _, set := env[name]; !set {
					t.Errorf("%s is not set", name)
				}
			}
			t.Parallel()
			if out, ok := p.starts(t, env); !ok {
				t.Errorf("the chart accepts what the program refuses:\n%s", out)
			}
		})
	}

	// The pods that run "worker check" start without a Secret that does not exist.
	for name := range p.secrets {
		t.Run("missing "+name, func(t *testing.T) {
			if out, ok := p.starts(t, defaults, name); ok || !strings.Contains(out, name) {
				t.Errorf("the program starts, or does not name %s:\n%s", name, out)
			}
		})
	}

	for i := range slices.MaxFunc(p.samples, func(a, b sample) int { return len(a.refused) - len(b.refused) }).refused {
		t.Run(fmt.Sprintf("refused %d", i), func(t *testing.T) {
			t.Parallel()
			pending := map[string]string{}
			for _, s := range p.samples {
				if all := slices.Concat(s.refused, s.stricter); i < len(all) {
					pending[s.value] = all[i]
				}
			}
			refuse(t, p.base, pending)
			for _, s := range p.samples {
				if i >= len(s.refused) {
					continue
				}
				env := maps.Clone(defaults)
				switch s.value {
				case "retryPolicy":
					env[s.setting] = write(t, files, fmt.Sprintf("refused-%d.yaml", i), []byte(s.refused[i]))
				case "redis.addresses":
					env[s.setting] = "redis:///0"
				case "redis.database":
					env[s.setting] = "redis://127.0.0.1:1/" + s.refused[i]
				default:
					env[s.setting] = asText(t, s.refused[i])
				}
				if out, ok := p.starts(t, env); ok || !strings.Contains(out, s.setting) {
					t.Errorf("%s=%s: the program accepts it, or does not name %s:\n%s", s.value, s.refused[i], s.setting, out)
				}
			}
		})
	}
}

// refuse checks that the chart refuses every value and names it. It sets all at once, because helm is
// slow, and then those that were not named: the schema comes before the checks in the templates.
func refuse(t *testing.T, base []string, values map[string]string) {
	t.Helper()
	args := slices.Clone(base)
	for name, value := range values {
		args = append(args, "--set-json", name+"="+value)
	}
	out, err := helm(t, args...)
	if err == nil {
		t.Errorf("the chart accepts all of %v", values)
		return
	}
	left := maps.Clone(values)
	for name := range values {
		if strings.Contains(out, "'/"+strings.ReplaceAll(name, ".", "/")) || strings.Contains(out, "\n- "+name) {
			delete(left, name)
		}
	}
	switch {
	case len(left) == 0:
	case len(left) < len(values):
		refuse(t, base, left)
	case len(left) > 1:
		for name, value := range left {
			refuse(t, base, map[string]string{name: value})
		}
	case strings.Contains(out, "\n- ") && strings.Contains(out, slices.Collect(maps.Keys(left))[0]): // with another value
	case !strings.Contains(out, "invalid duration") && !strings.Contains(out, "error parsing regexp"): // template functions
		t.Errorf("the chart does not name what is wrong with %v:\n%s", left, out)
	}
}

// asText returns a value as the chart writes it into an environment variable.
func asText(t *testing.T, value string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(value), &v); err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	switch v := v.(type) {
	case string:
		return v
	case []any:
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(v), " ", ","), "[]")
	default:
		return value
	}
}

// helm runs helm template.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return run(t, append([]string{"template", "terbayar", chart, "--namespace", namespace, "--kube-version", "1.31.0"}, args...)...)
}

// run runs helm and returns its output.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), cmp.Or(os.Getenv("HELM"), "helm"), args...).CombinedOutput()
	return string(out), err
}

// build builds a program of this checkout.
func build(t *testing.T, name string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "go", "build", "-o", program, "./cmd/"+name)
	cmd.Dir = repo
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// TestPolicySize checks that the longest retry policy that the chart accepts fits into the annotations
// of a pod: Kubernetes allows 256 KiB.
func TestPolicySize(t *testing.T) {
	policy := func(rules int) string {
		var all []string
		for i := range rules {
			all = append(all, fmt.Sprintf(`"code":"5006301","match":"%d%s","action":"review"`, i, strings.Repeat("a", 900)))
		}
		values, err := json.Marshal(map[string]any{"retryPolicy": json.RawMessage(rule("paydia", strings.Join(all, "},{")))})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "values.json")
		if err := os.WriteFile(file, values, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	r := render(t, "terbayar", "--values", chart+"/ci/minimal-values.yaml", "--values", policy(195))
	if size := len(only[apps.Deployment](t, r, "worker").Spec.Template.Annotations["terbayar/retry-policy"]); size < 180_000 || size > 256<<10-10_000 {
		t.Errorf("%d bytes", size)
	}
	if out, err := helm(t, "--values", chart+"/ci/minimal-values.yaml", "--values", policy(230)); err == nil || !strings.Contains(out, "retryPolicy is longer than 200000 bytes") {
		t.Errorf("%v\n%.1000s", err, out)
	}
}
