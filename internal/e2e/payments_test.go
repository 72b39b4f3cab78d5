package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/order"
	"terbayar/internal/payment"
)

// kind is what becomes of a payment: its customer's doing, told by the beginning
// of its id, and where it must end.
type kind struct {
	prefix   string
	gateway  payment.Gateway
	customer gatewaysim.Customer
	expires  time.Duration // AM only; 0: tomorrow
	ends     payment.Status
	weight   int
}

// kinds are the payments of a run. A Paydia customer who pays, pays at once and
// is done with; the others are looked up until they have made up their minds.
var kinds = []kind{
	{"PAY", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Pays, After: time.Second, UpTo: 3 * time.Second}, 0, payment.Paid, 8},
	{"LATE", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.PaysLate, After: 4 * time.Second}, soon, payment.Paid, 1},
	{"NEVER", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}, 0, payment.OnProcessing, 1},
	{"EXPIRE", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}, soon, payment.Expired, 1},
	{"CANCEL", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Cancels, After: time.Second}, 0, payment.Cancelled, 1},
	{"FAIL", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Fails, After: time.Second}, 0, payment.Failed, 1},
	{"REFUND", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Refunds, After: time.Millisecond}, 0, payment.Refunded, 1},
	{"REFUSE", payment.AMDigiPay, gatewaysim.Customer{Behaviour: gatewaysim.Pays}, 0, payment.Rejected, 1},

	{"PAY", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Pays}, 0, payment.Paid, 8},
	{"LATE", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.PaysLate, After: 3 * time.Second}, 0, payment.Paid, 2},
	{"NEVER", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.NeverPays}, 0, payment.OnProcessing, 1},
	{"CANCEL", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Cancels, After: time.Second}, 0, payment.Cancelled, 1},
	{"FAIL", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Fails, After: time.Second}, 0, payment.Failed, 1},
	{"REFUSE", payment.Paydia, gatewaysim.Customer{Behaviour: gatewaysim.Pays}, 0, payment.Rejected, 2},
}

// soon is when a payment expires that is to expire while the test runs: late
// enough for it to be created before.
const soon = 15 * time.Second

func customers() []gatewaysim.CustomerRule {
	var rules []gatewaysim.CustomerRule
	for _, k := range kinds {
		rules = append(rules, gatewaysim.CustomerRule{
			Gateway: gatewaysim.Gateway(k.gateway), Prefix: k.prefix, Customer: k.customer,
		})
	}
	return rules
}

func refusals() []gatewaysim.Refusal {
	return []gatewaysim.Refusal{
		{Gateway: gatewaysim.AM, Prefix: "REFUSE", Code: "Saldo Nyonya Rahasia tidak cukup"}, // a gateway may name its customer
		{Gateway: gatewaysim.Paydia, Prefix: "REFUSE", Code: "4036314"},
	}
}

// What marks a customer token, and what marks a customer.
const tokenMark = "eyJjdXN0b21lciI6"

var personalMarks = []string{"Nyonya Rahasia", "@customer.example", "+62-811-"}

var (
	titles = []string{"Kopi & roti", "<b>murah</b>", "Café é", `the "best" 'one'`, "支付订单 № 5", `a\b/c`, "😀 👨\u200d👩 = 100%"}
	tails  = []string{"", "/a b", " é", "支付", `"q'`, "#?%&+", "{x}:y"}
)

// sample is one payment of a run.
type sample struct {
	kind
	key    payment.Key
	amount int64
	line   string // as an order system writes it
}

