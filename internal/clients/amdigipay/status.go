package amdigipay

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"terbayar/internal/payment"
)

// StatusMap says what AM's status ids mean.
type StatusMap map[int]payment.Status

// DefaultStatusMap is what is known of AM's status ids. 2 ("On processing") and
// 3 ("Terbayar") are on AM's pages, the others are what public integrations do
// (gateways.md 1.8), so the map is a setting.
const DefaultStatusMap = "1=on_processing,2=on_processing,3=paid,4=paid,5=cancelled,6=refunded,13=on_processing,14=failed"

var defaultStatusMap = func() StatusMap {
	m, err := ParseStatusMap(DefaultStatusMap)
	if err != nil {
		panic(err) // our own constant: found by the first test
	}
	return m
}()

// Meanings lists what a status map can name.
func Meanings() []payment.Status { return payment.GatewayStatuses() }

// ParseStatusMap reads pairs of a status id and a status, such as
// "2=on_processing,3=paid".
func ParseStatusMap(s string) (StatusMap, error) {
	m := StatusMap{}
	for pair := range strings.SplitSeq(s, ",") {
		id, status, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok {
			return nil, fmt.Errorf("amdigipay: status map: %q is not ID=STATUS", pair)
		}
		n, err := strconv.Atoi(id)
		if err != nil {
			return nil, fmt.Errorf("amdigipay: status map: %q is not a number", id)
		}
		if _, twice := m[n]; twice {
			return nil, fmt.Errorf("amdigipay: status map: %d stands there twice", n)
		}
		if !slices.Contains(Meanings(), payment.Status(status)) {
			return nil, fmt.Errorf("amdigipay: status map: %q is not one of %v", status, Meanings())
		}
		m[n] = payment.Status(status)
	}
	if len(m) == 0 {
		return nil, errors.New("amdigipay: status map: is empty")
	}
	return m, nil
}

// status is what an id means. One that nobody knows leaves the payment open: it
// is never taken for the end of anything.
func (m StatusMap) status(id int) payment.Status {
	if s, ok := m[id]; ok {
		return s
	}
	return payment.OnProcessing
}
