package examples_test

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv/programs"
	"terbayar/internal/testenv/verify"
)

// webhookKey is the secret of the webhooks, without whsec_ and base64.
const webhookKey = "0123456789abcdef0123456789abcdef"

// shop is an environment with "enqueue serve" and an order system.
type shop struct {
	*programs.Env

	redis *redistest.Process
	api   string // URL of enqueue serve
	key   string
	argv  [][]string   // of the programs of the order system; the first one is its HTTP server
	edits []string     // environment of the order system
	url   atomic.Value // of the order system

	running []*programs.Process
	all     []*programs.Process // with those that were killed

	// deliver answers a webhook: kind is the status of its event, forward sends it to the order
	// system and returns the HTTP status. nil: the order system cannot be reached.
	deliver atomic.Pointer[func(kind string, forward func() int) int]
}

// newShop starts a Redis, "enqueue serve" and, if wanted, a worker. The worker sends webhooks
// through a proxy, which tests use to lose answers.
func newShop(t *testing.T, worker bool) *shop {
	t.Helper()
	s := &shop{redis: redistest.Server(t)}
	s.Env = programs.New(t, s.redis.URL(), programs.Options{})
	s.listen()
	r := s.Run("enqueue", []string{"keys", "new", "shop"}, "")
	key, line, _ := strings.Cut(strings.TrimSpace(r.Stdout), "\n")
	if r.Code != 0 || line == "" {
		t.Fatalf("enqueue keys new: %+v", r)
	}
	s.key = key
	serve := s.Start("enqueue", []string{"serve"}, "SERVE_HTTP_ADDR=127.0.0.1:0", "API_KEYS="+line, "SERVE_SHUTDOWN_DELAY=1ms")
	listens := regexp.MustCompile(`"addr":"([^"]+)"`)
	s.Eventually("the API is ready", func() bool {
		if m := listens.FindStringSubmatch(serve.Stderr.String()); m != nil {
			s.api = "http://" + m[1]
		}
		return s.api != "" && s.Status(s.api+"/readyz") == http.StatusOK
	})
	if worker {
		s.Worker()
	}
	return s
}

// listen starts the proxy that receives the worker's webhooks.
func (s *shop) listen() {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		deliver := s.deliver.Load()
		var event struct{ Type string }
		if err != nil || deliver == nil || json.Unmarshal(body, &event) != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader((*deliver)(strings.TrimPrefix(event.Type, "terbayar.payment."), func() int {
			return cmp.Or(s.post("/webhooks/terbayar", body, r.Header.Clone()).status, http.StatusBadGateway)
		}))
	}))
	s.Cleanup(proxy.Close)
	s.Settings["WEBHOOK_URL"] = proxy.URL
	s.Settings["WEBHOOK_SECRET"] = "whsec_" + base64.StdEncoding.EncodeToString([]byte(webhookKey))
	s.Settings["WEBHOOK_ALLOW"] = "127.0.0.1"
	s.Settings["WEBHOOK_SCHEDULE"] = strings.Repeat("200ms,", 48) + "1s"
}

// start starts the order system and waits until it answers.
func (s *shop) start() {
	s.Helper()
	s.running = nil
	for _, argv := range s.argv {
		s.running = append(s.running, s.Start(argv[0], argv[1:], s.edits...))
	}
	s.all = append(s.all, s.running...)
	listens := regexp.MustCompile(`http://127\.0\.0\.1:[1-9]\d*`)
	s.Eventually("the order system is ready", func() bool {
		for _, p := range s.running {
			if p.HasEnded() {
				s.Fatalf("%s ended: %s", p.Name, p.Stderr.Tail())
			}
		}
		url := listens.FindString(s.running[0].Stdout.String() + s.running[0].Stderr.String())
		s.url.Store(url)
		return url != "" && s.Status(url+"/orders/none") == http.StatusNotFound
	})
}

func (s *shop) kill() {
	for _, p := range s.running {
		p.Kill()
	}
}

// reply is an answer of the order system or the API.
type reply struct {
	status int // 0: none
	header http.Header
	body   []byte
}

func (s *shop) post(path string, body []byte, header http.Header) reply {
	return s.send(http.MethodPost, s.url.Load().(string)+path, body, header)
}

func (s *shop) send(method, url string, body []byte, header http.Header) reply {
	r, err := http.NewRequestWithContext(s.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		return reply{}
	}
	if header != nil {
		r.Header = header
	}
	client := http.Client{Timeout: 40 * time.Second}
	res, err := client.Do(r)
	if err != nil {
		return reply{}
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return reply{}
	}
	return reply{res.StatusCode, res.Header, answer}
}

// order is what the order system shows of an order.
type order struct {
	ID, Sent, Status string
	History          []string
	QRCode           string `json:"qr_code"`
}

const newOrder = `{"gateway":"amdigipay","title":"Kopi","customer":{"name":"Siti","number":"085925065195"},
	"items":[{"id":"kopi","name":"Kopi & roti","price":5000,"quantity":2}],"fee":3000}`

