package worker_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"terbayar/internal/config"
	"terbayar/internal/durable"
	"terbayar/internal/intake"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/secret"
	"terbayar/internal/tasks"
	"terbayar/internal/telemetry"
	"terbayar/internal/testenv"
	"terbayar/internal/worker"
)

// BenchmarkDrain drains a queue of AM payments with a whole worker, at a gateway that accepts
// all of them at once: for profiles, with -cpuprofile and -memprofile. Use bench to compare
// figures: there Redis, worker and gateway are processes of their own.
func BenchmarkDrain(b *testing.B) {
	server := redistest.Server(b, "--appendfsync", "everysec")
	client := server.Client(b)
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var order struct {
			TransactionID string `json:"transaction_id"`
		}
		if r.URL.Path == "/login" {
			_, _ = io.WriteString(w, `{"error":false,"message":"Login success","data":{"access_token":"t","token_type":"bearer","expires_in":3600}}`)
			return
		}
		if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = fmt.Fprintf(w, `{"error":false,"message":"success","data":{"id":6,"payment_id":33,"payment_name":"QRIS","status_id":2,`+
			`"status":"On processing","transaction_id":%q,"transaction_total":"13000","payment_links":null,"payment_code":null,`+
			`"qr_code":"00020101021226670016COM.NOBUBANK.WWW01189360050300000842770214080500006791870303UKE51440014ID.CO.QRIS.WWW0215ID2021084466451"}}`,
			order.TransactionID)
	}))
	defer gateway.Close()

	cipher, err := secret.NewCipher(secret.Text{})
	if err != nil {
		b.Fatal(err)
	}
	records := testenv.NewLedger(client, time.Now)
	in := intake.Intake{Ledger: records, Cipher: cipher, Enqueue: tasks.NewEnqueuer(client, time.Now).Submit}
	for batch := range slices.Chunk(make([]intake.Line, b.N), intake.Batch) {
		for i := range batch {
			batch[i] = intake.Line{Number: i + 1, Text: testenv.AMOrder(rand.Text())}
		}
		for _, answer := range in.Create(b.Context(), batch) {
			if answer.Result != intake.Enqueued || answer.EnqueueErr != nil {
				b.Fatalf("%+v", answer)
			}
		}
	}

	var cfg struct{ worker.Config }
	if _, err := config.Parse("worker", "", &cfg, []string{
		"--redis-url=" + server.URL(), "--redis-durability=none", "--worker-http-addr=127.0.0.1:0", "--status-poll-interval=24h",
		"--amdigipay-base-url=" + gateway.URL, "--amdigipay-username=x", "--amdigipay-password=x",
	}, io.Discard); err != nil {
		b.Fatal(err)
	}
	redis, err := cfg.Redis.Open()
	if err != nil {
		b.Fatal(err)
	}
	defer redis.Close()
	log, err := telemetry.NewLogger(io.Discard, "info", "json")
	if err != nil {
		b.Fatal(err)
	}
	writes := durable.NewWriters(durable.Options{Client: client, Mode: durable.None, Now: time.Now, Log: slog.New(slog.DiscardHandler)}, ledger.DurabilityKeys(client, 1))
	w, err := worker.New(cfg.Config, redis, writes, log)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	b.ResetTimer()
	go func() { ended <- w.Run(ctx) }()
	for ticker := time.NewTicker(10 * time.Millisecond); ; <-ticker.C {
		stats, err := records.Stats(b.Context(), payment.AMDigiPay)
		if err != nil {
			b.Fatal(err)
		}
		if stats.Counts[payment.OnProcessing] == int64(b.N) {
			break
		}
	}
	b.StopTimer()
	stop()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}
