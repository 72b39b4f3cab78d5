package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"terbayar/internal/durable"
	"terbayar/internal/secret"
)

// all is a program with every group, and with a command, as worker has.
type all struct {
	Run struct{} `cmd:"" default:"withargs" help:"Run."`

	Redis       Redis       `embed:""`
	AMDigiPay   AMDigiPay   `embed:""`
	Paydia      Paydia      `embed:""`
	Worker      Worker      `embed:""`
	RetryPolicy RetryPolicy `embed:""`
	Events      Events      `embed:""`
	Retention   Retention   `embed:""`
	Payload     Payload     `embed:""`
	Log         Log         `embed:""`
}

// parse runs Parse in an environment that has the given settings and no others.
func parse(t *testing.T, env map[string]string, args ...string) (*all, error) {
	t.Helper()
	for name := range variables() {
		t.Setenv(name, "") // restores it after the test
		os.Unsetenv(name)
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	var cli all
	_, err := Parse("worker", "Pays.", &cli, args, io.Discard)
	return &cli, err
}

// variables returns the environment variables of all settings, and their flags.
var variables = sync.OnceValue(func() map[string]string {
	flags := make(map[string]string)
	for _, f := range kong.Must(&all{}).Model.Flags {
		if len(f.Envs) > 0 {
			flags[f.Envs[0]] = f.Name
		}
	}
	return flags
})

// TestVariables: the settings of docs/interface.md exist, and each flag is the variable's
// name in kebab case.
func TestVariables(t *testing.T) {
	flags := variables()
	for name, flag := range flags {
		if want := strings.ReplaceAll(strings.ToLower(name), "_", "-"); flag != want {
			t.Errorf("%s is --%s, want --%s", name, flag, want)
		}
	}
	for _, name := range strings.Fields(`REDIS_URL REDIS_PASSWORD REDIS_SENTINEL_PASSWORD AMDIGIPAY_BASE_URL AMDIGIPAY_USERNAME AMDIGIPAY_PASSWORD
		AMDIGIPAY_SIGNATURE_SCHEME AMDIGIPAY_SIGNATURE_KEY AMDIGIPAY_SIGNATURE_FIELDS
		PAYDIA_BASE_URL PAYDIA_CLIENT_ID PAYDIA_CLIENT_SECRET PAYDIA_PRIVATE_KEY PAYDIA_PRIVATE_KEY_FILE
		PAYDIA_MERCHANT_ID PAYDIA_CHANNEL_ID MONITORING_USERS WORKER_CONCURRENCY WORKER_HTTP_ADDR
		AMDIGIPAY_RATE_LIMIT PAYDIA_RATE_LIMIT GATEWAY_BREAKER_FAILURES GATEWAY_BREAKER_PAUSE GATEWAY_REFUSALS
		WORKER_SHUTDOWN_TIMEOUT GATEWAY_TIMEOUT STATUS_POLL_INTERVAL RETRY_POLICY_FILE EVENTS_STREAM EVENTS_RETENTION
		PAYLOAD_KEYS PAYLOAD_KEYS_FILE LOG_LEVEL LOG_FORMAT`) {
		if flags[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestDefaults(t *testing.T) {
	got, err := parse(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &all{
		Redis: Redis{URL: secret.NewText("redis://127.0.0.1:6379/0"), Durability: durable.Auto, WaitReplicas: durable.EveryReplica},
		AMDigiPay: AMDigiPay{
			BaseURL: "https://h2h.amdigipay.com/api", SignatureScheme: "sha256-username-transaction-id",
			StatusMap:  "1=on_processing,2=on_processing,3=paid,4=paid,5=cancelled,6=refunded,13=on_processing,14=failed",
			ListMethod: "GET", ListLimit: 100, LoginEncoding: "json",
		},
		Paydia: Paydia{BaseURL: "https://api.paydia.id/snap/v1.0", ChannelID: "12345"},
		Worker: Worker{
			Concurrency: 50, HTTPAddr: ":8080", ShutdownTimeout: 40 * time.Second, GatewayTimeout: 15 * time.Second,
			StatusPollInterval: 30 * time.Second, ExpiryGrace: time.Minute, StatusFullScanInterval: 15 * time.Minute, LatePaymentWindow: 168 * time.Hour,
			BreakerFailures: 5, BreakerPause: 15 * time.Second, Refusals: 10,
		},
		Events:    Events{Stream: "terbayar:events"},
		Retention: Retention{Events: KeepFor(90 * 24 * time.Hour)},
		Log:       Log{Level: "info", Format: "auto"},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b secret.Text) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if got.AMDigiPay.Enabled() || got.Paydia.Enabled() {
		t.Error("a gateway without credentials is on")
	}
}

func TestFlagBeforeEnvironment(t *testing.T) {
	got, err := parse(t, map[string]string{"GATEWAY_TIMEOUT": "3s", "WORKER_CONCURRENCY": "7", "AMDIGIPAY_SIGNATURE_FIELDS": "username,transaction_id"},
		"--gateway-timeout=4s", "--amdigipay-username=u", "--amdigipay-password=p", "--amdigipay-base-url=http://127.0.0.1:1/api/")
	if err != nil {
		t.Fatal(err)
	}
	if got.Worker.GatewayTimeout != 4*time.Second || got.Worker.Concurrency != 7 || got.AMDigiPay.Password.Reveal() != "p" {
		t.Errorf("%+v", got.Worker)
	}
	if diff := cmp.Diff([]string{"username", "transaction_id"}, got.AMDigiPay.SignatureFields); diff != "" {
		t.Error(diff)
	}
	if got.AMDigiPay.BaseURL != "http://127.0.0.1:1/api" || !got.AMDigiPay.Enabled() {
		t.Errorf("%+v", got.AMDigiPay)
	}
}

// TestErrors: every wrong setting has its error. "hunter2" is written wherever a secret could
// be, and must not be in any error.
func TestErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	short := pemKey(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKeyOf(t, 1024)))
	elliptic := ecKey(t)
	paydia := map[string]string{"PAYDIA_CLIENT_ID": "c", "PAYDIA_CLIENT_SECRET": "hunter2"}

	for _, row := range []struct{ settings, want string }{
		{"GATEWAY_TIMEOUT=abc", `GATEWAY_TIMEOUT (--gateway-timeout): "abc" is not a duration (want e.g. 15s, 2m)`},
		{"GATEWAY_TIMEOUT=15", `GATEWAY_TIMEOUT (--gateway-timeout): "15" is not a duration`},
		{"GATEWAY_TIMEOUT=", `GATEWAY_TIMEOUT (--gateway-timeout): "" is not a duration`},
		{"GATEWAY_TIMEOUT=a\nb", `GATEWAY_TIMEOUT: contains a control or invisible character`},
		{"GATEWAY_TIMEOUT=0s", `GATEWAY_TIMEOUT: 0s is less than 1ms`},
		{"GATEWAY_TIMEOUT=-3s", `GATEWAY_TIMEOUT: -3s is less than 1ms`},
		{"GATEWAY_TIMEOUT=40s", `GATEWAY_TIMEOUT (40s) must be less than WORKER_SHUTDOWN_TIMEOUT (40s): a request in flight at shutdown could not finish`},
		{"WORKER_SHUTDOWN_TIMEOUT=10s", `GATEWAY_TIMEOUT (15s) must be less than WORKER_SHUTDOWN_TIMEOUT (10s)`},
		{"WORKER_SHUTDOWN_TIMEOUT=0s", `WORKER_SHUTDOWN_TIMEOUT: 0s is less than 1ms`},
		{"STATUS_POLL_INTERVAL=99ms", `STATUS_POLL_INTERVAL: 99ms is less than 100ms`},
		{"EXPIRY_GRACE=-1s", `EXPIRY_GRACE: -1s is less than 0s`},
		{"LATE_PAYMENT_WINDOW=-1s", `LATE_PAYMENT_WINDOW: -1s is less than 0s`},
		{"GATEWAY_BREAKER_FAILURES=0", `GATEWAY_BREAKER_FAILURES: 0 is not between 1 and 10000`},
		{"GATEWAY_REFUSALS=0", `GATEWAY_REFUSALS: 0 is not between 1 and 1000`},
		{"GATEWAY_BREAKER_PAUSE=0s", `GATEWAY_BREAKER_PAUSE: 0s is less than 1ms`},
		{"WORKER_CONCURRENCY=many", `WORKER_CONCURRENCY (--worker-concurrency): expected a valid 64 bit int but got "many"`},
		{"WORKER_CONCURRENCY=0", `WORKER_CONCURRENCY: 0 is not between 1 and 10000`},
		{"WORKER_CONCURRENCY=10001", `WORKER_CONCURRENCY: 10001 is not between 1 and 10000`},
		{"WORKER_HTTP_ADDR=8080", `WORKER_HTTP_ADDR: "8080" is not host:port or :port`},
		{"WORKER_HTTP_ADDR=:99999", `WORKER_HTTP_ADDR: ":99999" is not host:port or :port`},
		{"MONITORING_USERS=hunter2", `MONITORING_USERS: entry 1 is not name:bcrypt-hash`},
		{"MONITORING_USERS=a:" + string(hash) + ",b:hunter2", `MONITORING_USERS: entry 2 has no bcrypt hash after its name`},
		{"MONITORING_USERS=a:" + string(hash) + ",a:" + string(hash), `MONITORING_USERS: entry 2 has the name of an earlier one`},
		{"MONITORING_USERS=:" + string(hash), `MONITORING_USERS: entry 1 is not name:bcrypt-hash`},
		{"REDIS_URL=redis://:hunter2@", `REDIS_URL: a host is missing or malformed`},
		{"REDIS_URL=", `REDIS_URL: not a URL such as redis://host:6379/0`},
		{"REDIS_SENTINEL_PASSWORD=hunter2", `REDIS_URL: redis:// has no sentinels to give a password to`},
		{"EVENTS_STREAM=", `EVENTS_STREAM: is empty`},
		{"EVENTS_RETENTION=90", `EVENTS_RETENTION (--events-retention): "90" is neither never nor a duration of 1s or more (want e.g. 90d, 36h)`},
		{"EVENTS_RETENTION=", `EVENTS_RETENTION (--events-retention): "" is neither never nor`},
		{"EVENTS_RETENTION=-90d", `EVENTS_RETENTION (--events-retention): "-90d" is neither never nor`},
		{"EVENTS_RETENTION=1.5d", `EVENTS_RETENTION (--events-retention): "1.5d" is neither never nor`},
		{"EVENTS_RETENTION=99999d", `EVENTS_RETENTION (--events-retention): "99999d" is neither never nor`},
		{"EVENTS_RETENTION=off", `EVENTS_RETENTION (--events-retention): "off" is neither never nor`},
		{"EVENTS_RETENTION=0d", `EVENTS_RETENTION (--events-retention): "0d" is neither never nor`},
		{"EVENTS_RETENTION=999ms", `EVENTS_RETENTION (--events-retention): "999ms" is neither never nor`},
		{"LOG_LEVEL=loud", `LOG_LEVEL: "loud" is not one of debug, info, warn, error`},
		{"LOG_FORMAT=xml", `LOG_FORMAT: "xml" is not one of auto, json, text`},

		{"AMDIGIPAY_BASE_URL=ftp://h", `AMDIGIPAY_BASE_URL: is not an absolute http or https URL`},
		{"AMDIGIPAY_BASE_URL=/api", `AMDIGIPAY_BASE_URL: is not an absolute http or https URL`},
		{"AMDIGIPAY_BASE_URL=https://u:hunter2@h/api", `AMDIGIPAY_BASE_URL: must not contain a user or password`},
		{"AMDIGIPAY_BASE_URL=https://h/api?a=hunter2", `AMDIGIPAY_BASE_URL: must not contain a query or fragment`},
		{"AMDIGIPAY_USERNAME=u", `AMDIGIPAY_PASSWORD: missing, although AMDIGIPAY_USERNAME is set`},
		{"AMDIGIPAY_PASSWORD=hunter2", `AMDIGIPAY_USERNAME: missing, although AMDIGIPAY_PASSWORD is set`},
		{"AMDIGIPAY_SIGNATURE_SCHEME=md5", `AMDIGIPAY_SIGNATURE_SCHEME: "md5" is not one of sha256-username-transaction-id, hmac-sha256`},
		{"AMDIGIPAY_SIGNATURE_SCHEME=hmac-sha256", `AMDIGIPAY_SIGNATURE_KEY: is missing: AMDIGIPAY_SIGNATURE_SCHEME is hmac-sha256`},
		{"AMDIGIPAY_SIGNATURE_SCHEME=hmac-sha256 AMDIGIPAY_SIGNATURE_KEY=hunter2", `AMDIGIPAY_SIGNATURE_FIELDS: is empty`},
		{"AMDIGIPAY_SIGNATURE_SCHEME=hmac-sha256 AMDIGIPAY_SIGNATURE_KEY=hunter2 AMDIGIPAY_SIGNATURE_FIELDS=a,,b", `AMDIGIPAY_SIGNATURE_FIELDS: is empty or contains an empty name`},
		{"AMDIGIPAY_STATUS_MAP=", `AMDIGIPAY_STATUS_MAP: is empty`},
		{"AMDIGIPAY_LIST_METHOD=PUT", `AMDIGIPAY_LIST_METHOD: "PUT" is not one of GET, POST`},
		{"AMDIGIPAY_LIST_LIMIT=0", `AMDIGIPAY_LIST_LIMIT: 0 is not between 1 and 10000`},
		{"AMDIGIPAY_LOGIN_ENCODING=xml", `AMDIGIPAY_LOGIN_ENCODING: "xml" is not one of json, form`},

		{"AMDIGIPAY_RATE_LIMIT=10", `AMDIGIPAY_RATE_LIMIT (--amdigipay-rate-limit): "10" is not a rate (want e.g. 10/s, 300/m, 5000/h)`},
		{"AMDIGIPAY_RATE_LIMIT=0/s", `AMDIGIPAY_RATE_LIMIT (--amdigipay-rate-limit): "0/s" is not a rate`},
		{"AMDIGIPAY_RATE_LIMIT=-1/s", `AMDIGIPAY_RATE_LIMIT (--amdigipay-rate-limit): "-1/s" is not a rate`},
		{"PAYDIA_RATE_LIMIT=10/d", `PAYDIA_RATE_LIMIT (--paydia-rate-limit): "10/d" is not a rate`},
		{"PAYDIA_RATE_LIMIT=1000000/s", `PAYDIA_RATE_LIMIT (--paydia-rate-limit): "1000000/s" is not a rate`},

		{"PAYDIA_BASE_URL=api.paydia.id", `PAYDIA_BASE_URL: is not an absolute http or https URL`},
		{"PAYDIA_CLIENT_ID=c", `PAYDIA_CLIENT_SECRET, PAYDIA_PRIVATE_KEY (or PAYDIA_PRIVATE_KEY_FILE): missing, although PAYDIA_CLIENT_ID is set`},
		{"PAYDIA_CLIENT_ID=c PAYDIA_CLIENT_SECRET=hunter2", `PAYDIA_PRIVATE_KEY (or PAYDIA_PRIVATE_KEY_FILE): missing, although PAYDIA_CLIENT_ID, PAYDIA_CLIENT_SECRET is set`},
		{"PAYDIA_PRIVATE_KEY_FILE=/no/such", `PAYDIA_CLIENT_ID, PAYDIA_CLIENT_SECRET: missing`},
		{"+ PAYDIA_PRIVATE_KEY=hunter2", `PAYDIA_PRIVATE_KEY: is not PEM`},
		{"+ PAYDIA_PRIVATE_KEY_FILE=/no/such/file", `PAYDIA_PRIVATE_KEY_FILE: cannot be read: no such file or directory`},
		{"+ PAYDIA_PRIVATE_KEY_FILE=" + file("text", "hunter2"), `PAYDIA_PRIVATE_KEY_FILE: is not PEM`},
		{"+ PAYDIA_PRIVATE_KEY_FILE=" + file("junk", pemKey(t, "PRIVATE KEY", []byte("hunter2"))), `PAYDIA_PRIVATE_KEY_FILE: is neither a PKCS#8 nor a PKCS#1 private key without a password`},
		{"+ PAYDIA_PRIVATE_KEY_FILE=" + file("ec", elliptic), `PAYDIA_PRIVATE_KEY_FILE: is not an RSA key`},
		{"+ PAYDIA_PRIVATE_KEY_FILE=" + file("short", short), `PAYDIA_PRIVATE_KEY_FILE: has 1024 bits, at least 2048 are required`},
		{"+ PAYDIA_PRIVATE_KEY=hunter2 PAYDIA_PRIVATE_KEY_FILE=/no/such", `PAYDIA_PRIVATE_KEY: and PAYDIA_PRIVATE_KEY_FILE are both set: set only one of them`},
		{"PAYDIA_CHANNEL_ID=123456", `PAYDIA_CHANNEL_ID: "123456" is not 1 to 5 digits`},
		{"PAYDIA_CHANNEL_ID=", `PAYDIA_CHANNEL_ID: "" is not 1 to 5 digits`},
		{"PAYDIA_MERCHANT_ID=" + strings.Repeat("9", 65), `PAYDIA_MERCHANT_ID: is longer than 64 characters`},
		{"PAYDIA_QUERY_EMPTY_REFERENCE=maybe", `PAYDIA_QUERY_EMPTY_REFERENCE (--paydia-query-empty-reference): bool value must be true, 1, yes, false, 0 or no but got "maybe"`},

		{"PAYLOAD_KEYS=hunter2", `PAYLOAD_KEYS: key 1 is not base64 of 32 bytes (openssl rand -base64 32)`},
		{"PAYLOAD_KEYS=hunter2 PAYLOAD_KEYS_FILE=/no/such", `PAYLOAD_KEYS: and PAYLOAD_KEYS_FILE are both set`},
		{"PAYLOAD_KEYS_FILE=/no/such", `PAYLOAD_KEYS_FILE: cannot be read: no such file or directory`},
		{"PAYLOAD_KEYS_FILE=" + file("keys", "hunter2\n"), `PAYLOAD_KEYS_FILE: key 1 is not base64 of 32 bytes`},
		{"PAYLOAD_KEYS_FILE=" + file("empty", "\n"), `PAYLOAD_KEYS_FILE: the file contains no key`},
	} {
		env := make(map[string]string)
		settings, withPaydia := strings.CutPrefix(row.settings, "+ ")
		if withPaydia {
			for k, v := range paydia {
				env[k] = v
			}
		}
		for _, setting := range strings.Split(settings, " ") {
			name, value, _ := strings.Cut(setting, "=")
			env[name] = value
		}
		t.Run(row.settings, func(t *testing.T) {
			_, err := parse(t, env)
			var own *Error
			if !errors.As(err, &own) || !strings.HasPrefix(err.Error(), row.want) {
				t.Errorf("\n got %v\nwant %s", err, row.want)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("contains a secret, or is not one line: %q", err)
			}
		})
	}
}

func TestRetention(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"never": 0, "90d": 90 * 24 * time.Hour, "400d": 400 * 24 * time.Hour, "65535d": 65535 * 24 * time.Hour, "36h": 36 * time.Hour, "1s": time.Second,
	} {
		got, err := parse(t, map[string]string{"EVENTS_RETENTION": text})
		if err != nil || time.Duration(got.Retention.Events) != want {
			t.Errorf("%q: %v, %v", text, time.Duration(got.Retention.Events), err)
		}
	}
}

func TestRate(t *testing.T) {
	for text, want := range map[string]Rate{
		"": {}, "10/s": {10, time.Second}, "300/m": {300, time.Minute}, "5000/h": {5000, time.Hour}, "999999/h": {999_999, time.Hour},
	} {
		got, err := parse(t, map[string]string{"AMDIGIPAY_RATE_LIMIT": text}, "--paydia-rate-limit="+text)
		if err != nil || got.AMDigiPay.RateLimit != want || got.Paydia.RateLimit != want {
			t.Errorf("%q: %v, %v, %v", text, got.AMDigiPay.RateLimit, got.Paydia.RateLimit, err)
		}
	}
}

// TestSecretAfterAFlag: kong takes a secret that begins with a dash for another flag, and
// quotes it in its error.
func TestSecretAfterAFlag(t *testing.T) {
	for _, args := range [][]string{
		{"--amdigipay-password", "-hunter2"}, {"--paydia-private-key", "-----BEGIN hunter2"}, {"--amdigipay-password"},
	} {
		_, err := parse(t, nil, args...)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "needs a value") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--gateway-timeout=abc"}, `GATEWAY_TIMEOUT (--gateway-timeout): "abc" is not a duration`},
		{[]string{"--no-such-flag"}, "unknown flag --no-such-flag"},
		{[]string{"start"}, "unexpected argument start"},
		{[]string{"--redis-url"}, "REDIS_URL (--redis-url): needs a value"},
		{[]string{"--amdigipay-pasword=hunter2"}, "unknown flag --amdigipay-pasword"},
	} {
		_, err := parse(t, nil, row.args...)
		var own *Error
		if !errors.As(err, &own) || !strings.HasPrefix(err.Error(), row.want) {
			t.Errorf("%v: %v, want %s", row.args, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: %v", row.args, err)
		}
	}
}

func TestHelp(t *testing.T) {
	for name := range variables() {
		t.Setenv(name, "hunter2")
	}
	var out bytes.Buffer
	_, err := Parse("worker", "Pays.", &all{}, []string{"--help"}, &out)
	if !errors.Is(err, ErrHelp) {
		t.Errorf("%v", err)
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Error("help shows the environment")
	}
	for _, want := range []string{"Usage: worker", "Pays.", "$REDIS_URL", "--redis-url=redis://127.0.0.1:6379/0", "rarely changed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, &out)
		}
	}
}

func TestPaydiaKeys(t *testing.T) {
	key := rsaKeyOf(t, 2048)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"PKCS#1": pemKey(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)),
		"PKCS#8": pemKey(t, "PRIVATE KEY", pkcs8),
	} {
		path := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		oneLine := strings.ReplaceAll(text, "\n", `\n`)
		for _, setting := range [][2]string{
			{"PAYDIA_PRIVATE_KEY", text}, {"PAYDIA_PRIVATE_KEY", oneLine}, {"PAYDIA_PRIVATE_KEY_FILE", path},
		} {
			variable := setting[0]
			got, err := parse(t, map[string]string{"PAYDIA_CLIENT_ID": "c", "PAYDIA_CLIENT_SECRET": "s", variable: setting[1]})
			if err != nil {
				t.Errorf("%s in %s: %v", name, variable, err)
				continue
			}
			if k, err := got.Paydia.Key(); err != nil || k.Reveal() != text || !got.Paydia.Enabled() {
				t.Errorf("%s in %s: %v", name, variable, err)
			}
			os.Unsetenv(variable)
		}
	}
}

