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

// Redis is where the ledger, the queues and the events live.
type Redis struct {
	URL              secret.Text `name:"redis-url" env:"REDIS_URL" default:"redis://127.0.0.1:6379/0" group:"Redis:" help:"redis://, rediss://, redis-sentinel:// or redis-cluster://."`
	Password         secret.Text `name:"redis-password" env:"REDIS_PASSWORD" group:"Redis:" help:"The password, as it is, where it does not stand in the URL."`
	SentinelPassword secret.Text `name:"redis-sentinel-password" env:"REDIS_SENTINEL_PASSWORD" group:"Redis:" help:"The same for the sentinels."`

	Durability   durable.Mode     `name:"redis-durability" env:"REDIS_DURABILITY" default:"auto" group:"Redis:" help:"What Redis must guarantee before a payment is answered 'enqueued', or sent: auto, replicas, trusted or none."`
	WaitReplicas WaitReplicas     `name:"redis-wait-replicas" env:"REDIS_WAIT_REPLICAS" default:"auto" group:"Redis:" help:"How many replicas must have such a write: a number, or auto, which is every one that is connected."`
	WaitTimeout  OptionalDuration `name:"redis-wait-timeout" env:"REDIS_WAIT_TIMEOUT" default:"auto" group:"Redis:" help:"How long to wait for them; by default 1s, or 2.5s where an fsync every second is waited for."`
}

// OptionalDuration is a duration, or 0 for the words off and auto.
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

// WaitReplicas is how many replicas must have a write; durable.EveryReplica: all that
// are connected.
type WaitReplicas int

// UnmarshalText implements encoding.TextUnmarshaler: "auto", or a number.
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

// Validate implements kong's check.
func (r *Redis) Validate() error {
	if err := redisconn.Validate(r.URL.Reveal(), r.beside()); err != nil {
		return Wrong("REDIS_URL", err)
	}
	modes := []string{string(durable.Auto), string(durable.Replicas), string(durable.Trusted), string(durable.None)}
	if err := oneOf("REDIS_DURABILITY", string(r.Durability), modes...); err != nil {
		return err
	}
	if r.Durability == durable.Replicas && r.WaitReplicas == 0 {
		return wrong("REDIS_WAIT_REPLICAS", "is 0, and REDIS_DURABILITY=replicas wants at least one")
	}
	if wait := time.Duration(r.WaitTimeout); wait >= redisconn.MaxWaitTimeout {
		return wrong("REDIS_WAIT_TIMEOUT", "%s is not less than %s, after which no answer of Redis is waited for", wait, redisconn.MaxWaitTimeout)
	}
	return nil
}

// LongestWait is how long one write may wait for its acknowledgement.
func (r *Redis) LongestWait() time.Duration {
	return cmp.Or(time.Duration(r.WaitTimeout), durable.EverySecTimeout)
}

func (r *Redis) beside() redisconn.Passwords {
	return redisconn.Passwords{Redis: r.Password.Reveal(), Sentinel: r.SentinelPassword.Reveal()}
}

// Open makes a client; it does not connect yet.
func (r *Redis) Open() (redis.UniversalClient, error) {
	client, err := redisconn.Open(r.URL.Reveal(), r.beside())
	if err != nil {
		return nil, Wrong("REDIS_URL", err)
	}
	return client, nil
}

// OpenDurable makes a writer of what must survive, to the slot of a key; it does not
// connect yet. closeAll closes its connections.
func (r *Redis) OpenDurable(key string, log *slog.Logger) (w *durable.Writer, closeAll func() error, err error) {
	client, err := redisconn.OpenDurable(r.URL.Reveal(), r.beside())
	if err != nil {
		return nil, nil, Wrong("REDIS_URL", err)
	}
	return durable.New(durable.Options{
		Client: client, Mode: r.Durability, Replicas: int(r.WaitReplicas), Timeout: time.Duration(r.WaitTimeout),
		Key: key, Now: time.Now, Log: log,
	}), client.Close, nil
}

