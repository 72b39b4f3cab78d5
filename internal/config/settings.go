package config

import (
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/crypto/bcrypt"

	"terbayar/internal/durable"
	"terbayar/internal/redisconn"
	"terbayar/internal/secret"
)

// Redis holds the settings of the Redis with the ledger, the queues and the events.
type Redis struct {
	URL              secret.Text `name:"redis-url" env:"REDIS_URL" default:"redis://127.0.0.1:6379/0" group:"Redis:" help:"redis://, rediss://, redis-sentinel:// or redis-cluster://."`
	Password         secret.Text `name:"redis-password" env:"REDIS_PASSWORD" group:"Redis:" help:"The password, not URL-encoded, if REDIS_URL has none."`
	SentinelPassword secret.Text `name:"redis-sentinel-password" env:"REDIS_SENTINEL_PASSWORD" group:"Redis:" help:"The password of the Sentinels, not URL-encoded, if REDIS_URL has none."`

	Durability   durable.Mode     `name:"redis-durability" env:"REDIS_DURABILITY" default:"auto" group:"Redis:" help:"What Redis must guarantee before enqueue answers 'enqueued' and before a payment is sent: auto, replicas, trusted or none."`
	WaitReplicas WaitReplicas     `name:"redis-wait-replicas" env:"REDIS_WAIT_REPLICAS" default:"auto" group:"Redis:" help:"How many replicas must acknowledge such a write: a number, or auto: all that are connected."`
	WaitTimeout  OptionalDuration `name:"redis-wait-timeout" env:"REDIS_WAIT_TIMEOUT" default:"auto" group:"Redis:" help:"How long to wait for the replicas; auto is 1s, or 2.5s with appendfsync everysec."`
}

// OptionalDuration is a duration; the words off and auto are 0.
type OptionalDuration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *OptionalDuration) UnmarshalText(text []byte) error {
	if *d = 0; string(text) == "off" || string(text) == "auto" {
		return nil
	}
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed < time.Millisecond {
		return fmt.Errorf("%q is not a duration of 1ms or more (want e.g. 15s, 2m)", text)
	}
	*d = OptionalDuration(parsed)
	return nil
}

// WaitReplicas is the number of replicas that must acknowledge a write, or
// durable.EveryReplica: all that are connected.
type WaitReplicas int

// UnmarshalText implements encoding.TextUnmarshaler: "auto" or a number.
func (n *WaitReplicas) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*n = durable.EveryReplica
		return nil
	}
	number, err := strconv.ParseUint(string(text), 10, 8)
	if err != nil {
		return fmt.Errorf("%q is neither auto nor a number of replicas", text)
	}
	*n = WaitReplicas(number)
	return nil
}

// Validate is called by kong.
func (r *Redis) Validate() error {
	if err := redisconn.Validate(r.URL.Reveal(), r.passwords()); err != nil {
		return Wrong("REDIS_URL", err)
	}
	modes := []string{string(durable.Auto), string(durable.Replicas), string(durable.Trusted), string(durable.None)}
	if err := oneOf("REDIS_DURABILITY", string(r.Durability), modes...); err != nil {
		return err
	}
	if r.Durability == durable.Replicas && r.WaitReplicas == 0 {
		return wrong("REDIS_WAIT_REPLICAS", "is 0, and REDIS_DURABILITY=replicas needs at least 1")
	}
	if wait := time.Duration(r.WaitTimeout); wait >= redisconn.MaxWaitTimeout {
		return wrong("REDIS_WAIT_TIMEOUT", "%s is not less than %s, the timeout of a Redis command", wait, redisconn.MaxWaitTimeout)
	}
	return nil
}

// LongestWait returns how long one write may wait for its acknowledgement.
func (r *Redis) LongestWait() time.Duration {
	return cmp.Or(time.Duration(r.WaitTimeout), durable.EverySecTimeout)
}

func (r *Redis) passwords() redisconn.Passwords {
	return redisconn.Passwords{Redis: r.Password.Reveal(), Sentinel: r.SentinelPassword.Reveal()}
}

