package gatewaysim

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clock is a clock that only the test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

var privatePEM, publicKey, _ = NewKeyPair()

// caller is a correct client over a real socket; a test changes single parts of its requests.
type caller struct {
	*testing.T

	sim       *Sim
	clock     *clock
	url       string
	amToken   string
	b2bToken  string
	messageID int
}

func newCaller(t *testing.T, change ...func(*Config)) *caller {
	t.Helper()
	config := DefaultConfig()
	config.Paydia.PublicKey = publicKey
	for _, f := range change {
		f(&config)
	}
	c := &clock{t: time.Date(2026, 5, 20, 10, 0, 0, 0, jakarta)}
	sim := New(config, c.now)
	server := httptest.NewServer(sim.Handler())
	t.Cleanup(server.Close)
	return &caller{T: t, sim: sim, clock: c, url: server.URL}
}

// reply is an answer that the caller received; err is set if the connection was closed early.
type reply struct {
	status int
	header http.Header
	text   string
	body   map[string]any
	err    error
}

// at returns a value of the body, e.g. "data.status_id".
func (r reply) at(path string) any {
	var v any = r.body
	for _, name := range strings.Split(path, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func (c *caller) do(method, path, body string, header map[string]string) reply {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	for name, value := range header {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	r := reply{status: resp.StatusCode, header: resp.Header, text: string(text), err: err}
	_ = json.Unmarshal(text, &r.body) // an HTML page leaves it nil
	return r
}

var jsonHeader = map[string]string{"Content-Type": "application/json", "Accept": "application/json"}

func with(header map[string]string, more ...string) map[string]string {
	h := map[string]string{}
	for k, v := range header {
		h[k] = v
	}
	for i := 0; i < len(more); i += 2 {
		h[more[i]] = more[i+1] //nolint:gosec // pairs
	}
	return h
}

func (c *caller) login() {
	c.Helper()
	r := c.do("POST", "/api/login", `{"username":"SIMULATED1","password":"simulated-am-password"}`, jsonHeader)
	token, ok := r.at("data.access_token").(string)
	if !ok {
		c.Fatalf("login: %d %s", r.status, r.text)
	}
	c.amToken = token
}

// order returns a create-transaction body; edits replace fields, or remove them (nil).
func order(id string, edits map[string]any) string {
	m := map[string]any{
		"payment_id": 33, "username": "SIMULATED1", "signature": sha256Signature("SIMULATED1", id),
		"expired_date": "2026-05-21 10:00:00", "nominal": 10000, "admin_fee": 3000, "transaction_id": id,
		"transaction_total": 13000, "transaction_name": "testing", "transaction_desc": "testing",
		"customer_number": "085925065195", "customer_name": "testing",
		"item_details": []any{
			map[string]any{"item_id": "testing", "item_price": 10000, "item_total_price": 10000, "item_quantity": 1, "item_name": "testing"},
			map[string]any{"item_id": "fee", "item_price": 3000, "item_total_price": 3000, "item_quantity": 1, "item_name": "fee"},
		},
	}
	for k, v := range edits {
		if v == nil {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (c *caller) create(id string, edits map[string]any) reply {
	c.Helper()
	if c.amToken == "" {
		c.login()
	}
	return c.do("POST", "/api/payment/transaction", order(id, edits), with(jsonHeader, "Authorization", "Bearer "+c.amToken))
}

func (c *caller) list(query string) reply {
	c.Helper()
	if c.amToken == "" {
		c.login()
	}
	return c.do("GET", "/api/payment/list-transaction"+query, "", with(jsonHeader, "Authorization", "Bearer "+c.amToken))
}

// statuses returns "transaction_id status_id" of each row of the list.
func (c *caller) statuses(query string) []string {
	c.Helper()
	rows, ok := c.list(query).at("data").([]any)
	if !ok {
		c.Fatal("list has no data")
	}
	all := []string{}
	for _, row := range rows {
		m := row.(map[string]any)
		all = append(all, fmt.Sprintf("%v %v", m["transaction_id"], m["status_id"]))
	}
	return all
}

func (c *caller) timestamp() string { return c.clock.now().In(jakarta).Format(time.RFC3339) }

func (c *caller) b2b(edits ...string) reply {
	c.Helper()
	block, _ := pem.Decode(privatePEM)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		c.Fatal(err)
	}
	client := c.sim.config.Paydia.ClientID
	sum := sha256.Sum256([]byte(client + "|" + c.timestamp()))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key.(*rsa.PrivateKey), crypto.SHA256, sum[:])
	if err != nil {
		c.Fatal(err)
	}
	header := with(jsonHeader, "X-TIMESTAMP", c.timestamp(), "X-CLIENT-KEY", client,
		"X-SIGNATURE", base64.StdEncoding.EncodeToString(signature))
	return c.do("POST", "/snap/v1.0/access-token/b2b", `{"grantType":"client_credentials"}`, with(header, edits...))
}

// snap sends a signed payment or query; edits replace headers after signing.
func (c *caller) snap(path, body string, edits ...string) reply {
	c.Helper()
	if c.b2bToken == "" {
		r := c.b2b()
		c.b2bToken, _ = r.at("accessToken").(string)
		if c.b2bToken == "" {
			c.Fatalf("access-token: %d %s", r.status, r.text)
		}
	}
	c.messageID++
	p := c.sim.config.Paydia
	header := with(jsonHeader,
		"Authorization", "Bearer "+c.b2bToken, "Authorization-Customer", "customer", "X-TIMESTAMP", c.timestamp(),
		"X-PARTNER-ID", p.ClientID, "X-EXTERNAL-ID", fmt.Sprint(c.messageID), "CHANNEL-ID", "12345",
		"X-SIGNATURE", symmetricSignature(p.ClientSecret, "POST", path, c.b2bToken, []byte(body), c.timestamp()))
	return c.do("POST", path, body, with(header, edits...))
}

func authBody(reference string) string {
	return fmt.Sprintf(`{"partnerReferenceNo":%q,"merchantId":"240327001000000","amount":{"value":"10000.00","currency":"IDR"},"title":"a/b & <c> é"}`, reference)
}

func (c *caller) pay(reference string, edits ...string) reply {
	c.Helper()
	return c.snap("/snap/v1.0/auth/payment", authBody(reference), edits...)
}

func (c *caller) query(reference string) reply {
	c.Helper()
	return c.snap("/snap/v1.0/auth/query",
		fmt.Sprintf(`{"originalPartnerReferenceNo":%q,"merchantId":"240327001000000"}`, reference))
}

// wantViolations compares the texts of all violations so far.
func (c *caller) wantViolations(want ...string) {
	c.Helper()
	got := []string{}
	for _, v := range c.sim.Violations() {
		got = append(got, v.What)
	}
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		c.Errorf("violations (-want +got):\n%s", diff)
	}
}

func (c *caller) wantRows(gateway Gateway, reference string, want int) {
	c.Helper()
	if got := len(c.sim.RowsOf(gateway, reference)); got != want {
		c.Errorf("%s:%s exists %d times, want %d", gateway, reference, got, want)
	}
}

func TestDefaultConfigIsValid(t *testing.T) {
	if err := DefaultConfig().Check(); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownPathIsAViolation(t *testing.T) {
	c := newCaller(t)
	if r := c.do("GET", "/api/payment/list", "", jsonHeader); r.status != http.StatusNotFound {
		t.Errorf("status %d, want 404", r.status)
	}
	c.wantViolations("no such path: GET /api/payment/list")
}

func TestSameSeedSameRun(t *testing.T) {
	run := func(seed uint64) string {
		c := newCaller(t, func(config *Config) {
			config.Seed = seed
			config.Faults = []FaultRule{{Fault: Fault500Before, Operation: AMCreate, Probability: 0.5}}
			config.Customers = []CustomerRule{{Share: 0.5, Customer: Customer{Behaviour: Cancels}}}
		})
		var b bytes.Buffer
		for i := range 20 {
			fmt.Fprint(&b, c.create(fmt.Sprintf("T-%d", i), nil).status, " ")
		}
		fmt.Fprint(&b, c.statuses("?limit=100"))
		return b.String()
	}
	if first, second := run(7), run(7); first != second {
		t.Errorf("seed 7:\n%s\nagain:\n%s", first, second)
	}
	if run(7) == run(8) {
		t.Error("seeds 7 and 8: the same run")
	}
}

// TestConcurrentCallers: with concurrent requests for the same payments each exists once.
func TestConcurrentCallers(t *testing.T) {
	c := newCaller(t)
	c.login()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			c.create(fmt.Sprint("T-", i%10), nil)
			c.sim.Rows()
			c.sim.Summary()
		})
	}
	wg.Wait()
	if rows := c.sim.Rows(); len(rows) != 10 {
		t.Errorf("%d rows, want 10", len(rows))
	}
	c.wantViolations()
}

func TestChanceDoesNotDependOnTheOrderOfRequests(t *testing.T) {
	rule := FaultRule{Fault: FaultLostAfter, Operation: PaydiaPayment, Probability: 0.5}
	matched := func(references ...string) map[string]bool {
		s := New(Config{Seed: 3, Faults: []FaultRule{rule}}, time.Now)
		m := map[string]bool{}
		for _, ref := range references {
			m[ref] = s.pickFault(PaydiaPayment, ref) != nil
		}
		return m
	}
	forward, backward := matched("a", "b", "c", "d", "e", "f", "g"), matched("g", "f", "e", "d", "c", "b", "a")
	if diff := cmp.Diff(forward, backward); diff != "" {
		t.Error(diff)
	}
}
