package amdigipay

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"terbayar/internal/payment"
)

// StatusMap maps AM's status ids to our statuses.
type StatusMap map[int]payment.Status

// DefaultStatusMap has the known status ids of AM. Only 2 ("On processing") and 3
// ("Terbayar") are documented by AM, the others come from public integrations
// (docs/gateways.md 1.8). Therefore the map is a setting.
const DefaultStatusMap = "1=on_processing,2=on_processing,3=paid,4=paid,5=cancelled,6=refunded,13=on_processing,14=failed"

var defaultStatusMap = func() StatusMap {
	m, err := ParseStatusMap(DefaultStatusMap)
	if err != nil {
		panic(err) // the constant is malformed
	}
	return m
}()

// ReportedStatuses returns the statuses that a status map may contain.
func ReportedStatuses() []payment.Status { return payment.GatewayStatuses() }

// ParseStatusMap parses pairs of a status id and a status, such as "2=on_processing,3=paid".
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
			return nil, fmt.Errorf("amdigipay: status map: duplicate id %d", n)
		}
		if !slices.Contains(ReportedStatuses(), payment.Status(status)) {
			return nil, fmt.Errorf("amdigipay: status map: %q is not one of %v", status, ReportedStatuses())
		}
		m[n] = payment.Status(status)
	}
	if len(m) == 0 {
		return nil, errors.New("amdigipay: status map: is empty")
	}
	return m, nil
}

// status returns the status of an id. An unknown id leaves the payment open, so that it is
// not taken for a final status.
func (m StatusMap) status(id int) payment.Status {
	if s, ok := m[id]; ok {
		return s
	}
	return payment.OnProcessing
}