// Open creates a client. It does not connect yet.
func (r *Redis) Open() (redis.UniversalClient, error) {
	client, err := redisconn.Open(r.URL.Reveal(), r.passwords())
	if err != nil {
		return nil, Wrong("REDIS_URL", err)
	}
	return client, nil
}

// OpenDurable creates writers of durable writes to the slots of the keys. They do not connect
// yet. closeAll closes their connections.
func (r *Redis) OpenDurable(keys []string, log *slog.Logger) (writes durable.Writers, closeAll func() error, err error) {
	client, err := redisconn.OpenDurable(r.URL.Reveal(), r.passwords())
	if err != nil {
		return nil, nil, Wrong("REDIS_URL", err)
	}
	return durable.NewWriters(durable.Options{
		Client: client, Mode: r.Durability, Replicas: int(r.WaitReplicas), Timeout: time.Duration(r.WaitTimeout),
		Now: time.Now, Log: log,
	}, keys), client.Close, nil
}

// Unfit returns the Error of a Redis that does not guarantee what REDIS_DURABILITY requires.
func Unfit(cause error) error { return wrong("REDIS_DURABILITY", "%v", cause) }

// The signature schemes of AM (docs/gateways.md 1.5).
const (
	signSHA256 = "sha256-username-transaction-id"
	signHMAC   = "hmac-sha256"
)

// AMDigiPay holds the settings of AM Digital Payment. A setting exists for each question that
// the vendor's documentation does not answer. Its default is what public integrations do.
type AMDigiPay struct {
	BaseURL         string      `name:"amdigipay-base-url" env:"AMDIGIPAY_BASE_URL" default:"https://h2h.amdigipay.com/api" group:"AM Digital Payment:" help:"The URL of the API."`
	Username        string      `name:"amdigipay-username" env:"AMDIGIPAY_USERNAME" group:"AM Digital Payment:" help:"Without username and password this gateway is off."`
	Password        secret.Text `name:"amdigipay-password" env:"AMDIGIPAY_PASSWORD" group:"AM Digital Payment:" help:"The API password."`
	SignatureScheme string      `name:"amdigipay-signature-scheme" env:"AMDIGIPAY_SIGNATURE_SCHEME" default:"sha256-username-transaction-id" group:"AM Digital Payment:" help:"sha256-username-transaction-id or hmac-sha256."`
	SignatureKey    secret.Text `name:"amdigipay-signature-key" env:"AMDIGIPAY_SIGNATURE_KEY" group:"AM Digital Payment:" help:"The key of hmac-sha256."`
	SignatureFields []string    `name:"amdigipay-signature-fields" env:"AMDIGIPAY_SIGNATURE_FIELDS" group:"AM Digital Payment:" help:"The fields that hmac-sha256 signs, in this order, separated by commas."`
	RateLimit       Rate        `name:"amdigipay-rate-limit" env:"AMDIGIPAY_RATE_LIMIT" group:"AM Digital Payment:" placeholder:"N/UNIT" help:"How many requests all workers together may make, e.g. 10/s, 300/m or 5000/h; no limit by default."`

	StatusMap     string `name:"amdigipay-status-map" env:"AMDIGIPAY_STATUS_MAP" default:"1=on_processing,2=on_processing,3=paid,4=paid,5=cancelled,6=refunded,13=on_processing,14=failed" group:"AM Digital Payment, where its documentation is silent:" help:"The status that each status id of AM means."`
	ListMethod    string `name:"amdigipay-list-method" env:"AMDIGIPAY_LIST_METHOD" default:"GET" group:"AM Digital Payment, where its documentation is silent:" help:"The HTTP method of list-transaction: GET or POST."`
	ListLimit     int    `name:"amdigipay-list-limit" env:"AMDIGIPAY_LIST_LIMIT" default:"100" group:"AM Digital Payment, where its documentation is silent:" help:"Rows per page of list-transaction."`
	LoginEncoding string `name:"amdigipay-login-encoding" env:"AMDIGIPAY_LOGIN_ENCODING" default:"json" group:"AM Digital Payment, where its documentation is silent:" help:"The encoding of the login request: json or form."`
}

