package ledger_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// order is an order of the usual size.
const order = `{"payment_id":33,"expired_date":"2099-05-21 18:23:10","nominal":10000,"admin_fee":3000,"transaction_id":"%s",` +
	`"transaction_total":13000,"transaction_name":"testing","transaction_desc":"testing","customer_number":"085925065195",` +
	`"customer_name":"testing","item_details":[{"item_id":"testing","item_price":10000,"item_total_price":10000,` +
	`"item_quantity":1,"item_name":"testing"},{"item_id":"fee","item_price":3000,"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}`

// BenchmarkScripts measures what Redis does for each step of a payment: the time of the
// script by Redis' own count, and the bytes that it appends to the append-only file.
func BenchmarkScripts(b *testing.B) {
	server := redistest.Server(b, "--appendfsync", "no")
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
		before := redisCost(b, client)
		for i := range b.N {
			if err := step.do(i); err != nil {
				b.Fatal(err)
			}
		}
		after := redisCost(b, client)
		b.ReportMetric((after.us-before.us)/float64(b.N), step.name+"-us")
		b.ReportMetric((after.file-before.file)/float64(b.N), step.name+"-aof-B")
	}
}

// cost is what scripts have cost Redis.
type cost struct{ us, file float64 }

func redisCost(b *testing.B, client redis.UniversalClient) cost {
	b.Helper()
	number := func(section, name string) float64 {
		_, rest, _ := strings.Cut(client.Info(b.Context(), section).Val(), name)
		digits := rest[:strings.IndexFunc(rest+",", func(r rune) bool { return r < '0' || r > '9' })]
		n, _ := strconv.ParseFloat(digits, 64) // 0 before the first script
		return n
	}
	client.Eval(b.Context(), "return 1", nil) // so that evalsha is not the only one that flushes the file
	line := client.Info(b.Context(), "commandstats").Val()
	_, line, _ = strings.Cut(line, "cmdstat_evalsha:")
	_, line, _ = strings.Cut(line, "usec=")
	digits, _, _ := strings.Cut(line, ",")
	us, _ := strconv.ParseFloat(digits, 64) // 0 before the first script
	return cost{us, number("persistence", "aof_current_size:")}
}
