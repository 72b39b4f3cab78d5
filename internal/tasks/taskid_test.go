package tasks

import (
	"testing"
	"time"

	"terbayar/internal/payment"
)

func TestParseTaskID(t *testing.T) {
	e := &Enqueuer{now: time.Now}
	for _, transactionID := range []string{
		"INV-1", "INV/1 é", "a:b", "%41", "standby:1:2", "支付", "?#&+ ", "..", string([]byte{0xff}),
	} {
		want := payment.Key{Gateway: payment.Paydia, TransactionID: transactionID}
		if key, standby, ok := parseTaskID(taskID(want)); key != want || standby || !ok {
			t.Errorf("%q: %s, %t, %t", taskID(want), key, standby, ok)
		}
		if key, standby, ok := parseTaskID(e.standbyID(want)); key != want || !standby || !ok {
			t.Errorf("%q: %s, %t, %t", e.standbyID(want), key, standby, ok)
		}
	}
	for _, id := range []string{
		"", "amdigipay", "amdigipay:", ":INV-1", "other:INV-1", "AMDIGIPAY:INV-1", " amdigipay:INV-1",
		"poll:amdigipay:1700000000000", "1amdigipay:INV-1", "7f6d4e6e-2b0c-4d0b-a8a5-6a1f3a1f2d11",
		"amdigipay:INV/1", "amdigipay:%4", "amdigipay:%41", "amdigipay:INV%2f1", // not as taskID escapes
		"standby:amdigipay:INV-1", "standby:", "standby:0:", "standby:0:amdigipay:", "standby:0:standby:0:amdigipay:INV-1",
	} {
		if key, _, ok := parseTaskID(id); ok {
			t.Errorf("%q is parsed as %s", id, key)
		}
	}
}

func TestSplit(t *testing.T) {
	for total, servers := range map[int]int{1: 1, 5: 1, 6: 1, 11: 1, 12: 2, 13: 2, 47: 7, 48: 8, 50: 8, 1000: 8} {
		all := split(total)
		sum := 0
		for _, n := range all {
			sum += n
			if n < total/len(all) || n > total/len(all)+1 {
				t.Errorf("%d: %v", total, all)
			}
		}
		if sum != total || len(all) != servers {
			t.Errorf("%d: %v", total, all)
		}
	}
}