// Enabled reports whether the gateway has credentials.
func (a *AMDigiPay) Enabled() bool { return a.Username != "" && !a.Password.Empty() }

// Validate is called by kong. It removes slashes from the end of the base URL.
func (a *AMDigiPay) Validate() error {
	a.BaseURL = strings.TrimRight(a.BaseURL, "/")
	return cmp.Or(
		baseURL("AMDIGIPAY_BASE_URL", a.BaseURL),
		allOrNone(
			credential{"AMDIGIPAY_USERNAME", a.Username != ""},
			credential{"AMDIGIPAY_PASSWORD", !a.Password.Empty()},
		),
		oneOf("AMDIGIPAY_SIGNATURE_SCHEME", a.SignatureScheme, signSHA256, signHMAC),
		a.signature(),
		notEmpty("AMDIGIPAY_STATUS_MAP", a.StatusMap),
		oneOf("AMDIGIPAY_LIST_METHOD", a.ListMethod, "GET", "POST"),
		between("AMDIGIPAY_LIST_LIMIT", a.ListLimit, 1, 10_000),
		oneOf("AMDIGIPAY_LOGIN_ENCODING", a.LoginEncoding, "json", "form"),
	)
}

func (a *AMDigiPay) signature() error {
	if a.SignatureScheme != signHMAC {
		return nil
	}
	if a.SignatureKey.Empty() {
		return wrong("AMDIGIPAY_SIGNATURE_KEY", "is missing: AMDIGIPAY_SIGNATURE_SCHEME is %s", signHMAC)
	}
	if len(a.SignatureFields) == 0 || slices.Contains(a.SignatureFields, "") {
		return wrong("AMDIGIPAY_SIGNATURE_FIELDS", "is empty or contains an empty name: AMDIGIPAY_SIGNATURE_SCHEME is %s", signHMAC)
	}
	return nil
}

// Paydia holds the settings of Paydia SNAP.
type Paydia struct {
	BaseURL        string           `name:"paydia-base-url" env:"PAYDIA_BASE_URL" default:"https://api.paydia.id/snap/v1.0" group:"Paydia:" help:"The URL of the API; its path is part of the signed text."`
	ClientID       string           `name:"paydia-client-id" env:"PAYDIA_CLIENT_ID" group:"Paydia:" help:"Without client id, client secret and private key this gateway is off."`
	ClientSecret   secret.Text      `name:"paydia-client-secret" env:"PAYDIA_CLIENT_SECRET" group:"Paydia:" help:"Signs every payment and every query."`
	PrivateKey     secret.Text      `name:"paydia-private-key" env:"PAYDIA_PRIVATE_KEY" group:"Paydia:" help:"RSA key in PEM, PKCS#8 or PKCS#1; signs the request for an access token."`
	PrivateKeyFile string           `name:"paydia-private-key-file" env:"PAYDIA_PRIVATE_KEY_FILE" group:"Paydia:" help:"The file with the private key."`
	MerchantID     string           `name:"paydia-merchant-id" env:"PAYDIA_MERCHANT_ID" group:"Paydia:" help:"Used for payments without merchantId."`
	ChannelID      string           `name:"paydia-channel-id" env:"PAYDIA_CHANNEL_ID" default:"12345" group:"Paydia:" help:"The header CHANNEL-ID, at most 5 digits."`
	QueueTTL       OptionalDuration `name:"paydia-queue-ttl" env:"PAYDIA_QUEUE_TTL" default:"off" group:"Paydia:" help:"How long a payment may wait to be sent before it expires; Paydia's payments have no expired_date. Off by default."`
	RateLimit      Rate             `name:"paydia-rate-limit" env:"PAYDIA_RATE_LIMIT" group:"Paydia:" placeholder:"N/UNIT" help:"How many requests all workers together may make, e.g. 10/s, 300/m or 5000/h; no limit by default."`

	CustomerTokenPrefix string `name:"paydia-customer-token-prefix" env:"PAYDIA_CUSTOMER_TOKEN_PREFIX" group:"Paydia, where its documentation contradicts itself:" help:"Written before the token in the header Authorization-Customer, e.g. 'Bearer '; empty by default."`
	QueryEmptyReference bool   `name:"paydia-query-empty-reference" env:"PAYDIA_QUERY_EMPTY_REFERENCE" group:"Paydia, where its documentation contradicts itself:" help:"Send an unknown originalReferenceNo as an empty string instead of omitting it."`
}

