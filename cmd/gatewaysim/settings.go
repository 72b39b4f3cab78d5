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

// settings are the flags, each with an environment variable. Their defaults are
// those of gatewaysim.DefaultConfig; a test holds the two together.
type settings struct {
	Addr      string   `help:"Address to listen on." env:"GATEWAYSIM_ADDR" default:"127.0.0.1:8090"`
	Seed      uint64   `help:"Seed of every draw of chance." env:"GATEWAYSIM_SEED" default:"1"`
	Faults    jsonText `help:"Fault rules from the start, as a JSON list; see above." env:"GATEWAYSIM_FAULTS" default:"[]"`
	FaultRate float64  `help:"Share of all requests that meet a fault, every kind alike." env:"GATEWAYSIM_FAULT_RATE" default:"0"`
	Customers jsonText `help:"Who pays, as a JSON list of rules; see above." env:"GATEWAYSIM_CUSTOMERS" default:"${customers}"`
	Refusals  jsonText `help:"Business refusals, as a JSON list; see above." env:"GATEWAYSIM_REFUSALS" default:"[]"`

	History      int `help:"Paid rows of strangers that AM has from the start." env:"GATEWAYSIM_HISTORY" default:"0"`
	ListNewRows  int `help:"Strangers' rows that appear after every page of AM's list." env:"GATEWAYSIM_LIST_NEW_ROWS" default:"0"`
	ListPaidRows int `help:"Strangers' open rows that become paid after every page of AM's list." env:"GATEWAYSIM_LIST_PAID_ROWS" default:"0"`

	Version kong.VersionFlag `help:"Print the version."`

	AM     amSettings     `embed:"" prefix:"am-" envprefix:"GATEWAYSIM_AM_" group:"AM Digital Payment"`
	Paydia paydiaSettings `embed:"" prefix:"paydia-" envprefix:"GATEWAYSIM_PAYDIA_" group:"Paydia SNAP"`
}

type amSettings struct {
	Username        string        `help:"Login." env:"USERNAME" default:"SIMULATED1"`
	Password        string        `help:"Login." env:"PASSWORD" default:"simulated-am-password"`
	TokenLifetime   time.Duration `help:"Life of an access token." env:"TOKEN_LIFETIME" default:"1h"`
	SignatureScheme string        `help:"${enum}." enum:"sha256-username-transaction-id,hmac-sha256" env:"SIGNATURE_SCHEME" default:"sha256-username-transaction-id"`
	SignatureKey    string        `help:"Key of hmac-sha256." env:"SIGNATURE_KEY"`
	SignatureFields []string      `help:"Fields of hmac-sha256, in order." env:"SIGNATURE_FIELDS" default:"username,transaction_id"`
	IgnoreSignature bool          `help:"Let wrong signatures pass." env:"IGNORE_SIGNATURE"`
	Duplicates      string        `help:"What a transaction_id that exists meets: ${enum}." enum:"reject,same,second" env:"DUPLICATES" default:"reject"`
	ListVerb        string        `help:"Verb of list-transaction: ${enum}." enum:"GET,POST,any" env:"LIST_VERB" default:"GET"`
	ListOrder       string        `help:"Order of list-transaction by id: ${enum}." enum:"desc,asc,scrambled" env:"LIST_ORDER" default:"desc"`
	MaxLimit        int           `help:"Largest page of list-transaction." env:"MAX_LIMIT" default:"100"`
	IDStep          int           `help:"Largest distance between one id and the next." env:"ID_STEP" default:"3"`
	Envelope401     bool          `help:"Answer bad tokens with the documented envelope instead of Laravel's." env:"ENVELOPE_401"`
	Redirect        bool          `help:"Redirect errors of callers who do not accept JSON." negatable:"" env:"REDIRECT" default:"true"`
	FreeQRIS        bool          `help:"Refuse an admin_fee for QRIS." env:"FREE_QRIS"`
	QRISSurcharge   int64         `help:"Rupiah that the QR code asks for beyond transaction_total." env:"QRIS_SURCHARGE" default:"0"`
}