func TestUsers(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("p"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parse(t, map[string]string{"MONITORING_USERS": "ann:" + string(hash) + ", bob:" + string(hash)})
	if err != nil {
		t.Fatal(err)
	}
	users, err := got.Worker.Users()
	if diff := cmp.Diff(map[string][]byte{"ann": hash, "bob": hash}, users); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestPayloadKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, env := range map[bool]map[string]string{false: nil, true: {"PAYLOAD_KEYS_FILE": path}} {
		got, err := parse(t, env)
		if err != nil {
			t.Fatal(err)
		}
		if cipher, err := got.Payload.Cipher(); err != nil || cipher.CanEncrypt() != want {
			t.Errorf("%v: %v", env, err)
		}
	}
}

// TestTimeoutChain: gateway timeout < claim lease < task timeout.
func TestTimeoutChain(t *testing.T) {
	for _, gateway := range []time.Duration{time.Millisecond, 1500 * time.Millisecond, 15 * time.Second, time.Hour} {
		w := Worker{GatewayTimeout: gateway}
		for _, wait := range []time.Duration{time.Millisecond, time.Second, 2500 * time.Millisecond} {
			// docs/interface.md: wait timeout + gateway timeout + margin < lease.
			send, lease, task := w.SendBudget(wait), w.ClaimLease(wait), w.LongestSubmit(wait)
			if send <= wait || lease <= send+gateway || task <= gateway+lease {
				t.Errorf("gateway %s, wait %s: send within %s, lease %s, task %s", gateway, wait, send, lease, task)
			}
		}
	}
}

func TestWrong(t *testing.T) {
	err := Wrong("RETRY_POLICY_FILE", errors.New("p.yaml:7: odd\nand more"))
	if got, want := err.Error(), "RETRY_POLICY_FILE: p.yaml:7: odd and more"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if reflect.TypeOf(err) != reflect.TypeFor[*Error]() {
		t.Errorf("%T", err)
	}
}

func rsaKeyOf(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemKey(t, "PRIVATE KEY", der)
}

func pemKey(t *testing.T, kind string, der []byte) string {
	t.Helper()
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
