package main

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/version"
)

// settings are the flags, each with an environment variable. A test checks that their
// defaults are those of gatewaysim.DefaultConfig.
type settings struct {
	Addr      string   `help:"Address to listen on." env:"GATEWAYSIM_ADDR" default:"127.0.0.1:8090"`
	Seed      uint64   `help:"Seed of all random numbers: the same seed repeats a run." env:"GATEWAYSIM_SEED" default:"1"`
	Faults    jsonText `help:"Fault rules that are active from the start, as a JSON list; see above." env:"GATEWAYSIM_FAULTS" default:"[]"`
	FaultRate float64  `help:"Share of requests that get a fault, 0 to 1, each kind equally often." env:"GATEWAYSIM_FAULT_RATE" default:"0"`
	Customers jsonText `help:"What the customers do, as a JSON list of rules; see above." env:"GATEWAYSIM_CUSTOMERS" default:"${customers}"`
	Refusals  jsonText `help:"Refusals for business reasons, as a JSON list; see above." env:"GATEWAYSIM_REFUSALS" default:"[]"`

	CallbackFaults []string `help:"What is wrong with all callbacks: duplicate, reorder, forged, test; several separated by commas." env:"GATEWAYSIM_CALLBACK_FAULTS"`

	History      int `help:"Number of other paid transactions that AM has from the start." env:"GATEWAYSIM_HISTORY" default:"0"`
	ListNewRows  int `help:"Number of other transactions that are created after every request for a page of AM's list." env:"GATEWAYSIM_LIST_NEW_ROWS" default:"0"`
	ListPaidRows int `help:"Number of other open transactions that become paid after every request for a page of AM's list." env:"GATEWAYSIM_LIST_PAID_ROWS" default:"0"`

	Version kong.VersionFlag `help:"Print the version."`

	AM     amSettings     `embed:"" prefix:"am-" envprefix:"GATEWAYSIM_AM_" group:"AM Digital Payment"`
	Paydia paydiaSettings `embed:"" prefix:"paydia-" envprefix:"GATEWAYSIM_PAYDIA_" group:"Paydia SNAP"`
}

type amSettings struct {
	Username        string        `help:"User name of the login." env:"USERNAME" default:"SIMULATED1"`
	Password        string        `help:"Password of the login." env:"PASSWORD" default:"simulated-am-password"`
	TokenLifetime   time.Duration `help:"Lifetime of an access token." env:"TOKEN_LIFETIME" default:"1h"`
	SignatureScheme string        `help:"How requests are signed: ${enum}." enum:"sha256-username-transaction-id,hmac-sha256" env:"SIGNATURE_SCHEME" default:"sha256-username-transaction-id"`
	SignatureKey    string        `help:"Key of hmac-sha256." env:"SIGNATURE_KEY"`
	SignatureFields []string      `help:"Fields that hmac-sha256 covers, in order." env:"SIGNATURE_FIELDS" default:"username,transaction_id"`
	IgnoreSignature bool          `help:"Accept wrong signatures; they are counted as violations." env:"IGNORE_SIGNATURE"`
	Duplicates      string        `help:"Answer to an existing transaction_id: ${enum} (reject: refused; same: the existing transaction; second: a second transaction)." enum:"reject,same,second" env:"DUPLICATES" default:"reject"`
	ListVerb        string        `help:"HTTP method of list-transaction: ${enum}." enum:"GET,POST,any" env:"LIST_VERB" default:"GET"`
	ListOrder       string        `help:"Order of list-transaction by id: ${enum}." enum:"desc,asc,scrambled" env:"LIST_ORDER" default:"desc"`
	MaxLimit        int           `help:"Largest limit (rows of a page) of list-transaction." env:"MAX_LIMIT" default:"100"`
	IDStep          int           `help:"Largest difference between one id and the next." env:"ID_STEP" default:"3"`
	Envelope401     bool          `help:"Answer invalid tokens with the documented 401 envelope instead of Laravel's." env:"ENVELOPE_401"`
	Redirect        bool          `help:"Answer errors with a redirect to an HTML page if the request does not accept JSON." negatable:"" env:"REDIRECT" default:"true"`
	FreeQRIS        bool          `help:"Refuse QRIS payments with an admin_fee." env:"FREE_QRIS"`
	CallbackURL     string        `help:"URL of the callbacks, with its secret path; empty: none are sent." env:"CALLBACK_URL"`
	CallbackForm    bool          `help:"Encode callbacks as a form instead of JSON." env:"CALLBACK_FORM"`
	QRISSurcharge   int64         `help:"Rupiah by which the amount in the QR code exceeds transaction_total." env:"QRIS_SURCHARGE" default:"0"`
}

