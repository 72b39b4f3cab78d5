package archive_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"terbayar/internal/archive"
)

// payments returns n lines of about 900 bytes: two kinds of payments, as the ledger keeps them.
func payments(n int) [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"Budi Santoso", "Siti Nurhaliza", "Agus Wijaya", "Dewi Lestari", "Rudi Hartono", "Putri Ayu", "Eko Prasetyo", "Rina Kusuma"}
	lines := make([][]byte, n)
	at := time.Date(2025, 10, 20, 8, 0, 0, 0, time.UTC).UnixMilli()
	for i := range lines {
		at += r.Int64N(2000)
		name, amount := names[r.IntN(len(names))], 1000*(1+r.IntN(900))
		if i%2 == 0 {
			lines[i] = fmt.Appendf(nil, `{"gateway":"amdigipay","transaction_id":"INV-%d","status":"paid","gateway_status":"Terbayar","gateway_reference":"%d",`+
				`"amount":%d,"created_at":%d,"updated_at":%d,"digest":"%016x%016x","payment_links":["https://h2h.amdigipay.com/pay/%08x%08x"],`+
				`"order":{"payment_id":%d,"expired_date":"2025-10-21 18:23:10","nominal":%d,"admin_fee":3000,"transaction_id":"INV-%d","transaction_total":%d,`+
				`"transaction_name":"Tagihan %d","customer_number":"0859%08d","customer_name":"%s","customer_email":"user%06d@gmail.com",`+
				`"item_details":[{"item_id":"SKU%05d","item_price":%d,"item_total_price":%d,"item_quantity":1,"item_name":"Paket %d"}]},`+
				`"attempts":[{"at":%d,"kind":"submit","code":"http:200","message":"success","http_status":200,"action":"accept","duration_ms":%d},`+
				`{"at":%d,"kind":"lookup","code":"http:200","message":"success","http_status":200,"action":"accept","duration_ms":%d}]}`,
				100000+i, 7000000+r.IntN(99999), amount+3000, at, at+r.Int64N(4000000), r.Uint64(), r.Uint64(), r.Uint32(), r.Uint32(),
				r.IntN(90)+1, amount, 100000+i, amount+3000, r.IntN(1000), r.IntN(1e8), name, r.IntN(1e6),
				r.IntN(1e5), amount, amount, r.IntN(40), at+r.Int64N(90), 40+r.IntN(900), at+r.Int64N(4000000), 40+r.IntN(900))
			continue
		}
		id := fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", r.Uint32(), r.IntN(1<<16), r.IntN(1<<12), r.IntN(1<<12), r.Int64N(1<<48))
		lines[i] = fmt.Appendf(nil, `{"gateway":"paydia","transaction_id":"%s","status":"paid","gateway_status":"00","gateway_reference":"2025%016d",`+
			`"amount":%d,"created_at":%d,"updated_at":%d,"digest":"%016x%016x",`+
			`"qr_code":"00020101021226670016COM.NOBUBANK.WWW01189360050300000842770214080500006791%04d0303UKE51440014ID.CO.QRIS.WWW0215ID20210844664515204541153033605405%d5802ID6304%04X",`+
			`"order":{"partnerReferenceNo":"%s","merchantId":"240327001000000","amount":{"value":"%d.00","currency":"IDR"},"title":"Payment %d"},`+
			`"attempts":[{"at":%d,"kind":"submit","code":"2005100","message":"Request has been processed successfully","http_status":200,"action":"accept","duration_ms":%d,"external_id":"%d"},`+
			`{"at":%d,"kind":"lookup","code":"2005100","message":"Request has been processed successfully","http_status":200,"action":"accept","duration_ms":%d,"external_id":"%d"}]}`,
			id, r.Int64N(1e16), amount, at, at+r.Int64N(4000000), r.Uint64(), r.Uint64(), r.IntN(1e4), amount, r.IntN(1<<16), id, amount, r.IntN(1000),
			at+r.Int64N(90), 40+r.IntN(900), r.Int64N(1e16), at+r.Int64N(4000000), 40+r.IntN(900), r.Int64N(1e16))
	}
	return lines
}

// BenchmarkAppend appends frames of 1,000 lines: B/line is the size in the archive.
func BenchmarkAppend(b *testing.B) {
	dir := b.TempDir()
	lines := payments(1000)
	size := 0
	for _, line := range lines {
		size += len(line) + 1
	}
	b.SetBytes(int64(size))
	w := archive.NewWriter(dir, "host:1", time.Now)
	defer w.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Append(lines); err != nil {
			b.Fatal(err)
		}
	}
	var stored int64
	paths, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		stored += info.Size()
	}
	appended := float64(b.N * len(lines))
	b.ReportMetric(float64(stored)/appended, "B/line")
	b.ReportMetric(float64(size)/float64(len(lines)), "rawB/line")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/appended, "us/line")
}

// BenchmarkRead reads a day of 20,000 lines.
func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	w := archive.NewWriter(dir, "host:1", clock)
	defer w.Close()
	for lines := range slices.Chunk(payments(20_000), 1000) {
		if _, err := w.Append(lines); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for _, err := range archive.Read(dir, today) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/line")
}