// samples makes n payments, half for each gateway, every kind by its weight, or
// of the named kinds only.
func samples(t *testing.T, n int, only ...string) []sample {
	t.Helper()
	decks := map[payment.Gateway][]kind{}
	for _, k := range kinds {
		if len(only) == 0 || slices.Contains(only, k.prefix) {
			decks[k.gateway] = append(decks[k.gateway], slices.Repeat([]kind{k}, k.weight)...)
		}
	}
	all := make([]sample, n)
	for i := range all {
		gateway := payment.Gateways()[i%2]
		deck := decks[gateway]
		k := deck[i/2%len(deck)]
		id := fmt.Sprintf("%s-%d%s", k.prefix, i, tails[i%len(tails)])
		title := titles[i%len(titles)]
		amount := int64(10_000 + i)
		var body any
		token := ""
		if gateway == payment.Paydia {
			token = tokenMark + strconv.Itoa(i)
			body = order.Paydia{
				PartnerReferenceNo: id, MerchantID: "240327001000000", Title: title,
				Amount: order.Amount{Value: payment.Rupiah(amount).Decimal(), Currency: "IDR"},
			}
		} else {
			expires := 24 * time.Hour
			if k.expires != 0 {
				expires = k.expires
			}
			nominal := payment.Rupiah(amount - 3000)
			body = order.AMDigiPay{
				PaymentID: []int64{33, 37, 22}[i%3], ExpiredDate: time.Now().Add(expires).In(payment.Jakarta).Format(time.DateTime),
				Nominal: nominal, AdminFee: 3000, TransactionID: id, TransactionTotal: payment.Rupiah(amount),
				TransactionName: title, TransactionDesc: title,
				CustomerNumber: fmt.Sprintf("+62-811-%05d", i), CustomerName: "Nyonya Rahasia " + title,
				CustomerEmail: fmt.Sprintf("n%d@customer.example", i),
				ItemDetails: []order.Item{
					{ItemID: "item", ItemPrice: nominal, ItemTotalPrice: nominal, ItemQuantity: 1, ItemName: title},
					{ItemID: "fee", ItemPrice: 3000, ItemTotalPrice: 3000, ItemQuantity: 1, ItemName: "fee"},
				},
			}
		}
		all[i] = sample{kind: k, key: payment.Key{Gateway: gateway, TransactionID: id}, amount: amount, line: envelope(t, i, gateway, token, body)}
	}
	return all
}

// envelope writes a payment down; every other one as Go does by default, with
// & and < escaped.
func envelope(t *testing.T, i int, gateway payment.Gateway, token string, body any) string {
	t.Helper()
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(i%4 < 2)
	if err := enc.Encode(struct {
		Gateway payment.Gateway `json:"gateway"`
		Token   string          `json:"customer_token,omitempty"`
		Payment any             `json:"payment"`
	}{gateway, token, body}); err != nil {
		t.Fatal(err)
	}
	return line.String()
}

// file is the samples as one NDJSON file.
func file(all []sample) string {
	var text strings.Builder
	for _, p := range all {
		text.WriteString(p.line)
	}
	return text.String()
}

// answer is what enqueue create says of one payment (interface.md).
type answer struct {
	Line          int    `json:"line"`
	Gateway       string `json:"gateway"`
	TransactionID string `json:"transaction_id"`
	Result        string `json:"result"`
	Status        string `json:"status,omitempty"` // of a conflict
	Error         string `json:"error,omitempty"`
	Errors        []struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	} `json:"errors,omitempty"`
}

// create hands all samples in; each must have the result.
func (s *stage) create(all []sample, want string) {
	s.Helper()
	r := s.enqueue(file(all), "create")
	if r.code != 0 || r.stderr != "" {
		s.Fatalf("enqueue create ended with %d: %s%s", r.code, r.stderr, tail(r.stdout))
	}
	var expected []answer
	for i, p := range all {
		expected = append(expected, answer{Line: i + 1, Gateway: string(p.key.Gateway), TransactionID: p.key.TransactionID, Result: want})
	}
	if diff := cmp.Diff(expected, lines[answer](s, r.stdout)); diff != "" {
		s.Fatal(diff)
	}
}

// rows is what both gateways have, by payment.
func (s *stage) rows() map[payment.Key][]gatewaysim.Row {
	rows := map[payment.Key][]gatewaysim.Row{}
	for _, r := range s.sim.Rows() {
		key := payment.Key{Gateway: payment.Gateway(r.Gateway), TransactionID: r.Reference}
		rows[key] = append(rows[key], r)
	}
	return rows
}