type paydiaSettings struct {
	ClientID           string        `help:"X-PARTNER-ID and X-CLIENT-KEY." env:"CLIENT_ID" default:"5171a7ed0c11e47000000000000000c1"`
	ClientSecret       string        `help:"Key of the symmetric signature." env:"CLIENT_SECRET" default:"simulated-paydia-secret"`
	MerchantID         string        `help:"The only valid merchantId." env:"MERCHANT_ID" default:"240327001000000"`
	PublicKeyFile      string        `help:"File with the worker's public key (PEM). Without it, a key pair is generated and the private key is printed." env:"PUBLIC_KEY_FILE" type:"path"`
	KeyDir             string        `help:"Directory for the generated private key: the next start uses the same key. Without it, every start generates a new one." env:"KEY_DIR" type:"path"`
	TokenLifetime      time.Duration `help:"Lifetime of a B2B token." env:"TOKEN_LIFETIME" default:"24h"`
	ExpiresIn          string        `help:"Type of expiresIn in the answer: ${enum}." enum:"text,number,absent" env:"EXPIRES_IN" default:"text"`
	CustomerTokens     []string      `help:"Accepted customer tokens; default: any." env:"CUSTOMER_TOKENS"`
	CustomerPrefix     string        `help:"Form of Authorization-Customer: ${enum} (raw: the token alone; bearer: 'Bearer ' and the token)." enum:"raw,bearer,either" env:"CUSTOMER_PREFIX" default:"raw"`
	IgnoreSignature    bool          `help:"Accept wrong signatures; they are counted as violations." env:"IGNORE_SIGNATURE"`
	TimestampWindow    time.Duration `help:"Largest accepted error of X-TIMESTAMP; 0: not checked." env:"TIMESTAMP_WINDOW" default:"5m"`
	IgnoreStaleness    bool          `help:"Accept timestamps outside the window; they are counted as violations." env:"IGNORE_STALENESS"`
	RequireReferenceNo bool          `help:"Require originalReferenceNo in Payment Query." env:"REQUIRE_REFERENCE_NO"`
	NotFoundAs07       bool          `help:"Answer queries for unknown payments with 2006400 and status 07 instead of 4046401." env:"NOT_FOUND_AS_07"`
	LowerCasePartner   bool          `help:"Write originalpartnerReferenceNo with a small p, as in ASPI's sample." env:"LOWER_CASE_PARTNER"`
	CallbackURL        string        `help:"URL of the notifications, with its secret path; empty: none are sent." env:"CALLBACK_URL"`
	CorrectPaidTime    bool          `help:"Write paidTime with +07:00 instead of the sample's -07:00." env:"CORRECT_PAID_TIME"`
}

// jsonText is a setting in JSON. With type string in a list, kong would split it at commas.
type jsonText string

const defaultCustomers = `[{"behaviour":"pays","after":"1s","up_to":"3s"}]`

// parse reads the flags. done is true after --help and --version.
func parse(args []string, out io.Writer) (s settings, done bool, err error) {
	parser, err := kong.New(&s,
		kong.Name("gatewaysim"),
		kong.Description("Both simulated gateways, AM Digital Payment and Paydia SNAP, as a server with faults to switch on.\n\n"+help()),
		kong.Writers(out, out),
		kong.Vars{"customers": defaultCustomers, "version": "gatewaysim " + version.String()},
		kong.Exit(func(int) { done = true }),
	)
	if err != nil {
		return s, false, fmt.Errorf("flags: %w", err)
	}
	if _, err := parser.Parse(args); err != nil && !done {
		return s, false, fmt.Errorf("%w: %w", errUsage, err)
	}
	return s, done, nil
}

func help() string {
	return `A fault rule applies a fault to some requests:
  {"fault":"lost-after","operation":"paydia.auth-payment","probability":0.1}
  {"fault":"slow","operation":"amdigipay","reference":"INV-1","count":1,"delay":"20s"}
count: the next count requests. Without probability and count: every request.

Faults (with the default delay); "processed" means that the payment exists at the gateway afterwards:
` + gatewaysim.FaultHelp() + `
Operations: ` + fmt.Sprint(gatewaysim.Operations()) + `

A customer rule sets what the customers do; the first rule that matches a payment applies:
  {"prefix":"LATE-","behaviour":"pays-late","after":"30s"}
  {"gateway":"amdigipay","share":0.1,"behaviour":"cancels","after":"5s"}
prefix: of the transaction id. Behaviours: ` + fmt.Sprint(gatewaysim.Behaviours()) + `

A refusal refuses payments for a business reason, by amount or by id:
  {"gateway":"paydia","min_amount":5000000,"code":"4036302"}
  {"gateway":"amdigipay","prefix":"REFUSE-","code":"Transaction refused"}

Callbacks are sent to --am-callback-url and --paydia-callback-url when the state of a payment changes.
--callback-faults: duplicate (each twice), reorder (after each, the former state again), forged (a wrong one
says of each new payment that it is paid), test (before each, the test of AM's dashboard).

While it runs:
  GET    /admin/summary, /admin/journal, /admin/violations, /admin/rows, /admin/faults, /admin/callbacks
  POST   /admin/faults              a fault rule
  DELETE /admin/faults              removes all fault rules
  POST   /admin/customers           {"gateway":"amdigipay","reference":"INV-1","behaviour":"pays"}
  POST   /admin/other-transactions  {"count":1000,"span":"24h","behaviour":"pays"}
  POST   /admin/list-motion         {"new_rows":1,"paid_rows":1,"requests":10}
  POST   /admin/callbacks           {"gateway":"amdigipay","reference":"INV-1","status":"3","amount":1}: sends this callback
  POST   /admin/spelling            {"gateway":"amdigipay","reference":"INV-1","fields":{"transaction_total":13000.0}}`
}