// Enabled reports whether the gateway has credentials.
func (p *Paydia) Enabled() bool { return p.ClientID != "" && !p.ClientSecret.Empty() && p.hasKey() }

func (p *Paydia) hasKey() bool { return !p.PrivateKey.Empty() || p.PrivateKeyFile != "" }

var digits5 = regexp.MustCompile(`^[0-9]{1,5}$`)

// Validate is called by kong. It removes slashes from the end of the base URL.
func (p *Paydia) Validate() error {
	p.BaseURL = strings.TrimRight(p.BaseURL, "/")
	err := cmp.Or(
		baseURL("PAYDIA_BASE_URL", p.BaseURL),
		allOrNone(
			credential{"PAYDIA_CLIENT_ID", p.ClientID != ""},
			credential{"PAYDIA_CLIENT_SECRET", !p.ClientSecret.Empty()},
			credential{"PAYDIA_PRIVATE_KEY (or PAYDIA_PRIVATE_KEY_FILE)", p.hasKey()},
		),
	)
	if err == nil && !digits5.MatchString(p.ChannelID) { // Paydia "Auth Payment", header 7
		err = wrong("PAYDIA_CHANNEL_ID", "%q is not 1 to 5 digits", p.ChannelID)
	}
	if err == nil && len(p.MerchantID) > 64 { // Paydia "Auth Payment", body field 2
		err = wrong("PAYDIA_MERCHANT_ID", "is longer than 64 characters")
	}
	if err == nil && p.hasKey() {
		_, err = p.Key()
	}
	return err
}

// Key returns the private key as PEM, from the variable or from the file. It is an RSA key
// of at least 2048 bits.
func (p *Paydia) Key() (secret.Text, error) {
	text, variable, err := valueOrFile("PAYDIA_PRIVATE_KEY", p.PrivateKey, p.PrivateKeyFile)
	if err != nil {
		return secret.Text{}, err
	}
	if key := text.Reveal(); !strings.Contains(key, "\n") { // as in .env files: one line
		text = secret.NewText(strings.ReplaceAll(key, `\n`, "\n"))
	}
	if err := rsaKey(text); err != nil {
		return secret.Text{}, Wrong(variable, err)
	}
	return text, nil
}

func rsaKey(text secret.Text) error {
	block, _ := pem.Decode([]byte(text.Reveal()))
	if block == nil {
		return errors.New("is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return errors.New("is neither a PKCS#8 nor a PKCS#1 private key without a password")
		}
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return errors.New("is not an RSA key")
	}
	if bits := key.N.BitLen(); bits < 2048 {
		return fmt.Errorf("has %d bits, at least 2048 are required", bits)
	}
	return nil
}

// Rate is a number of requests per time. The zero value is no limit.
type Rate struct {
	Requests int
	Per      time.Duration
}

var rate = regexp.MustCompile(`^([1-9][0-9]{0,5})/([smh])$`)

// UnmarshalText implements encoding.TextUnmarshaler: "10/s", "300/m", "5000/h", or "".
func (r *Rate) UnmarshalText(text []byte) error {
	*r = Rate{}
	if len(text) == 0 {
		return nil
	}
	m := rate.FindSubmatch(text)
	if m == nil {
		return fmt.Errorf("%q is not a rate (want e.g. 10/s, 300/m, 5000/h)", text)
	}
	r.Per = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[string(m[2])]
	var err error
	r.Requests, err = strconv.Atoi(string(m[1]))
	return err
}