// states says which statuses tell the truth about a row.
var states = map[gatewaysim.State][]payment.Status{
	gatewaysim.Open:      {payment.OnProcessing, payment.Expired},
	gatewaysim.Paid:      {payment.Paid},
	gatewaysim.Cancelled: {payment.Cancelled},
	gatewaysim.Failed:    {payment.Failed},
	gatewaysim.Refunded:  {payment.Refunded},
}

// agrees reports whether a payment stands where the gateway has it.
func agrees(p *payment.Payment, rows []gatewaysim.Row) bool {
	switch len(rows) {
	case 0:
		return p.Status == payment.Rejected
	case 1:
		return slices.Contains(states[rows[0].State], p.Status) &&
			p.GatewayReference == rows[0].GatewayReference && int64(p.Amount) == rows[0].Amount
	default:
		return false
	}
}

// ended reports whether a payment is where its customer has brought it.
func (p sample) ended(at *payment.Payment, rows []gatewaysim.Row) bool {
	return at.Status == p.ends && agrees(at, rows)
}

// endedOrHeld is what can be asked for where the gateways misbehave.
func (p sample) endedOrHeld(at *payment.Payment, rows []gatewaysim.Row) bool {
	return p.ended(at, rows) || at.Status == payment.NeedsReview && at.Reason != ""
}

// await waits until every payment is where it must end, and returns them all.
func (s *stage) await(all []sample, within time.Duration, ended func(sample, *payment.Payment, []gatewaysim.Row) bool) []*payment.Payment {
	s.Helper()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(within); ; <-look.C {
		rows := s.rows()
		found := make([]*payment.Payment, len(all))
		var missing []sample
		for i, p := range all {
			r, err := s.book.Read(s.Context(), p.key)
			if err != nil {
				s.Fatal(err)
			}
			if found[i] = &r.Payment; !ended(p, found[i], rows[p.key]) {
				missing = append(missing, p)
			}
		}
		if len(missing) == 0 {
			return found
		}
		if time.Now().After(deadline) {
			for _, p := range missing[:min(5, len(missing))] {
				s.Log(s.story(p.key))
			}
			s.Fatalf("%d of %d payments have not ended within %s", len(missing), len(all), within)
		}
	}
}

// story tells everything of a payment: the ledger's side and the gateway's.
func (s *stage) story(key payment.Key) string {
	r, err := s.book.Read(s.Context(), key)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s %q\n", key, r.Status, r.Reason)
	for _, a := range r.Attempts {
		fmt.Fprintf(&b, "  %s %s %s > %s, %d ms\n", a.At.Format(time.StampMilli), a.Kind, a.Code, a.Action, a.DurationMS)
	}
	for _, e := range s.sim.Journal() {
		if e.Reference == key.TransactionID {
			fmt.Fprintf(&b, "  %s seen: %s answered %d %s, fault %q, %v\n",
				e.At.UTC().Format(time.StampMilli), e.Operation, e.Status, e.Code, e.Fault, e.Violations)
		}
	}
	fmt.Fprintf(&b, "  gateway has: %+v", s.rows()[key])
	return b.String()
}

// noDoubles demands that no payment exists twice, and that the gateways have
// nothing to complain of.
func (s *stage) noDoubles() {
	s.Helper()
	for _, double := range s.sim.Summary().Duplicates {
		s.Errorf("paid twice: %s", double)
	}
	for _, v := range s.sim.Violations() {
		s.Errorf("violation: %+v", v)
	}
}

// event is a result event (interface.md). Nothing else may be in it.
type event struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"`
}

// checkEvents holds the event stream against where the payments stand: numbered
// from 1 without a gap, each once, every move legal, the last one where the
// payment stands.
func (s *stage) checkEvents(all []*payment.Payment) {
	s.Helper()
	r := s.enqueue("", "events")
	if r.code != 0 {
		s.Fatalf("enqueue events: %d %s", r.code, r.stderr)
	}
	told := map[payment.Key][]event{}
	for _, e := range lines[event](s, r.stdout) {
		gateway, ok := strings.CutPrefix(e.Source, "terbayar/")
		if !ok || e.SpecVersion != "1.0" {
			s.Errorf("malformed event: %+v", e)
		}
		key := payment.Key{Gateway: payment.Gateway(gateway), TransactionID: e.Subject}
		told[key] = append(told[key], e)
	}
	for _, p := range all {
		s.checkStory(p, told[p.Key()])
		delete(told, p.Key())
	}
	for key := range told {
		s.Errorf("events of a payment that nobody made: %s", key)
	}
}

