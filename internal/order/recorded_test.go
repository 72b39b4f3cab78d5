package order_test

import (
	"bufio"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/order"
)

// recorded has one document a line, and what Parse returned for it when the file was written:
// the content and its digest, or the errors. Both are Go string literals, separated by a tab.
//
// Do not generate the file again. The ledger stores the digests of all recorded payments: if
// the content of a payment changed, its next submission would be a conflict.
//
//go:embed testdata/recorded.txt
var recorded []byte

var recordedDefaults = order.Defaults{MerchantID: "240327001000000"}

// recordedResult describes what Parse returned, in the form of the recorded file.
func recordedResult(o *order.Order, err error) string {
	var errs order.FieldErrors
	var b strings.Builder
	switch {
	case errors.As(err, &errs):
		for _, e := range errs {
			fmt.Fprintf(&b, "%s: %s\n", e.Field, e.Detail)
		}
	case err != nil:
		return err.Error()
	}
	if o == nil {
		return b.String()
	}
	content, err := o.Content()
	if err != nil {
		return err.Error()
	}
	fmt.Fprintf(&b, "%s %d %s %q %s %s", o.Key(), o.Amount(), o.ExpiresAt(), o.CustomerToken.Reveal(), order.Digest(content), content)
	return b.String()
}

func TestParseRecorded(t *testing.T) {
	documents := 0
	lines := bufio.NewScanner(bytes.NewReader(recorded))
	for lines.Scan() {
		quotedDoc, quotedWant, _ := strings.Cut(lines.Text(), "\t")
		doc, err := strconv.Unquote(quotedDoc)
		if err != nil {
			t.Fatal(err)
		}
		want, err := strconv.Unquote(quotedWant)
		if err != nil {
			t.Fatal(err)
		}
		o, err := order.Parse([]byte(doc), before, recordedDefaults)
		if diff := cmp.Diff(want, recordedResult(o, err)); diff != "" {
			t.Errorf("%s\n%s", doc, diff)
		}
		documents++
	}
	if err := lines.Err(); err != nil || documents != 372 {
		t.Errorf("%d documents, %v", documents, err)
	}
}