// create creates an order.
func (s *shop) create() (o order) {
	s.Helper()
	r := s.post("/orders", []byte(newOrder), http.Header{"Content-Type": {"application/json"}})
	if err := json.Unmarshal(r.body, &o); err != nil || r.status != http.StatusCreated || o.ID == "" {
		s.Fatalf("create an order: %d %s", r.status, r.body)
	}
	return o
}

func (s *shop) read(id string) (o order) {
	r := s.send(http.MethodGet, s.url.Load().(string)+"/orders/"+id, nil, nil)
	_ = json.Unmarshal(r.body, &o) // there may be no answer
	return o
}

// awaitPaid waits until the order system knows that an order is paid, and has delivered it.
func (s *shop) awaitPaid(id string) {
	s.Helper()
	s.Eventually(id+" is paid", func() bool { return s.read(id).Status == "paid" })
	s.Eventually(id+" is delivered", func() bool { return s.delivered(id) > 0 })
}

// delivered returns how often an order was delivered to the customer.
func (s *shop) delivered(id string) (n int) {
	for _, p := range s.all {
		n += strings.Count(p.Stdout.String(), "deliver "+id+" 13000\n")
	}
	return n
}

// TestOrderSystem runs the order systems through what happens in production: answers of the
// receiver that are lost, its crash, an outage of Redis, forged webhooks.
func TestOrderSystem(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Redis servers, workers and order systems; scripts/test --all runs it")
	}
	t.Run("node", func(t *testing.T) {
		t.Parallel()
		testOrderSystem(t, newNodeShop)
	})
	t.Run("php", func(t *testing.T) {
		t.Parallel()
		testOrderSystem(t, newPHPShop)
	})
}

func newNodeShop(t *testing.T) *shop {
	dir := npmInstall(t, "order-system-node")
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	s := newShop(t, true)
	s.argv = [][]string{{node, filepath.Join(dir, "server.js")}}
	s.edits = []string{"PORT=0", "STATE_DIR=" + t.TempDir()}
	return s
}

func newPHPShop(t *testing.T) *shop {
	php, err := exec.LookPath("php")
	if err == nil {
		err = exec.Command(php, "-r", `exit(extension_loaded("curl") && extension_loaded("pdo_sqlite") ? 0 : 1);`).Run()
	}
	if err != nil {
		why := "examples/order-system-php is not tested: PHP with curl and pdo_sqlite is not installed (apt-get install php-cli php-curl php-sqlite3)"
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	dir, err := filepath.Abs("order-system-php")
	if err != nil {
		t.Fatal(err)
	}
	s := newShop(t, true)
	s.argv = [][]string{
		{php, "-S", "127.0.0.1:0", filepath.Join(dir, "public", "index.php")},
		{php, filepath.Join(dir, "bin", "work.php")},
	}
	s.edits = []string{"DATABASE=" + filepath.Join(t.TempDir(), "orders.sqlite")}
	return s
}

func testOrderSystem(t *testing.T, newShop func(*testing.T) *shop) {
	s := newShop(t)
	s.edits = append(s.edits, "TERBAYAR_URL="+s.api, "TERBAYAR_KEY="+s.key)
	s.start()

	// The order system's answer to each event is lost: the worker delivers it again.
	var mu sync.Mutex
	lost := map[string]bool{}
	s.deliverWith(func(kind string, forward func() int) int {
		status := forward()
		mu.Lock()
		defer mu.Unlock()
		if status == http.StatusNoContent && !lost[kind] {
			lost[kind] = true
			return http.StatusBadGateway
		}
		return status
	})
	first := s.create()
	if first.Sent != "yes" || first.QRCode == "" {
		t.Errorf("the checkout has no QR code: %+v", first)
	}
	s.awaitPaid(first.ID)

	// The order system is killed when it has stored the event and not answered it.
	killed := make(chan struct{})
	var once sync.Once
	s.deliverWith(func(kind string, forward func() int) int {
		status := forward()
		if kind == "paid" && status == http.StatusNoContent {
			once.Do(func() {
				s.deliver.Store(nil)
				s.kill()
				close(killed)
				status = http.StatusBadGateway
			})
		}
		return status
	})
	second := s.create()
	<-killed
	s.start()
	s.deliverWith(func(_ string, forward func() int) int { return forward() })
	s.awaitPaid(second.ID)

	// Redis is down: the order is stored and sent later. The API's own answer is 503, and the
	// identical payment is accepted afterwards.
	s.redis.Kill()
	third := s.create()
	if third.Sent != "no" {
		t.Errorf("Redis is down, and the order is %+v", third)
	}
	body := []byte(`{"gateway":"paydia","customer_token":"eyJ","payment":{"partnerReferenceNo":"ORD-1","amount":{"value":"13000.00","currency":"IDR"},"title":"Kopi"}}`)
	submit := func() reply {
		return s.send(http.MethodPost, s.api+"/v1/payments", body, http.Header{"Authorization": {"Bearer " + s.key}})
	}
	if r := submit(); r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("Redis is down: %d %v %s", r.status, r.header, r.body)
	}
	s.redis.Start(t)
	s.Eventually("the identical payment is accepted", func() bool {
		status := submit().status
		return status == http.StatusAccepted || status == http.StatusOK
	})
	s.awaitPaid(third.ID)

	s.refuseForged(second.ID)

	// Every event had its effect once, and no customer paid twice.
	payments := []verify.Payment{{Key: payment.Key{Gateway: payment.Paydia, TransactionID: "ORD-1"}, Amount: 13000, Ends: payment.Paid, Acknowledged: true}}
	for _, o := range []order{first, second, third} {
		if got := s.read(o.ID).History; !slices.Equal(got, []string{"on_processing", "paid"}) {
			t.Errorf("history of %s: %q", o.ID, got)
		}
		if n := s.delivered(o.ID); n != 1 {
			t.Errorf("%s was delivered %d times", o.ID, n)
		}
		payments = append(payments, verify.Payment{
			Key: payment.Key{Gateway: payment.AMDigiPay, TransactionID: o.ID}, Amount: 13000, Ends: payment.Paid, Acknowledged: true,
		})
	}
	if n := s.AwaitEnd(payments, programs.Timeout); n > 0 {
		t.Errorf("%d payments have not ended", n)
	}
	run := s.Collect(payments, nil)
	run.SentOnce = true
	s.RequireClean(run.Verify())
}