// Unfit makes the Error of a Redis that does not give what REDIS_DURABILITY wants.
func Unfit(cause error) error { return wrong("REDIS_DURABILITY", "%v", cause) }

// The signature schemes of AM (gateways.md 1.5).
const (
	signSHA256 = "sha256-username-transaction-id"
	signHMAC   = "hmac-sha256"
)

// AMDigiPay is AM Digital Payment's part. What the vendor does not say is a
// setting of its own, whose default is what public integrations do.
type AMDigiPay struct {
	BaseURL         string      `name:"amdigipay-base-url" env:"AMDIGIPAY_BASE_URL" default:"https://h2h.amdigipay.com/api" group:"AM Digital Payment:" help:"Where its API is."`
	Username        string      `name:"amdigipay-username" env:"AMDIGIPAY_USERNAME" group:"AM Digital Payment:" help:"Without username and password the gateway is off."`
	Password        secret.Text `name:"amdigipay-password" env:"AMDIGIPAY_PASSWORD" group:"AM Digital Payment:" help:"The API password."`
	SignatureScheme string      `name:"amdigipay-signature-scheme" env:"AMDIGIPAY_SIGNATURE_SCHEME" default:"sha256-username-transaction-id" group:"AM Digital Payment:" help:"sha256-username-transaction-id or hmac-sha256."`
	SignatureKey    secret.Text `name:"amdigipay-signature-key" env:"AMDIGIPAY_SIGNATURE_KEY" group:"AM Digital Payment:" help:"The key of hmac-sha256."`
	SignatureFields []string    `name:"amdigipay-signature-fields" env:"AMDIGIPAY_SIGNATURE_FIELDS" group:"AM Digital Payment:" help:"The fields that hmac-sha256 signs, in order, separated by commas."`
	RateLimit       Rate        `name:"amdigipay-rate-limit" env:"AMDIGIPAY_RATE_LIMIT" group:"AM Digital Payment:" placeholder:"N/UNIT" help:"The most requests all workers together may make, e.g. 10/s, 300/m or 5000/h; no limit by default."`

	StatusMap     string `name:"amdigipay-status-map" env:"AMDIGIPAY_STATUS_MAP" default:"1=on_processing,2=on_processing,3=paid,4=paid,5=cancelled,6=refunded,13=on_processing,14=failed" group:"AM Digital Payment, where its pages are silent:" help:"What its status ids mean."`
	ListMethod    string `name:"amdigipay-list-method" env:"AMDIGIPAY_LIST_METHOD" default:"GET" group:"AM Digital Payment, where its pages are silent:" help:"The HTTP method of list-transaction: GET or POST."`
	ListLimit     int    `name:"amdigipay-list-limit" env:"AMDIGIPAY_LIST_LIMIT" default:"100" group:"AM Digital Payment, where its pages are silent:" help:"Rows asked for per page of list-transaction."`
	LoginEncoding string `name:"amdigipay-login-encoding" env:"AMDIGIPAY_LOGIN_ENCODING" default:"json" group:"AM Digital Payment, where its pages are silent:" help:"How the login is sent: json or form."`
}

// Enabled reports whether the gateway's credentials are there.
func (a *AMDigiPay) Enabled() bool { return a.Username != "" && !a.Password.Empty() }

