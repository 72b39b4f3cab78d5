package statuspoll

import (
	"context"
	"fmt"
	"strconv"

	"terbayar/internal/admission"
	"terbayar/internal/clients"
	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

// ListAsker looks up payments at AM Digital Payment. AM's list-transaction has no filter
// by our transaction id, so one list scan looks for all wanted payments, and ends as soon
// as all of them are found.
type ListAsker struct {
	Client    *amdigipay.Client
	Admission *admission.Controller // nil: no limit
	Policy    *retrypolicy.Policy
	Limit     int // rows per page
}

// Ready implements Asker.
func (a *ListAsker) Ready(ctx context.Context) error { return a.Admission.Ready(ctx, a.Client) }

// Shared implements Asker.
func (a *ListAsker) Shared() bool { return true }

// RoundSize implements Asker. One list scan serves all payments, so only memory limits it.
func (a *ListAsker) RoundSize() int { return 5000 }

const (
	// statusOnProcessing is AM's "On processing" (List Transaction, response).
	statusOnProcessing = 2
	// allStatuses scans the list without a filter.
	allStatuses = 0
	// maxRereads is how often a scan reads the first pages again, for rows that were
	// added while it was reading.
	maxRereads = 3
)

// Ask implements Asker. If some wanted payments are known to be open, it first scans AM's
// open transactions only. Payments that are not among them are then looked for in the
// whole list, from the newest row on.
//
// A scan takes three shortcuts, which all rely on how AM appears to work: it filters by
// status, it asks for the last few payments with detail-transaction, and it stops where
// all further rows are too old. A full scan takes none of them and reads the whole list.
// Only a full scan can show conclusively that AM does not have a payment.
func (a *ListAsker) Ask(ctx context.Context, wanted []*ledger.Record, fullScan bool) ([]Finding, error) {
	s := newScan(a, wanted)
	s.full = fullScan
	if !fullScan && s.anyOpen() && !s.run(ctx, statusOnProcessing) {
		return s.findings, s.err
	}
	if s.missing > 0 {
		s.run(ctx, allStatuses)
	}
	return s.findings, s.err
}

// scan looks for the wanted payments in AM's list. wanted, findings, seen and references
// have one element per payment, at the same index.
type scan struct {
	asker      *ListAsker
	wanted     []*ledger.Record
	findings   []Finding
	seen       []bool         // whether a row of the payment was seen
	references []string       // AM's id in the row that was seen; "" if it had none
	index      map[string]int // of the payment with this transaction id
	missing    int            // number of payments that are still looked for
	full       bool           // take no shortcut
	noDetail   bool           // detail-transaction has failed: do not use it again
	err        error          // why AM could not be asked any further

	// numericIDs holds the wanted transaction ids that are numbers, by value. A service
	// that writes an id without quotes turns "0123" into 123.
	numericIDs map[clients.Number]bool
}

func newScan(a *ListAsker, wanted []*ledger.Record) *scan {
	s := &scan{
		asker: a, wanted: wanted, findings: make([]Finding, len(wanted)),
		index: make(map[string]int, len(wanted)), seen: make([]bool, len(wanted)),
		references: make([]string, len(wanted)), missing: len(wanted), numericIDs: make(map[clients.Number]bool),
	}
	for i, r := range wanted {
		s.index[r.TransactionID] = i
		if n := clients.ParseNumber(r.TransactionID); !n.Unreadable() {
			s.numericIDs[n] = true
		}
	}
	return s
}

// anyOpen reports whether AM is known to have any wanted payment as open.
func (s *scan) anyOpen() bool {
	for _, r := range s.wanted {
		if r.Status == payment.OnProcessing || r.Status == payment.Expired {
			return true
		}
	}
	return false
}

// rowKey identifies a row of the list.
type rowKey struct {
	id            int64
	transactionID string
}

// listing describes the pages read so far.
type listing struct {
	rows       map[rowKey]bool // the distinct rows
	readable   bool            // every row could be read and belongs to exactly one payment
	ordered    bool            // newest row first
	oldest     int64           // id of the last new row
	firstTotal int             // total_found when counting began; 0 if missing
	lastTotal  int             // total_found of the latest page; 0 if missing
	newRows    int             // rows of the latest page that were not on an earlier one
}

// add adds a page.
func (l *listing) add(p amdigipay.Page) {
	if l.rows == nil {
		*l = listing{rows: make(map[rowKey]bool), readable: true, ordered: true, firstTotal: p.TotalFound}
	}
	l.lastTotal, l.newRows = p.TotalFound, 0
	for _, r := range p.Rows {
		l.readable = l.readable && r.Unreadable == ""
		key := rowKey{r.ID, r.TransactionID}
		if l.rows[key] {
			continue
		}
		l.rows[key] = true
		l.newRows++
		l.ordered = l.ordered && r.ID > 0 && (l.oldest == 0 || r.ID < l.oldest)
		l.oldest = r.ID
	}
}

// complete reports whether every row of the list was read: there are as many distinct rows
// as AM's total_found says, and the total did not change during the scan, because
// otherwise a row may have moved to a page that was already read. A total of 0 does not
// count, because it may also mean that the total is missing. So for an account without any
// transaction absence is never conclusive, and the payment goes to review after its last
// lookup.
func (l *listing) complete() bool {
	return l.readable && l.firstTotal > 0 && l.firstTotal == l.lastTotal && len(l.rows) == l.lastTotal
}

// run scans the list, or its transactions in one status, page by page until all wanted
// payments are found or the list ends, and sets the findings of the missing payments. It
// returns false if AM could not be asked to the end.
func (s *scan) run(ctx context.Context, statusID int) bool {
	var list listing
	for page := 1; ; page++ {
		// If fewer payments are missing than pages were read, detail-transaction costs at
		// most as many requests as were already made, however far down the list they are.
		if !s.full && s.missing < page && !s.noDetail && s.askDetails(ctx) {
			return true
		}
		p, answer, ok := s.readPage(ctx, &list, statusID, page)
		if !ok {
			return false
		}
		switch {
		case s.missing == 0:
			return true
		case !s.full && list.ordered && s.allNewerThan(list.oldest):
			// The remaining rows are older than all missing payments, if AM's ids grow.
			// That is not certain, so the absence is not conclusive.
			answer.Absent = statusID == allStatuses && list.readable && list.firstTotal > 0 && list.lastTotal >= list.firstTotal
			s.setMissing(answer, false)
			return true
		case len(p.Rows) == 0, p.TotalPage > 0 && page >= p.TotalPage: // the end of the list
			if statusID == allStatuses && !s.rereadFirstPages(ctx, &list) {
				return false
			}
			answer.Absent = statusID == allStatuses && list.complete()
			s.setMissing(answer, answer.Absent)
			return true
		case list.newRows == 0: // AM repeats a page: there is no end to wait for
			s.setMissing(answer, false)
			return true
		}
	}
}

// rereadFirstPages reads the first pages again if the total changed during the scan: rows
// that were added are on the first pages. It stops when the list is complete or no new row
// appears. It returns false if AM could not be asked to the end.
func (s *scan) rereadFirstPages(ctx context.Context, list *listing) bool {
	for range maxRereads {
		if !list.readable || list.lastTotal == 0 || list.complete() {
			return true
		}
		before := len(list.rows)
		list.firstTotal = list.lastTotal
		for page := 1; page == 1 || list.newRows > 0 && !list.complete(); page++ {
			if _, _, ok := s.readPage(ctx, list, allStatuses, page); !ok {
				return false
			}
		}
		if len(list.rows) == before {
			return true
		}
	}
	return true
}

// readPage reads one page and notes its rows. It returns false if AM returned no page; the
// findings of the missing payments are then set.
func (s *scan) readPage(ctx context.Context, list *listing, statusID, number int) (p amdigipay.Page, answer clients.Answer, ok bool) {
	query := amdigipay.ListQuery{StatusID: statusID, Limit: s.asker.Limit, Page: number}
	answer, err := s.request(ctx, func() (answer clients.Answer) {
		p, answer = s.asker.Client.List(ctx, query)
		return answer
	})
	switch {
	case err != nil:
		s.err = err
		return p, answer, false
	case answer.Code != retrypolicy.HTTPCode(200):
		s.setMissing(answer, false)
		return p, answer, false
	}
	list.add(p)
	for _, r := range p.Rows {
		i, isWanted := s.index[r.TransactionID]
		switch {
		case isWanted:
			s.noteRow(i, r, answer)
		case r.Unquoted && s.numericIDs[clients.ParseNumber(r.TransactionID)]:
			list.readable = false // it may be a wanted payment
		}
	}
	return p, answer, true
}

// noteRow sets the finding of payment i from one of its rows. If AM's id of the payment is
// known, a row with another id is ignored.
func (s *scan) noteRow(i int, r amdigipay.Row, answer clients.Answer) {
	known, f := s.wanted[i].GatewayReference, &s.findings[i]
	if known != "" && r.Reference != "" && r.Reference != known {
		return
	}
	first := !s.seen[i]
	s.seen[i] = true
	if earlier := s.references[i]; earlier != "" && r.Reference != "" && earlier != r.Reference {
		f.Duplicate = fmt.Sprintf("the gateway has it twice, as %.80s and as %.80s", earlier, r.Reference)
	}
	if s.references[i] == "" {
		s.references[i] = r.Reference
	}
	switch {
	case r.Unreadable == "" && (f.Answer.Receipt == nil || f.Duplicate == ""):
		answer.Receipt = &r.Receipt
		f.Answer = answer
	case r.Unreadable != "" && first: // AM has the payment, but its status is unknown
		answer.Code = retrypolicy.CodeUnreadable
		answer.Err = &clients.Error{
			Gateway: payment.AMDigiPay, Operation: "list-transaction", Code: answer.Code, HTTPStatus: answer.HTTPStatus,
			Detail: "malformed row: " + r.Unreadable,
		}
		f.Answer = answer
	}
	if f.Duplicate != "" && f.Answer.Receipt != nil {
		f.Answer.Receipt.Reference = "" // it is unknown which of the two is the payment
	}
	if first && s.done(i) {
		s.missing--
	}
}

// done reports whether payment i need not be looked for any further. A payment in review
// without a known id of AM's may be in the list twice, so all of its rows are read.
func (s *scan) done(i int) bool {
	r := s.wanted[i]
	return s.seen[i] && (r.Status != payment.NeedsReview || r.GatewayReference != "")
}

// setMissing sets the findings of the payments without a row to the scan's last answer.
func (s *scan) setMissing(answer clients.Answer, conclusive bool) {
	for i := range s.findings {
		if !s.seen[i] {
			s.findings[i].Answer, s.findings[i].Conclusive = answer, conclusive
		}
	}
}

// askDetails asks for each missing payment by AM's id, with detail-transaction. It returns
// false, perhaps with some payments still missing, if one of them has no known id or an
// answer does not contain the payment. Then only the list can help.
func (s *scan) askDetails(ctx context.Context) bool {
	for i, r := range s.wanted {
		if !s.done(i) && r.GatewayReference == "" {
			return false
		}
	}
	for i, r := range s.wanted {
		if s.done(i) {
			continue
		}
		answer, err := s.request(ctx, func() clients.Answer {
			return s.asker.Client.Detail(ctx, r.GatewayReference)
		})
		if err != nil || answer.Receipt == nil || answer.Receipt.TransactionID != "" && answer.Receipt.TransactionID != r.TransactionID {
			s.noDetail = true
			return false
		}
		s.findings[i].Answer, s.seen[i] = answer, true
		s.missing--
	}
	return true
}

// request sends one request. If AM refuses the access token, it repeats the request with a
// new one.
func (s *scan) request(ctx context.Context, send func() clients.Answer) (clients.Answer, error) {
	answer, err := s.asker.Admission.Lookup(ctx, s.asker.Client, send)
	if err == nil && s.asker.Policy.Decide(payment.AMDigiPay, answer.Code, answer.Message, 1, 0).NewLogin {
		s.asker.Client.DropToken(answer.Token)
		answer, err = s.asker.Admission.Lookup(ctx, s.asker.Client, send)
	}
	return answer, err
}

// allNewerThan reports whether the rows of all missing payments must have an id above the
// given one. A payment's id is known, or its lowest possible id is: the highest id of
// another payment before it was sent.
func (s *scan) allNewerThan(id int64) bool {
	for i, r := range s.wanted {
		if s.done(i) {
			continue
		}
		lowest := r.LowestID + 1
		if known, err := strconv.ParseInt(r.GatewayReference, 10, 64); err == nil {
			lowest = known
		}
		if lowest <= id || lowest == 1 { // 1: nothing is known
			return false
		}
	}
	return true
}