func (s *shop) deliverWith(f func(kind string, forward func() int) int) { s.deliver.Store(&f) }

// refuseForged sends webhooks that must be refused, and one that must be accepted.
func (s *shop) refuseForged(id string) {
	s.Helper()
	body := fmt.Appendf(nil, `{"specversion":"1.0","id":"amdigipay:%[1]s:9:refunded","source":"terbayar/amdigipay","type":"terbayar.payment.refunded","subject":"%[1]s","time":"2030-01-01T00:00:00Z","data":{"amount":13000}}`, id)
	now := time.Now()
	for _, c := range []struct {
		name      string
		at        time.Time
		signature string
		want      int
	}{
		{"no signature", now, "", http.StatusUnauthorized},
		{"wrong key", now, sign("another key, 32 bytes long......", now, body), http.StatusUnauthorized},
		{"other body", now, sign(webhookKey, now, append(body, ' ')), http.StatusUnauthorized},
		{"other version", now, "v2" + sign(webhookKey, now, body)[2:], http.StatusUnauthorized},
		{"old", now.Add(-10 * time.Minute), sign(webhookKey, now.Add(-10*time.Minute), body), http.StatusUnauthorized},
		{"early", now.Add(10 * time.Minute), sign(webhookKey, now.Add(10*time.Minute), body), http.StatusUnauthorized},
		{"signed by two secrets", now, sign("another key, 32 bytes long......", now, body) + " " + sign(webhookKey, now, body), http.StatusNoContent},
	} {
		header := http.Header{
			"Content-Type": {"application/cloudevents+json"}, "Webhook-Id": {"evt_1"},
			"Webhook-Timestamp": {strconv.FormatInt(c.at.Unix(), 10)},
		}
		if c.signature != "" {
			header.Set("Webhook-Signature", c.signature)
		}
		if r := s.post("/webhooks/terbayar", body, header); r.status != c.want {
			s.Errorf("%s: %d %s, want %d", c.name, r.status, r.body, c.want)
		}
	}
}

// sign signs a webhook with the id evt_1 as Standard Webhooks specifies.
func sign(key string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "evt_1.%d.%s", at.Unix(), body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// TestClientTypeScript generates the client from the document of a running server, compares it
// with the one in the repository, and drives the server with it.
func TestClientTypeScript(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Redis server, a worker and npm; scripts/test --all runs it")
	}
	t.Parallel()
	dir := npmInstall(t, "client-typescript")
	s := newShop(t, false)
	npm := func(argv ...string) {
		t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "OPENAPI="+s.api+"/openapi.json", "TERBAYAR_URL="+s.api, "TERBAYAR_KEY="+s.key)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	npm("npm", "run", "generate")
	generated, err := os.ReadFile(filepath.Join(dir, "src", "terbayar.d.ts"))
	if err != nil {
		t.Fatal(err)
	}
	if committed, err := os.ReadFile("client-typescript/src/terbayar.d.ts"); err != nil || !bytes.Equal(generated, committed) {
		t.Errorf("client-typescript/src/terbayar.d.ts is not that of openapi.json (%v): run \"npm run generate\" there", err)
	}
	npm("npm", "run", "build")
	npm("node", "dist/cancel.js")
	s.Worker()
	npm("npm", "test")
}

// npmInstall copies an example to a temporary directory and installs its dependencies. Without
// Node.js it skips the test; in CI it fails the test.
func npmInstall(t *testing.T, name string) string {
	t.Helper()
	if why := missingNode(); why != "" {
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip("examples/" + name + " is not tested: " + why)
	}
	dir := filepath.Join(t.TempDir(), name)
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	npm.Dir = dir
	for _, cmd := range []*exec.Cmd{exec.Command("cp", "-r", name, dir), exec.Command("rm", "-rf", filepath.Join(dir, "node_modules"), filepath.Join(dir, "dist")), npm} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	return dir
}