func (s *stage) checkStory(p *payment.Payment, story []event) {
	s.Helper()
	was := payment.Submitting
	for i, e := range story {
		var data payment.Payment
		if err := json.Unmarshal(e.Data, &data); err != nil {
			s.Fatal(err)
		}
		if want := fmt.Sprintf("%s:%d:%s", p.Key(), i+1, data.Status); e.ID != want {
			s.Errorf("event %q where %q should be", e.ID, want)
		}
		if want := "terbayar.payment." + string(data.Status); e.Type != want || !e.Time.Equal(data.UpdatedAt) {
			s.Errorf("event %s is a %s at %s, its data say %s at %s", e.ID, e.Type, e.Time, want, data.UpdatedAt)
		}
		// Between two events the payment may have been where no event tells of.
		hidden := payment.CanMove(was, payment.Verifying) && payment.CanMove(payment.Verifying, data.Status)
		if data.Status == was || !data.Status.HasEvent() || !payment.CanMove(was, data.Status) && !hidden {
			s.Errorf("%s moves from %s to %s", e.ID, was, data.Status)
		}
		was = data.Status
	}
	if len(story) == 0 {
		s.Errorf("%s stands in %s and has no event", p.Key(), p.Status)
		return
	}
	// The last event's data are the payment less its attempts, field by field.
	text, err := json.Marshal(p)
	if err != nil {
		s.Fatal(err)
	}
	want, got := object(s, text), object(s, story[len(story)-1].Data)
	delete(want, "attempts")
	delete(want, "next_at") // it moves with every lookup, and an event does not
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("last event of %s: %s", p.Key(), diff)
	}
}

func object(s *stage, text []byte) map[string]any {
	s.Helper()
	var o map[string]any
	if err := json.Unmarshal(text, &o); err != nil {
		s.Fatal(err)
	}
	return o
}

var digits = regexp.MustCompile(`^[0-9]{1,36}$`)

// checkStatus holds "enqueue status --json" to interface.md, and to the ledger.
func (s *stage) checkStatus(p *payment.Payment) {
	s.Helper()
	r := s.enqueue("", "status", string(p.Gateway), p.TransactionID, "--json")
	if r.code != 0 || strings.Count(r.stdout, "\n") != 1 {
		s.Fatalf("enqueue status %s: %d %s%s", p.Key(), r.code, r.stdout, r.stderr)
	}
	got := object(s, []byte(r.stdout))
	wants(s, got, "gateway", "transaction_id", "status", "gateway_status", "gateway_reference", "amount",
		"created_at", "updated_at", "attempts")
	attempts, _ := got["attempts"].([]any)
	if len(attempts) == 0 {
		s.Errorf("%s has no attempts: %s", p.Key(), r.stdout)
	}
	for _, a := range attempts {
		attempt, _ := a.(map[string]any)
		wants(s, attempt, "at", "kind", "code", "http_status", "action", "duration_ms")
		if id, _ := attempt["external_id"].(string); (p.Gateway == payment.Paydia) != digits.MatchString(id) {
			s.Errorf("%s: external_id %q", p.Key(), id)
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		s.Fatal(err)
	}
	want := object(s, text)
	delete(want, "next_at") // it moves with every lookup
	delete(got, "next_at")
	if diff := cmp.Diff(want, got); diff != "" {
		s.Error(diff)
	}
	if human := s.enqueue("", "status", string(p.Gateway), p.TransactionID); human.code != 0 || !strings.Contains(human.stdout, string(p.Status)) {
		s.Errorf("enqueue status: %d %s%s", human.code, human.stdout, human.stderr)
	}
}

func wants(s *stage, o map[string]any, names ...string) {
	s.Helper()
	for _, name := range names {
		if _, ok := o[name]; !ok {
			s.Errorf("%s is missing in %v", name, o)
		}
	}
}