// Worker holds the settings of the worker: concurrency, HTTP, timeouts and intervals.
type Worker struct {
	Concurrency        int           `name:"worker-concurrency" env:"WORKER_CONCURRENCY" default:"50" group:"Worker:" help:"Payments submitted at the same time, per gateway."`
	HTTPAddr           string        `name:"worker-http-addr" env:"WORKER_HTTP_ADDR" default:":8080" group:"Worker:" help:"Address of /healthz, /readyz, /metrics and /monitoring/."`
	ShutdownTimeout    time.Duration `name:"worker-shutdown-timeout" env:"WORKER_SHUTDOWN_TIMEOUT" default:"40s" group:"Worker:" help:"How long a graceful shutdown may take; requests in flight finish."`
	GatewayTimeout     time.Duration `name:"gateway-timeout" env:"GATEWAY_TIMEOUT" default:"15s" group:"Worker:" help:"Timeout of one request to a gateway."`
	StatusPollInterval time.Duration `name:"status-poll-interval" env:"STATUS_POLL_INTERVAL" default:"30s" group:"Worker:" help:"How often open payments are looked up."`
	MonitoringUsers    secret.Text   `name:"monitoring-users" env:"MONITORING_USERS" group:"Worker:" help:"The users of /monitoring/, as name:bcrypt-hash, separated by commas; without any, only loopback callers see it."`

	ExpiryGrace            time.Duration `name:"expiry-grace" env:"EXPIRY_GRACE" default:"1m" group:"Worker, rarely changed:" help:"How long after its expired_date an unpaid payment becomes expired."`
	StatusFullScanInterval time.Duration `name:"status-full-scan-interval" aliases:"status-sweep-interval" env:"STATUS_FULL_SCAN_INTERVAL,STATUS_SWEEP_INTERVAL" default:"15m" group:"Worker, rarely changed:" help:"A poll reads AM's whole list at least this often; other polls read only a part of it."`
	LatePaymentWindow      time.Duration `name:"late-payment-window" env:"LATE_PAYMENT_WINDOW" default:"168h" group:"Worker, rarely changed:" help:"How long an expired payment, or one in needs_review, is still looked up for a late payment."`
	BreakerFailures        int           `name:"gateway-breaker-failures" env:"GATEWAY_BREAKER_FAILURES" default:"5" group:"Worker, rarely changed:" help:"After this number of failures in a row a gateway's circuit breaker opens."`
	BreakerPause           time.Duration `name:"gateway-breaker-pause" env:"GATEWAY_BREAKER_PAUSE" default:"15s" group:"Worker, rarely changed:" help:"How long the circuit breaker stays open before one request tries the gateway again."`
	Refusals               int           `name:"gateway-refusals" env:"GATEWAY_REFUSALS" default:"10" group:"Worker, rarely changed:" help:"After this number of payments in a row refused with the same code and message a gateway is paused, except for one probe payment a minute."`
}

const (
	// sendSlack is the time for the claim itself, apart from the wait for its
	// acknowledgement, and for the request until its first byte is sent: mostly to connect.
	sendSlack = 5 * time.Second
	// leaseMargin is how much longer a claim lasts than its request: time to record the
	// outcome, and for clocks that drift.
	leaseMargin = 3 * time.Second
)

// SendBudget returns how long after its claim a request may be sent. longestWait is how long
// a write may wait for its acknowledgement.
func (w *Worker) SendBudget(longestWait time.Duration) time.Duration { return longestWait + sendSlack }

// ClaimLease returns how long a claim on a payment lasts: longer than its request.
func (w *Worker) ClaimLease(longestWait time.Duration) time.Duration {
	return w.SendBudget(longestWait) + w.GatewayTimeout + leaseMargin
}

// LongestSubmit returns how long the task of a submit may take: a login, a second claim
// after one that was not acknowledged, and the whole claim. It must be less than the task's
// timeout.
func (w *Worker) LongestSubmit(longestWait time.Duration) time.Duration {
	return w.GatewayTimeout + w.SendBudget(longestWait) + w.ClaimLease(longestWait)
}

