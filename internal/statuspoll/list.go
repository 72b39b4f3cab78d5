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

// ListAsker asks AM Digital Payment. Its list-transaction has no filter by our
// reference, so one scan of the list serves every payment that is looked for, and
// ends as soon as all of them were seen.
type ListAsker struct {
	Client    *amdigipay.Client
	Admission *admission.Controller // nil: AM may always be asked
	Policy    *retrypolicy.Policy
	Limit     int // rows a page
}

// Ready implements Asker.
func (a *ListAsker) Ready(ctx context.Context) error { return a.Admission.Ready(ctx, a.Client) }

// Together implements Asker.
func (a *ListAsker) Together() bool { return true }

// Round implements Asker. One scan serves all, so as many as memory bears.
func (a *ListAsker) Round() int { return 5000 }

const (
	// statusOnProcessing is AM's "On processing" (List Transaction, response).
	statusOnProcessing = 2
	// maxCatchUps is how often a scan goes back to the first page for rows that
	// came while it was reading.
	maxCatchUps = 3
)

// Ask implements Asker. Payments known to be open are most cheaply found among
// AM's open ones; whoever is not there has moved on, or was never known to be
// there, and is looked for in the whole list, from its newest row on.
//
// The short cuts - the filter, detail-transaction, and not to read on behind the
// rows that can still be wanted - believe what the gateway's answers look like. A
// full scan takes none and reads the whole list to its end: only that can prove
// that AM has no such payment.
func (a *ListAsker) Ask(ctx context.Context, wanted []*ledger.Record, fullScan bool) ([]Finding, error) {
	s := newScan(a, wanted)
	s.full = fullScan
	if !fullScan && s.anyOpen() && !s.read(ctx, statusOnProcessing) {
		return s.findings, s.err
	}
	if s.missing > 0 {
		s.read(ctx, 0)
	}
	return s.findings, s.err
}

// scan looks for the wanted payments in the list.
type scan struct {
	asker     *ListAsker
	wanted    []*ledger.Record
	findings  []Finding
	index     map[string]int // of wanted and findings, by transaction id
	seen      []bool         // whether a row of it was seen
	reference []string       // of the row that was seen; empty when it was not told
	missing   int            // how many are still looked for
	full      bool           // no short cut
	noDetail  bool           // AM has not answered when asked for a single one
	err       error          // why AM could not be asked any further

	// otherwise are the wanted ids that are numbers, by their value: a service that
	// drops the quotes of "0123" writes 123.
	otherwise map[clients.Number]bool
}

func newScan(a *ListAsker, wanted []*ledger.Record) *scan {
	s := &scan{
		asker: a, wanted: wanted, findings: make([]Finding, len(wanted)),
		index: make(map[string]int, len(wanted)), seen: make([]bool, len(wanted)),
		reference: make([]string, len(wanted)), missing: len(wanted), otherwise: make(map[clients.Number]bool),
	}
	for i, r := range wanted {
		s.index[r.TransactionID] = i
		if n := clients.ParseNumber(r.TransactionID); !n.Unreadable() {
			s.otherwise[n] = true
		}
	}
	return s
}

// anyOpen reports whether any of the wanted is known to be open at AM.
func (s *scan) anyOpen() bool {
	for _, r := range s.wanted {
		if r.Status == payment.OnProcessing || r.Status == payment.Expired {
			return true
		}
	}
	return false
}

// row is what tells one row of the list from another.
type row struct {
	id            int64
	transactionID string
}

// listing is what the pages read so far show of the list.
type listing struct {
	rows        map[row]bool // the distinct ones
	readable    bool         // every row could be read, and names one payment
	ordered     bool         // newest first
	oldest      int64        // id of the last new row
	first, last int          // total_found at the beginning, and of the latest page; 0 when not told
	news        int          // how many rows of the latest page were new
}