type paydiaSettings struct {
	ClientID           string        `help:"X-PARTNER-ID and X-CLIENT-KEY." env:"CLIENT_ID" default:"5171a7ed0c11e47000000000000000c1"`
	ClientSecret       string        `help:"Key of the symmetric signature." env:"CLIENT_SECRET" default:"simulated-paydia-secret"`
	MerchantID         string        `help:"The merchantId that exists." env:"MERCHANT_ID" default:"240327001000000"`
	PublicKeyFile      string        `help:"PEM of the caller's public key; without it a key pair is made." env:"PUBLIC_KEY_FILE" type:"path"`
	KeyDir             string        `help:"Where the made private key is kept, and found again; default: a new temporary directory." env:"KEY_DIR" type:"path"`
	TokenLifetime      time.Duration `help:"Life of a B2B token." env:"TOKEN_LIFETIME" default:"24h"`
	ExpiresIn          string        `help:"Form of expiresIn: ${enum}." enum:"text,number,absent" env:"EXPIRES_IN" default:"text"`
	CustomerTokens     []string      `help:"Customer tokens that work; default: any." env:"CUSTOMER_TOKENS"`
	CustomerPrefix     string        `help:"Form of Authorization-Customer: ${enum}." enum:"raw,bearer,either" env:"CUSTOMER_PREFIX" default:"raw"`
	IgnoreSignature    bool          `help:"Let wrong signatures pass." env:"IGNORE_SIGNATURE"`
	TimestampWindow    time.Duration `help:"How far X-TIMESTAMP may be off; 0: not looked at." env:"TIMESTAMP_WINDOW" default:"5m"`
	IgnoreStaleness    bool          `help:"Let timestamps outside the window pass." env:"IGNORE_STALENESS"`
	RequireReferenceNo bool          `help:"Demand originalReferenceNo in Payment Query." env:"REQUIRE_REFERENCE_NO"`
	NotFoundAs07       bool          `help:"Answer queries for unknown payments 2006400 with status 07." env:"NOT_FOUND_AS_07"`
	LowerCasePartner   bool          `help:"Spell originalpartnerReferenceNo as ASPI's sample does." env:"LOWER_CASE_PARTNER"`
	CorrectPaidTime    bool          `help:"Write paidTime with +07:00 instead of the sample's -07:00." env:"CORRECT_PAID_TIME"`
}

// jsonText is a setting in JSON; it is a type of its own so that kong does not
// split it at commas.
type jsonText string

const defaultCustomers = `[{"behaviour":"pays","after":"1s","up_to":"3s"}]`

// parse reads the flags. It is done when only help or the version was asked for.
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
	return `Faults, in rules such as
  {"fault":"lost-after","operation":"paydia.auth-payment","probability":0.1}
  {"fault":"slow","operation":"amdigipay","reference":"INV-1","count":1,"delay":"20s"}
(count: the next so many requests; without probability and count: all):

` + gatewaysim.FaultHelp() + `
Operations: ` + fmt.Sprint(gatewaysim.Operations()) + `

Customers, in rules of which the first that applies wins, such as
  {"prefix":"LATE-","behaviour":"pays-late","after":"30s"}
  {"gateway":"amdigipay","share":0.1,"behaviour":"cancels","after":"5s"}
Behaviours: ` + fmt.Sprint(gatewaysim.Behaviours()) + `

Refusals, in rules such as
  {"gateway":"paydia","min_amount":5000000,"code":"4036302"}
  {"gateway":"amdigipay","prefix":"REFUSE-","code":"Transaction refused"}

Admin: GET /admin/summary, journal, violations, rows, faults; POST a rule to
/admin/faults, DELETE /admin/faults; POST {"gateway","reference","behaviour",...}
to /admin/customers, {"count","span","behaviour"} to /admin/strangers,
{"new_rows","paid_rows","requests"} to /admin/list-motion,
{"gateway","reference","fields":{"transaction_total":13000.0}} to /admin/spelling.`
}

// config turns the flags into the simulators' configuration.
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
	if err := c.Check(); err != nil {
		return c, err
	}

	a, p := s.AM, s.Paydia
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

// key is the public key that Paydia checks with, and the file of its private
// half; the file is empty where the caller gave the public key.
func (s settings) key() (*rsa.PublicKey, string, error) {
	if s.Paydia.PublicKeyFile != "" {
		public, err := readPublicKey(s.Paydia.PublicKeyFile)
		return public, "", err
	}
	dir := s.Paydia.KeyDir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "gatewaysim-"); err != nil {
			return nil, "", fmt.Errorf("make a directory for the key: %w", err)
		}
	}
	file := filepath.Join(dir, "paydia-private-key.pem")
	public, err := readPrivateKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return public, file, err
	}
	private, public, err := gatewaysim.NewKeyPair()
	if err != nil {
		return nil, "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("make --paydia-key-dir: %w", err)
	}
	if err := os.WriteFile(file, private, 0o600); err != nil {
		return nil, "", fmt.Errorf("write the private key: %w", err)
	}
	return public, file, nil
}

func readPublicKey(file string) (*rsa.PublicKey, error) {
	der, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if public, ok := key.(*rsa.PublicKey); err == nil && ok {
		return public, nil
	}
	return nil, fmt.Errorf("%w: %s is not an RSA public key", errUsage, file)
}

// readPrivateKey finds the key that an earlier run made.
func readPrivateKey(file string) (*rsa.PublicKey, error) {
	der, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if private, ok := key.(*rsa.PrivateKey); err == nil && ok {
		return &private.PublicKey, nil
	}
	return nil, fmt.Errorf("%w: %s is not an RSA private key in PKCS#8", errUsage, file)
}

func readPEM(file string) ([]byte, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the file is the operator's choice
	if err != nil {
		return nil, fmt.Errorf("read a key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%w: %s is not PEM", errUsage, file)
	}
	return block.Bytes, nil
}