// Drain returns how long requests in flight may take at shutdown. The rest of the shutdown
// timeout, up to 2 s, is for requeueing tasks, and for a Redis that does not answer.
func (w *Worker) Drain() time.Duration {
	return w.ShutdownTimeout - min(2*time.Second, (w.ShutdownTimeout-w.GatewayTimeout)/2)
}

// Validate is called by kong. It compares the gateway timeout and the shutdown timeout; the
// claim's lease needs no check, because it is computed from the gateway timeout.
func (w *Worker) Validate() error {
	err := cmp.Or(
		between("WORKER_CONCURRENCY", w.Concurrency, 1, 10_000),
		address("WORKER_HTTP_ADDR", w.HTTPAddr),
		atLeast("WORKER_SHUTDOWN_TIMEOUT", w.ShutdownTimeout, time.Millisecond),
		atLeast("GATEWAY_TIMEOUT", w.GatewayTimeout, time.Millisecond),
		atLeast("STATUS_POLL_INTERVAL", w.StatusPollInterval, 100*time.Millisecond),
		atLeast("EXPIRY_GRACE", w.ExpiryGrace, 0),
		atLeast("STATUS_FULL_SCAN_INTERVAL", w.StatusFullScanInterval, time.Second),
		atLeast("LATE_PAYMENT_WINDOW", w.LatePaymentWindow, 0),
		between("GATEWAY_BREAKER_FAILURES", w.BreakerFailures, 1, 10_000),
		atLeast("GATEWAY_BREAKER_PAUSE", w.BreakerPause, time.Millisecond),
		between("GATEWAY_REFUSALS", w.Refusals, 1, 1000),
	)
	if err == nil && w.GatewayTimeout >= w.ShutdownTimeout {
		err = &Error{fmt.Sprintf("GATEWAY_TIMEOUT (%s) must be less than WORKER_SHUTDOWN_TIMEOUT (%s): "+
			"a request in flight at shutdown could not finish", w.GatewayTimeout, w.ShutdownTimeout)}
	}
	if err == nil {
		_, err = w.Users()
	}
	return err
}

// Users returns the users of /monitoring/: bcrypt hashes by name.
func (w *Worker) Users() (map[string][]byte, error) {
	users := make(map[string][]byte)
	if w.MonitoringUsers.Empty() {
		return users, nil
	}
	// The errors contain neither name nor hash: either may be a password in the wrong place.
	for i, entry := range strings.Split(w.MonitoringUsers.Reveal(), ",") {
		name, hash, ok := strings.Cut(strings.TrimSpace(entry), ":")
		if !ok || name == "" {
			return nil, wrong("MONITORING_USERS", "entry %d is not name:bcrypt-hash", i+1)
		}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, wrong("MONITORING_USERS", "entry %d has no bcrypt hash after its name", i+1)
		}
		if users[name] != nil {
			return nil, wrong("MONITORING_USERS", "entry %d has the name of an earlier one", i+1)
		}
		users[name] = []byte(hash)
	}
	return users, nil
}

// RetryPolicy names the policy file.
type RetryPolicy struct {
	File string `name:"retry-policy-file" env:"RETRY_POLICY_FILE" group:"Retry policy:" help:"YAML file that overrides rules of the built-in policy."`
}

// Events names the stream of result events.
type Events struct {
	Stream string `name:"events-stream" env:"EVENTS_STREAM" default:"terbayar:events" group:"Events:" help:"The Redis stream of result events."`
}

// Validate is called by kong.
func (e *Events) Validate() error { return notEmpty("EVENTS_STREAM", e.Stream) }

// Ledger holds the settings of the ledger.
type Ledger struct {
	Partitions int `name:"ledger-partitions" env:"LEDGER_PARTITIONS" default:"1" group:"Redis:" help:"Over how many hash tags the ledger is spread, for a Redis Cluster. It is fixed at the first use."`
}

// Validate is called by kong.
func (l *Ledger) Validate() error {
	if l.Partitions < 1 || l.Partitions > maxPartitions {
		return wrong("LEDGER_PARTITIONS", "%d is not a number from 1 to %d", l.Partitions, maxPartitions)
	}
	return nil
}

