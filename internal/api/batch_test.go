package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/redistest"
)

// TestBatch: the answers are those of enqueue create.
func TestBatch(t *testing.T) {
	redistest.Each(t, func(t *testing.T, client redis.UniversalClient) {
		e := newEnv(t, client)
		other := strings.Replace(paydia("ORD-1"), "10000.00", "20000.00", 1)
		a := e.do("POST", "/v1/payments/batch", strings.Join([]string{paydia("ORD-1"), "", am("INV-1"), paydia("ORD-1"), other, "{}", "x", strings.ReplaceAll(paydia("ORD-2"), `,"`, ",\n\"")}, "\n"))
		var got []string
		for line := range strings.Lines(a.body) {
			var one struct {
				Line           int
				ID             string `json:"transaction_id"`
				Result, Status string
			}
			if err := json.Unmarshal([]byte(line), &one); err != nil {
				t.Fatal(err, line)
			}
			got = append(got, strings.TrimSpace(fmt.Sprint(one.Line, " ", one.ID, " ", one.Result, " ", one.Status)))
		}
		want := []string{"1 ORD-1 enqueued", "3 INV-1 enqueued", "4 ORD-1 duplicate", "5 ORD-1 conflict queued", "6  invalid", "7  invalid", "8 ORD-2 enqueued"}
		if diff := cmp.Diff(want, got); diff != "" || a.StatusCode != 200 || a.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%d\n%s", a.StatusCode, diff)
		}
		if a := e.do("POST", "/v1/payments/batch", "", "Idempotency-Key", "x"); a.StatusCode != 400 {
			t.Errorf("Idempotency-Key: %d", a.StatusCode)
		}
		if a := e.do("POST", "/v1/payments/batch", "", "Content-Encoding", "gzip"); a.StatusCode != 415 {
			t.Errorf("gzip: %d", a.StatusCode)
		}
		if a := e.do("POST", "/v1/payments/batch", ""); a.StatusCode != 200 || a.body != "" {
			t.Errorf("empty: %d %s", a.StatusCode, a.body)
		}
	})
}

// startBatch starts a batch whose lines are written one by one.
func (e *env) startBatch() (lines io.WriteCloser, answers *bufio.Reader) {
	e.t.Helper()
	in, out := io.Pipe()
	r, err := http.NewRequestWithContext(e.t.Context(), "POST", "http://"+e.addr+"/v1/payments/batch", in)
	if err != nil {
		e.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+e.key)
	res, err := e.client.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { res.Body.Close() })
	return out, bufio.NewReader(res.Body)
}

// TestBatchInAndOut: each line is answered before the next one is sent.
func TestBatchInAndOut(t *testing.T) {
	e := newEnv(t, redistest.Mini(t))
	lines, answers := e.startBatch()
	for i := range 20 {
		fmt.Fprintln(lines, paydia(fmt.Sprint("ORD-", i)))
		if answer, err := answers.ReadString('\n'); err != nil || !strings.Contains(answer, fmt.Sprintf(`"line":%d,"gateway":"paydia","transaction_id":"ORD-%d","result":"enqueued"`, i+1, i)) {
			t.Fatal(answer, err)
		}
	}
	lines.Close()
	if rest, err := io.ReadAll(answers); err != nil || len(rest) > 0 {
		t.Error(rest, err)
	}
}

// TestBatchLarge: 20,000 lines use little memory, also when the client reads no answer for as
// long as it can send.
func TestBatchLarge(t *testing.T) {
	e := newEnv(t, redistest.Server(t).Client(t))
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1/payments/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n", e.key)
	const n = 20_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			text := paydia(fmt.Sprint("ORD-", i)) + strings.Repeat(" ", 500) + "\n" // 16 MB altogether
			if _, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", len(text), text); err != nil {
				sent <- err
				return
			}
		}
		_, err := io.WriteString(conn, "0\r\n\r\n")
		sent <- err
	}()
	time.Sleep(time.Second) // the client reads nothing for a second
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 12<<20 {
		t.Errorf("the heap has grown by %d MB", grown>>20)
	} else {
		t.Logf("the heap has grown by %d KB", grown>>10)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // the connection is closed
	if err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewScanner(res.Body)
	count := 0
	for answers.Scan() {
		if want := fmt.Sprintf(`{"line":%d,"gateway":"paydia","transaction_id":"ORD-%d","result":"enqueued"}`, count+1, count); answers.Text() != want {
			t.Fatal(answers.Text())
		}
		count++
	}
	if err := <-sent; count != n || err != nil || answers.Err() != nil {
		t.Error(count, err, answers.Err())
	}
}

// TestBatchCutOff: lines that arrived are recorded when the input ends early, and the answer does
// not end as a complete one.
func TestBatchCutOff(t *testing.T) {
	e := newEnv(t, redistest.Mini(t))
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	text := paydia("ORD-1") + "\n"
	fmt.Fprintf(conn, "POST /v1/payments/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", e.key, len(text), text)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // the connection is closed
	if err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(res.Body)
	if answer, err := answers.ReadString('\n'); err != nil || !strings.Contains(answer, `"enqueued"`) {
		t.Fatal(answer, err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := answers.ReadString('\n'); err == nil || err == io.EOF {
		t.Errorf("the answer ends with %v", err)
	}
}

// TestBatchHalfClose: a client that closes its direction after the whole input receives all
// answers.
func TestBatchHalfClose(t *testing.T) {
	e := newEnv(t, redistest.Mini(t))
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var text strings.Builder
	for i := range 500 {
		text.WriteString(paydia(fmt.Sprint("ORD-", i)) + "\n")
	}
	fmt.Fprintf(conn, "POST /v1/payments/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", e.key, text.Len(), text.String())
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // the connection is closed
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if n := strings.Count(string(body), `"result":"enqueued"`); err != nil || n != 500 {
		t.Error(n, err)
	}
}
