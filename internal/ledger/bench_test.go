package ledger_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// order is an order of the usual size.
const order = `{"payment_id":33,"expired_date":"2099-05-21 18:23:10","nominal":10000,"admin_fee":3000,"transaction_id":"%s",` +
	`"transaction_total":13000,"transaction_name":"testing","transaction_desc":"testing","customer_number":"085925065195",` +
	`"customer_name":"testing","item_details":[{"item_id":"testing","item_price":10000,"item_total_price":10000,` +
	`"item_quantity":1,"item_name":"testing"},{"item_id":"fee","item_price":3000,"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}`

// BenchmarkScripts measures what Redis does for each step of a payment: the median time of the
// script, by Redis' slow log, and the bytes that it appends to the append-only file.
func BenchmarkScripts(b *testing.B) {
	server := redistest.Server(b, "--appendfsync", "no", "--slowlog-log-slower-than", "0", "--slowlog-max-len", "100000")
	client := server.Client(b)
	l := newLedger(client, time.Now)
	key := func(i int) payment.Key {
		return payment.Key{Gateway: payment.AMDigiPay, TransactionID: fmt.Sprintf("0030c97b-5ccc-4482-b4af-%012d", i)}
	}
	records := make([]*ledger.Record, b.N)
	for _, step := range []struct {
		name string
		do   func(i int) error
	}{
		{"create", func(i int) error {
			return l.Create(b.Context(), []ledger.NewPayment{{
				Key: key(i), Amount: 13000, Order: fmt.Appendf(nil, order, key(i).TransactionID), Digest: strings.Repeat("0", 64), ExpiresAt: start,
			}})[0].Err
		}},
		{"claim", func(i int) (err error) {
			records[i], _, err = l.Claim(b.Context(), key(i), ledger.Claim{
				Attempt: payment.Attempt{At: time.Now(), Kind: payment.KindSubmit}, Lease: lease, Timeout: timeout,
			})
			return err
		}},
		{"save", func(i int) error {
			r := records[i]
			r.Status, r.GatewayStatus, r.GatewayReference, r.Due = payment.OnProcessing, "On processing", strconv.Itoa(i+1), ledger.OnGrid(30*time.Second)
			r.QRCode = "00020101021226670016COM.NOBUBANK.WWW01189360050300000842770214080500006791870303UKE51440014ID.CO.QRIS.WWW0215ID2021084466451"
			r.FinishAttempt(payment.Attempt{
				At: time.Now(), Kind: payment.KindSubmit, Code: "http:200", Message: "success", HTTPStatus: 200, Action: "accept", DurationMS: 12,
			})
			return l.Save(b.Context(), r)
		}},
	} {
		client.Do(b.Context(), "SLOWLOG", "RESET")
		file := aofSize(b, client)
		var group errgroup.Group
		group.SetLimit(50) // as WORKER_CONCURRENCY
		for i := range b.N {
			group.Go(func() error { return step.do(i) })
		}
		if err := group.Wait(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric((aofSize(b, client)-file)/float64(b.N), step.name+"-aof-B")
		b.ReportMetric(scriptTime(b, client), step.name+"-us")
	}
}

// scriptTime returns the median time of the scripts in the slow log, in microseconds.
func scriptTime(b *testing.B, client redis.UniversalClient) float64 {
	b.Helper()
	log, err := client.SlowLogGet(b.Context(), -1).Result()
	if err != nil {
		b.Fatal(err)
	}
	var times []float64
	for _, entry := range log {
		if entry.Args[0] == "evalsha" {
			times = append(times, float64(entry.Duration.Microseconds()))
		}
	}
	slices.Sort(times)
	return times[len(times)/2]
}

func aofSize(b *testing.B, client redis.UniversalClient) float64 {
	b.Helper()
	_, rest, _ := strings.Cut(client.Info(b.Context(), "persistence").Val(), "aof_current_size:")
	size, _, _ := strings.Cut(rest, "\r\n")
	n, err := strconv.ParseFloat(size, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
