package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"terbayar/internal/testenv"
)

const (
	username = "BENCH"
	password = "x"
)

// arrivals says which payments the gateway has received.
type arrivals struct {
	N           int
	First, Last time.Time
}

// gateway is "bench gateway": AM, simulated as cheaply as possible. It accepts every payment,
// after a given latency, and checks nothing.
type gateway struct {
	latency time.Duration

	mu       sync.Mutex
	arrivals arrivals
	changed  *sync.Cond // signalled at the arrival that wanted counts
	wanted   int
}

func gatewayMain(args []string) error {
	flags := flag.NewFlagSet("gateway", flag.ExitOnError)
	g := &gateway{}
	g.changed = sync.NewCond(&g.mu)
	flags.DurationVar(&g.latency, "latency", 0, "how long a payment takes")
	_ = flags.Parse(args) // it exits
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"error":false,"message":"Login success","data":{"access_token":"t","token_type":"bearer","expires_in":3600}}`)
	})
	mux.HandleFunc("POST /payment/transaction", g.create)
	mux.HandleFunc("GET /arrivals", g.await)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: timeout}
	go func() { _ = server.Serve(listener) }()
	return serve("http://" + listener.Addr().String())
}

func (g *gateway) create(w http.ResponseWriter, r *http.Request) {
	n := g.arrived()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	time.Sleep(g.latency)
	_, rest, _ := bytes.Cut(body, []byte(`"transaction_id":"`))
	id, _, _ := bytes.Cut(rest, []byte(`"`))
	_, _ = fmt.Fprintf(w, `{"error":false,"message":"success","data":{"id":%d,"payment_id":33,"payment_name":"QRIS","status_id":2,`+
		`"status":"On processing","transaction_id":"%s","transaction_total":"13000","payment_links":null,"payment_code":null,`+
		`"qr_code":"00020101021226670016COM.NOBUBANK.WWW01189360050300000842770214080500006791870303UKE51440014ID.CO.QRIS.WWW0215ID2021084466451"}}`,
		n, id)
}

func (g *gateway) arrived() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.arrivals.N++
	g.arrivals.Last = time.Now()
	if g.arrivals.N == 1 {
		g.arrivals.First = g.arrivals.Last
	}
	if g.arrivals.N == g.wanted {
		g.changed.Broadcast()
	}
	return g.arrivals.N
}

// await answers as soon as n payments have arrived.
func (g *gateway) await(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("n"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.wanted = n; g.arrivals.N < n; {
		g.changed.Wait()
	}
	_ = json.NewEncoder(w).Encode(g.arrivals)
}

// target is the gateway's process.
type target struct {
	*process

	url string
}

func startGateway(t testenv.TB, latency time.Duration) target {
	t.Helper()
	p, url := startChild(t, "gateway", "-latency", latency.String())
	return target{p, url}
}

// await waits until n payments have arrived. It requests this once, so that the gateway does
// no work for it meanwhile.
func (g target) await(n int) arrivals {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, fmt.Sprintf("%s/arrivals?n=%d", g.url, n), http.NoBody)
	if err != nil {
		g.t.Fatal(err)
	}
	client := http.Client{Timeout: timeout}
	res, err := client.Do(r)
	if err != nil {
		g.t.Fatalf("not all of %d payments arrived at the gateway: %v", n, err)
	}
	defer res.Body.Close()
	var a arrivals
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		g.t.Fatal(err)
	}
	return a
}