// maxPartitions is the highest number of partitions: each costs every worker a script a
// second and, in a Redis Cluster, an inspection of its primary.
const maxPartitions = 64

// OtherPartitions returns the Error of a ledger that has another number of partitions.
func OtherPartitions(cause error) error { return wrong("LEDGER_PARTITIONS", "%v", cause) }

// Archive names the archive of payments.
type Archive struct {
	Dir string `name:"archive-dir" env:"ARCHIVE_DIR" group:"Retention:" help:"The directory of the archive: payments are written there before their records are deleted after RETENTION, and enqueue status reads them there."`
}

// Retention holds how long the worker keeps what is no longer needed.
type Retention struct {
	Payments KeepFor `name:"retention" env:"RETENTION" default:"never" group:"Retention:" help:"How long the record of a payment is kept after the payment is over: 400d, 36h, or never: it is not deleted. Then only a tombstone is left, for good: the same id stays a duplicate or a conflict."`
	Events   KeepFor `name:"events-retention" env:"EVENTS_RETENTION" default:"90d" group:"Retention:" help:"How long result events are kept, longer while an active consumer group has not read them: 90d, 36h, or never: they are not deleted."`
}

// KeepFor is how long something is kept, a second at least: 90d, 36h. The word never is 0: it
// is not deleted.
type KeepFor time.Duration

// String returns it as it is set: whole days as 90d.
func (k KeepFor) String() string {
	const day = 24 * time.Hour
	switch d := time.Duration(k); {
	case d == 0:
		return "never"
	case d%day == 0:
		return strconv.Itoa(int(d/day)) + "d"
	default:
		return d.String()
	}
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *KeepFor) UnmarshalText(text []byte) error {
	if *k = 0; string(text) == "never" {
		return nil
	}
	var parsed time.Duration
	var err error
	if number, isDays := strings.CutSuffix(string(text), "d"); isDays {
		var days uint64
		days, err = strconv.ParseUint(number, 10, 16)
		parsed = time.Duration(days) * 24 * time.Hour
	} else {
		parsed, err = time.ParseDuration(string(text))
	}
	if err != nil || parsed < time.Second {
		return fmt.Errorf("%q is neither never nor a duration of 1s or more (want e.g. 90d, 36h)", text)
	}
	*k = KeepFor(parsed)
	return nil
}

// Payload holds the keys that encrypt customer tokens in Redis.
type Payload struct {
	Keys     secret.Text `name:"payload-keys" env:"PAYLOAD_KEYS" group:"Secrets at rest:" help:"Base64 of 32 random bytes, several separated by commas: the first encrypts, all decrypt."`
	KeysFile string      `name:"payload-keys-file" env:"PAYLOAD_KEYS_FILE" group:"Secrets at rest:" help:"The file with the keys."`
}

// Validate is called by kong.
func (p *Payload) Validate() error {
	_, err := p.Cipher()
	return err
}

// Cipher returns a cipher with the keys. Without keys it cannot encrypt.
func (p *Payload) Cipher() (*secret.Cipher, error) {
	keys, variable, err := valueOrFile("PAYLOAD_KEYS", p.Keys, p.KeysFile)
	if err != nil {
		return nil, err
	}
	cipher, err := secret.NewCipher(keys)
	if err == nil && p.KeysFile != "" && !cipher.CanEncrypt() {
		err = errors.New("the file contains no key")
	}
	if err != nil {
		return nil, Wrong(variable, err)
	}
	return cipher, nil
}

// Log holds the settings of the worker's log.
type Log struct {
	Level  string `name:"log-level" env:"LOG_LEVEL" default:"info" group:"Log:" help:"debug, info, warn or error."`
	Format string `name:"log-format" env:"LOG_FORMAT" default:"auto" group:"Log:" help:"json, text (coloured on a terminal), or auto: text on a terminal, json elsewhere."`
}

// Validate is called by kong.
func (l *Log) Validate() error {
	return cmp.Or(
		oneOf("LOG_LEVEL", l.Level, "debug", "info", "warn", "error"),
		oneOf("LOG_FORMAT", l.Format, "auto", "json", "text"),
	)
}