// add notes a page.
func (l *listing) add(p amdigipay.Page) {
	if l.rows == nil {
		*l = listing{rows: make(map[row]bool), readable: true, ordered: true, first: p.TotalFound}
	}
	l.last, l.news = p.TotalFound, 0
	for _, r := range p.Rows {
		l.readable = l.readable && r.Unreadable == ""
		key := row{r.ID, r.TransactionID}
		if l.rows[key] {
			continue
		}
		l.rows[key] = true
		l.news++
		l.ordered = l.ordered && r.ID > 0 && (l.oldest == 0 || r.ID < l.oldest)
		l.oldest = r.ID
	}
}

// whole reports whether every row of the list was read. AM's count tells: it must
// be the same at both ends of the scan, or rows may have moved past the reader,
// and there must be as many distinct rows as it says. A count of 0 proves nothing:
// it is also what an answer without a count comes to. So nothing is ever proven of
// an account that has no transaction at all; there the lookups run out.
func (l *listing) whole() bool {
	return l.readable && l.first > 0 && l.first == l.last && len(l.rows) == l.last
}

// read reads the list, or the part of it in one status, page by page until all
// wanted were seen or the list ends, and notes for the missing what that means.
// It reports false when the gateway would not let it go on.
func (s *scan) read(ctx context.Context, statusID int) bool {
	var list listing
	for page := 1; ; page++ {
		// Once no more are missing than pages were read, and all are known by AM's
		// id, asking for them one by one costs no more than was spent already,
		// however deep in the list they stand.
		if !s.full && s.missing < page && !s.noDetail && s.askEach(ctx) {
			return true
		}
		p, answer, ok := s.page(ctx, &list, statusID, page)
		if !ok {
			return false
		}
		switch {
		case s.missing == 0:
			return true
		case !s.full && list.ordered && s.allNewerThan(list.oldest):
			// The rest of the list is older than all that is missing: AM has given out
			// higher ids since. Whether it counts that way, the next full scan will tell.
			answer.Absent = statusID == 0 && list.readable && list.first > 0 && list.last >= list.first
			s.conclude(answer, false)
			return true
		case len(p.Rows) == 0, p.TotalPage > 0 && page >= p.TotalPage:
			if statusID == 0 && !s.catchUp(ctx, &list) {
				return false
			}
			answer.Absent = statusID == 0 && list.whole()
			s.conclude(answer, answer.Absent)
			return true
		case list.news == 0:
			s.conclude(answer, false) // the list does not move on
			return true
		}
	}
}

// catchUp asks again where the count has changed while the list was read: the rows
// that came stand on its first pages, which are read until nothing is new. It
// reports false when the gateway would not let it go on.
func (s *scan) catchUp(ctx context.Context, list *listing) bool {
	for range maxCatchUps {
		if !list.readable || list.last == 0 || list.whole() {
			return true
		}
		before := len(list.rows)
		list.first = list.last
		for page := 1; page == 1 || list.news > 0 && !list.whole(); page++ {
			if _, _, ok := s.page(ctx, list, 0, page); !ok {
				return false
			}
		}
		if len(list.rows) == before {
			return true // what is missing is not among the new ones
		}
	}
	return true
}

// page reads one page, with a new token if the gateway wants one, and notes what
// is on it. It reports false when the gateway gave none, and what that means for
// the missing is noted.
func (s *scan) page(ctx context.Context, list *listing, statusID, number int) (p amdigipay.Page, answer clients.Answer, ok bool) {
	query := amdigipay.ListQuery{StatusID: statusID, Limit: s.asker.Limit, Page: number}
	answer, err := s.ask(ctx, func() (answer clients.Answer) {
		p, answer = s.asker.Client.List(ctx, query)
		return answer
	})
	switch {
	case err != nil:
		s.err = err
		return p, answer, false
	case answer.Code != retrypolicy.HTTPCode(200):
		s.conclude(answer, false)
		return p, answer, false
	}
	list.add(p)
	for _, r := range p.Rows {
		i, ours := s.index[r.TransactionID]
		switch {
		case ours:
			s.see(i, r, answer)
		case r.Bare && s.otherwise[clients.ParseNumber(r.TransactionID)]:
			list.readable = false // it may be the one that is wanted
		}
	}
	return p, answer, true
}