// config returns the configuration of the simulators.
func (s settings) config() (gatewaysim.Config, error) {
	c := gatewaysim.DefaultConfig()
	c.Seed = s.Seed
	c.Customers = nil
	for _, list := range []struct {
		flag string
		text jsonText
		into any
	}{{"faults", s.Faults, &c.Faults}, {"customers", s.Customers, &c.Customers}, {"refusals", s.Refusals, &c.Refusals}} {
		if err := gatewaysim.Decode([]byte(list.text), list.into); err != nil {
			return c, fmt.Errorf("--%s: %w", list.flag, err)
		}
	}
	if s.FaultRate < 0 || s.FaultRate > 1 {
		return c, fmt.Errorf("--fault-rate: %v is not between 0 and 1", s.FaultRate)
	}
	c.Faults = append(c.Faults, gatewaysim.EvenFaults(s.FaultRate)...)
	a, p := s.AM, s.Paydia
	c.Callbacks.AM, c.Callbacks.Paydia, c.Callbacks.Form = a.CallbackURL, p.CallbackURL, a.CallbackForm
	for _, fault := range s.CallbackFaults {
		c.Callbacks.Faults = append(c.Callbacks.Faults, gatewaysim.CallbackFault(fault))
	}
	if err := c.Check(); err != nil {
		return c, err
	}

	c.AM.Username, c.AM.Password, c.AM.TokenLifetime = a.Username, a.Password, a.TokenLifetime
	c.AM.SignatureScheme, c.AM.SignatureKey, c.AM.SignatureFields = a.SignatureScheme, a.SignatureKey, a.SignatureFields
	c.AM.IgnoreSignature = a.IgnoreSignature
	c.AM.Duplicates = gatewaysim.DuplicatePolicy(a.Duplicates)
	c.AM.ListVerb, c.AM.ListOrder = a.ListVerb, gatewaysim.ListOrder(a.ListOrder)
	c.AM.MaxLimit, c.AM.IDStep = a.MaxLimit, a.IDStep
	c.AM.EnvelopeUnauthorized, c.AM.RedirectWithoutAccept = a.Envelope401, a.Redirect
	c.AM.FreeQRIS, c.AM.QRISSurcharge = a.FreeQRIS, a.QRISSurcharge

	c.Paydia.ClientID, c.Paydia.ClientSecret, c.Paydia.MerchantID = p.ClientID, p.ClientSecret, p.MerchantID
	c.Paydia.TokenLifetime, c.Paydia.ExpiresIn = p.TokenLifetime, gatewaysim.ExpiresIn(p.ExpiresIn)
	c.Paydia.CustomerTokens, c.Paydia.CustomerPrefix = p.CustomerTokens, gatewaysim.CustomerPrefix(p.CustomerPrefix)
	c.Paydia.IgnoreSignature = p.IgnoreSignature
	c.Paydia.TimestampWindow, c.Paydia.IgnoreStaleness = p.TimestampWindow, p.IgnoreStaleness
	c.Paydia.RequireReferenceNo, c.Paydia.NotFoundAs07 = p.RequireReferenceNo, p.NotFoundAs07
	c.Paydia.LowerCasePartner, c.Paydia.CorrectPaidTime = p.LowerCasePartner, p.CorrectPaidTime
	return c, nil
}

// loadPrivateKey returns the private key in dir (PEM) and its file. If there is none, it
// generates one.
func loadPrivateKey(dir string) (file string, key []byte, err error) {
	file = filepath.Join(dir, "paydia-private-key.pem")
	key, der, err := readPEM(file)
	if err == nil {
		if _, err := x509.ParsePKCS8PrivateKey(der); err != nil {
			return "", nil, fmt.Errorf("%w: %s is not a private key in PKCS#8", errUsage, file)
		}
		return file, key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", nil, err
	}
	if key, _, err = gatewaysim.NewKeyPair(); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("create --paydia-key-dir: %w", err)
	}
	if err := os.WriteFile(file, key, 0o600); err != nil {
		return "", nil, fmt.Errorf("write the private key: %w", err)
	}
	return file, key, nil
}

func readPublicKey(file string) (*rsa.PublicKey, error) {
	_, der, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if public, ok := key.(*rsa.PublicKey); err == nil && ok {
		return public, nil
	}
	return nil, fmt.Errorf("%w: %s is not an RSA public key", errUsage, file)
}

func readPEM(file string) (text, der []byte, err error) {
	if text, err = os.ReadFile(file); err != nil { //nolint:gosec // the operator chose the file
		return nil, nil, fmt.Errorf("read a key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, nil, fmt.Errorf("%w: %s is not PEM", errUsage, file)
	}
	return text, block.Bytes, nil
}