// Validate implements kong's check. It takes a slash off the base URL's end.
func (a *AMDigiPay) Validate() error {
	a.BaseURL = strings.TrimRight(a.BaseURL, "/")
	return cmp.Or(
		baseURL("AMDIGIPAY_BASE_URL", a.BaseURL),
		complete(
			part{"AMDIGIPAY_USERNAME", a.Username != ""},
			part{"AMDIGIPAY_PASSWORD", !a.Password.Empty()},
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
		return wrong("AMDIGIPAY_SIGNATURE_FIELDS", "names no field, or an empty one: AMDIGIPAY_SIGNATURE_SCHEME is %s", signHMAC)
	}
	return nil
}

// Paydia is Paydia SNAP's part.
type Paydia struct {
	BaseURL        string           `name:"paydia-base-url" env:"PAYDIA_BASE_URL" default:"https://api.paydia.id/snap/v1.0" group:"Paydia:" help:"Where its API is; the path is part of what is signed."`
	ClientID       string           `name:"paydia-client-id" env:"PAYDIA_CLIENT_ID" group:"Paydia:" help:"Without client id, client secret and private key the gateway is off."`
	ClientSecret   secret.Text      `name:"paydia-client-secret" env:"PAYDIA_CLIENT_SECRET" group:"Paydia:" help:"Signs every transaction call."`
	PrivateKey     secret.Text      `name:"paydia-private-key" env:"PAYDIA_PRIVATE_KEY" group:"Paydia:" help:"RSA, PEM, PKCS#8 or PKCS#1; signs the access token's call."`
	PrivateKeyFile string           `name:"paydia-private-key-file" env:"PAYDIA_PRIVATE_KEY_FILE" group:"Paydia:" help:"The same, in a file."`
	MerchantID     string           `name:"paydia-merchant-id" env:"PAYDIA_MERCHANT_ID" group:"Paydia:" help:"For payments that leave merchantId out."`
	ChannelID      string           `name:"paydia-channel-id" env:"PAYDIA_CHANNEL_ID" default:"12345" group:"Paydia:" help:"CHANNEL-ID, at most 5 digits."`
	QueueTTL       OptionalDuration `name:"paydia-queue-ttl" env:"PAYDIA_QUEUE_TTL" default:"off" group:"Paydia:" help:"How long a payment may wait to be sent, then it is expired: it has no date of its own. Off by default."`
	RateLimit      Rate             `name:"paydia-rate-limit" env:"PAYDIA_RATE_LIMIT" group:"Paydia:" placeholder:"N/UNIT" help:"The most requests all workers together may make, e.g. 10/s, 300/m or 5000/h; no limit by default."`

	CustomerTokenPrefix string `name:"paydia-customer-token-prefix" env:"PAYDIA_CUSTOMER_TOKEN_PREFIX" group:"Paydia, where its pages contradict themselves:" help:"What stands before the token in Authorization-Customer, e.g. 'Bearer '; nothing by default."`
	QueryEmptyReference bool   `name:"paydia-query-empty-reference" env:"PAYDIA_QUERY_EMPTY_REFERENCE" group:"Paydia, where its pages contradict themselves:" help:"Send an unknown originalReferenceNo as an empty string instead of leaving it out."`
}

// Enabled reports whether the gateway's credentials are there.
func (p *Paydia) Enabled() bool { return p.ClientID != "" && !p.ClientSecret.Empty() && p.hasKey() }

func (p *Paydia) hasKey() bool { return !p.PrivateKey.Empty() || p.PrivateKeyFile != "" }

var digits5 = regexp.MustCompile(`^[0-9]{1,5}$`)

// Validate implements kong's check. It takes a slash off the base URL's end.
func (p *Paydia) Validate() error {
	p.BaseURL = strings.TrimRight(p.BaseURL, "/")
	err := cmp.Or(
		baseURL("PAYDIA_BASE_URL", p.BaseURL),
		complete(
			part{"PAYDIA_CLIENT_ID", p.ClientID != ""},
			part{"PAYDIA_CLIENT_SECRET", !p.ClientSecret.Empty()},
			part{"PAYDIA_PRIVATE_KEY (or PAYDIA_PRIVATE_KEY_FILE)", p.hasKey()},
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

// Key is the private key as PEM, from the variable or from the file, checked to
// be an RSA key of at least 2048 bits.
func (p *Paydia) Key() (secret.Text, error) {
	text, variable, err := eitherWay("PAYDIA_PRIVATE_KEY", p.PrivateKey, p.PrivateKeyFile)
	if err != nil {
		return secret.Text{}, err
	}
	if key := text.Reveal(); !strings.Contains(key, "\n") { // as .env files have it, in one line
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
		return fmt.Errorf("has %d bits, at least 2048 are needed", bits)
	}
	return nil
}

// Rate is so many requests in a time; the zero Rate is no limit.
type Rate struct {
	Requests int
	Per      time.Duration
}

var rate = regexp.MustCompile(`^([1-9][0-9]{0,5})/([smh])$`)

// UnmarshalText implements encoding.TextUnmarshaler: "10/s", "300/m", "5000/h",
// or nothing.
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

// Worker is what the worker does with the machine and with time.
type Worker struct {
	Concurrency        int           `name:"worker-concurrency" env:"WORKER_CONCURRENCY" default:"50" group:"Worker:" help:"Submits under way at once, per gateway."`
	HTTPAddr           string        `name:"worker-http-addr" env:"WORKER_HTTP_ADDR" default:":8080" group:"Worker:" help:"Where /healthz, /readyz, /metrics and /monitoring/ listen."`
	ShutdownTimeout    time.Duration `name:"worker-shutdown-timeout" env:"WORKER_SHUTDOWN_TIMEOUT" default:"40s" group:"Worker:" help:"How long requests in flight may take to finish at shutdown."`
	GatewayTimeout     time.Duration `name:"gateway-timeout" env:"GATEWAY_TIMEOUT" default:"15s" group:"Worker:" help:"How long one request to a gateway may take."`
	StatusPollInterval time.Duration `name:"status-poll-interval" env:"STATUS_POLL_INTERVAL" default:"30s" group:"Worker:" help:"How often the open payments are polled."`
	MonitoringUsers    secret.Text   `name:"monitoring-users" env:"MONITORING_USERS" group:"Worker:" help:"name:bcrypt-hash, several separated by commas: who may see /monitoring/; without it loopback callers only."`

	ExpiryGrace         time.Duration `name:"expiry-grace" env:"EXPIRY_GRACE" default:"1m" group:"Worker, rarely changed:" help:"How long after its expired_date an unpaid payment expires."`
	StatusSweepInterval time.Duration `name:"status-sweep-interval" env:"STATUS_SWEEP_INTERVAL" default:"15m" group:"Worker, rarely changed:" help:"How long polls may take short cuts before one reads AM's whole list."`
	LatePaymentWindow   time.Duration `name:"late-payment-window" env:"LATE_PAYMENT_WINDOW" default:"168h" group:"Worker, rarely changed:" help:"How long an expired payment, or one in needs_review, is still watched for late money."`
	BreakerFailures     int           `name:"gateway-breaker-failures" env:"GATEWAY_BREAKER_FAILURES" default:"5" group:"Worker, rarely changed:" help:"After so many failures in a row a gateway is left alone."`
	BreakerPause        time.Duration `name:"gateway-breaker-pause" env:"GATEWAY_BREAKER_PAUSE" default:"15s" group:"Worker, rarely changed:" help:"How long it is then left alone, before one request tries again."`
	Refusals            int           `name:"gateway-refusals" env:"GATEWAY_REFUSALS" default:"10" group:"Worker, rarely changed:" help:"After so many payments refused in a row in the same words a gateway is paused, but for one probe payment a minute."`
}

const (
	// sendSlack is what a claim may take beyond the wait for its acknowledgement, and the
	// request until its first byte leaves: to connect, above all.
	sendSlack = 5 * time.Second
	// leaseMargin is what a claim lasts beyond the request: writing its outcome down, and
	// clocks that do not go at the same pace.
	leaseMargin = 3 * time.Second
)

// SendBudget is how long after its claim a request may begin, where a write may wait for
// its acknowledgement for so long.
func (w *Worker) SendBudget(longestWait time.Duration) time.Duration { return longestWait + sendSlack }

// ClaimLease is how long a claim on a payment lasts: until its request has long ended.
func (w *Worker) ClaimLease(longestWait time.Duration) time.Duration {
	return w.SendBudget(longestWait) + w.GatewayTimeout + leaseMargin
}

// LongestSubmit is how long a submit's task may take: to log in, to claim twice, and to use
// up the claim. It must be less than what asynq gives a task.
func (w *Worker) LongestSubmit(longestWait time.Duration) time.Duration {
	return w.GatewayTimeout + w.SendBudget(longestWait) + w.ClaimLease(longestWait)
}

// Drain is how long requests under way may take at shutdown: what is left of the
// time-out, up to 2 s, is for handing tasks back and for a Redis that does not answer.
func (w *Worker) Drain() time.Duration {
	return w.ShutdownTimeout - min(2*time.Second, (w.ShutdownTimeout-w.GatewayTimeout)/2)
}

// Validate implements kong's check. Of the time-out chain it looks at the link
// between two settings; the lease follows from the gateway's time-out.
func (w *Worker) Validate() error {
	err := cmp.Or(
		between("WORKER_CONCURRENCY", w.Concurrency, 1, 10_000),
		address("WORKER_HTTP_ADDR", w.HTTPAddr),
		atLeast("WORKER_SHUTDOWN_TIMEOUT", w.ShutdownTimeout, time.Millisecond),
		atLeast("GATEWAY_TIMEOUT", w.GatewayTimeout, time.Millisecond),
		atLeast("STATUS_POLL_INTERVAL", w.StatusPollInterval, 100*time.Millisecond),
		atLeast("EXPIRY_GRACE", w.ExpiryGrace, 0),
		atLeast("STATUS_SWEEP_INTERVAL", w.StatusSweepInterval, time.Second),
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

// Users are those who may see /monitoring/: bcrypt hashes by name. Empty: nobody
// was named.
func (w *Worker) Users() (map[string][]byte, error) {
	users := make(map[string][]byte)
	if w.MonitoringUsers.Empty() {
		return users, nil
	}
	// Neither name nor hash goes into an error: a password may stand in either place.
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

// RetryPolicy is where the overrides of the retry policy are. What reads the
// file reports its errors with Wrong("RETRY_POLICY_FILE", err).
type RetryPolicy struct {
	File string `name:"retry-policy-file" env:"RETRY_POLICY_FILE" group:"Retry policy:" help:"Overrides, in YAML."`
}

// Events is where the result events go.
type Events struct {
	Stream string `name:"events-stream" env:"EVENTS_STREAM" default:"terbayar:events" group:"Events:" help:"The Redis stream of result events."`
}

// Validate implements kong's check.
func (e *Events) Validate() error { return notEmpty("EVENTS_STREAM", e.Stream) }

// Payload is what seals secrets at rest in Redis.
type Payload struct {
	Keys     secret.Text `name:"payload-keys" env:"PAYLOAD_KEYS" group:"Secrets at rest:" help:"Base64 of 32 random bytes, several separated by commas: the first seals, any opens."`
	KeysFile string      `name:"payload-keys-file" env:"PAYLOAD_KEYS_FILE" group:"Secrets at rest:" help:"The same, in a file."`
}

// Validate implements kong's check.
func (p *Payload) Validate() error {
	_, err := p.Sealer()
	return err
}

// Sealer seals with the keys; without any it refuses to.
func (p *Payload) Sealer() (*secret.Cipher, error) {
	keys, variable, err := eitherWay("PAYLOAD_KEYS", p.Keys, p.KeysFile)
	if err != nil {
		return nil, err
	}
	sealer, err := secret.NewCipher(keys)
	if err == nil && p.KeysFile != "" && !sealer.CanEncrypt() {
		err = errors.New("the file holds no key")
	}
	if err != nil {
		return nil, Wrong(variable, err)
	}
	return sealer, nil
}

// Log is how the program speaks to its operator.
type Log struct {
	Level  string `name:"log-level" env:"LOG_LEVEL" default:"info" group:"Log:" help:"debug, info, warn or error."`
	Format string `name:"log-format" env:"LOG_FORMAT" default:"auto" group:"Log:" help:"json, text (coloured on a terminal), or auto: text on a terminal, json elsewhere."`
}

// Validate implements kong's check.
func (l *Log) Validate() error {
	return cmp.Or(
		oneOf("LOG_LEVEL", l.Level, "debug", "info", "warn", "error"),
		oneOf("LOG_FORMAT", l.Format, "auto", "json", "text"),
	)
}