// see notes a row of a wanted payment. A payment whose gateway reference is known
// is that row and no other.
func (s *scan) see(i int, r amdigipay.Row, answer clients.Answer) {
	known, f := s.wanted[i].GatewayReference, &s.findings[i]
	if known != "" && r.Reference != "" && r.Reference != known {
		return
	}
	first := !s.seen[i]
	s.seen[i] = true
	if earlier := s.reference[i]; earlier != "" && r.Reference != "" && earlier != r.Reference {
		f.Duplicate = fmt.Sprintf("the gateway has it twice, as %.80s and as %.80s", earlier, r.Reference)
	}
	if s.reference[i] == "" {
		s.reference[i] = r.Reference
	}
	switch {
	case r.Unreadable == "" && (f.Answer.Receipt == nil || f.Duplicate == ""):
		answer.Receipt = &r.Receipt
		f.Answer = answer
	case r.Unreadable != "" && first:
		// It is there, so it is not absent; and that is all.
		answer.Code = retrypolicy.CodeUnreadable
		answer.Err = &clients.Error{
			Gateway: payment.AMDigiPay, Operation: "list-transaction", Code: answer.Code, HTTPStatus: answer.HTTPStatus,
			Detail: "its row in the list: " + r.Unreadable,
		}
		f.Answer = answer
	}
	if f.Duplicate != "" && f.Answer.Receipt != nil {
		f.Answer.Receipt.Reference = "" // which of the two is the payment, nobody knows
	}
	if first && s.done(i) {
		s.missing--
	}
}

// done reports whether a payment need not be looked for any further. One in review
// of which no reference is known may be there twice: all of its rows are wanted.
func (s *scan) done(i int) bool {
	r := s.wanted[i]
	return s.seen[i] && (r.Status != payment.NeedsReview || r.GatewayReference != "")
}

// conclude gives those of whom no row was seen the answer that the scan ended with.
func (s *scan) conclude(answer clients.Answer, proven bool) {
	for i := range s.findings {
		if !s.seen[i] {
			s.findings[i].Answer, s.findings[i].Conclusive = answer, proven
		}
	}
}

// askEach asks for each of the missing by its id. It reports false, with some
// perhaps still missing, when not all of them have one or AM gives no answer that
// is about them: then only the list can tell.
func (s *scan) askEach(ctx context.Context) bool {
	for i, r := range s.wanted {
		if !s.done(i) && r.GatewayReference == "" {
			return false
		}
	}
	for i, r := range s.wanted {
		if s.done(i) {
			continue
		}
		answer, err := s.ask(ctx, func() clients.Answer {
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

// ask asks AM, and once more with a new token where it does not take us for who we
// are, in whatever words.
func (s *scan) ask(ctx context.Context, question func() clients.Answer) (clients.Answer, error) {
	answer, err := s.asker.Admission.Lookup(ctx, s.asker.Client, question)
	if err == nil && s.asker.Policy.Decide(payment.AMDigiPay, answer.Code, answer.Message, 1, 0).NewLogin {
		s.asker.Client.DropToken(answer.Token)
		answer, err = s.asker.Admission.Lookup(ctx, s.asker.Client, question)
	}
	return answer, err
}

// allNewerThan reports whether every missing payment's row must be newer than the
// given id: because its id is known, or because that of another payment was known
// to be as high before it was sent.
func (s *scan) allNewerThan(id int64) bool {
	for i, r := range s.wanted {
		if s.done(i) {
			continue
		}
		least := r.LowestID + 1
		if known, err := strconv.ParseInt(r.GatewayReference, 10, 64); err == nil {
			least = known
		}
		if least <= id || least == 1 {
			return false
		}
	}
	return true
}
