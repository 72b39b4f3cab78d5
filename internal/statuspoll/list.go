package statuspoll

import (
	"context"
	"fmt"
	"strconv"

	"terbayar/internal/clients"
	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/gate"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

// ListAsker asks AM Digital Payment. Its list-transaction has no filter by our
// reference, so one walk through the list serves every payment that is looked
// for, and ends as soon as all of them were seen.
type ListAsker struct {
	Client *amdigipay.Client
	Gate   *gate.Gate // nil: AM may always be asked
	Policy *retrypolicy.Policy
	Limit  int // rows a page
}

// Together implements Asker.
func (a *ListAsker) Together() bool { return true }

// Round implements Asker. One walk serves all, so as many as memory bears.
func (a *ListAsker) Round() int { return 5000 }

// statusOnProcessing is AM's "On processing" (List Transaction, response).
const statusOnProcessing = 2

// Ask implements Asker. Payments known to be open are most cheaply found among
// AM's open ones; whoever is not there has moved on, or was never known to be
// there, and is looked for in the whole list, from its newest row on.
//
// The short cuts - the filter, and not to read on behind the rows that can still
// be wanted - believe what the gateway's answers look like. To prove that it
// knows no such payment the whole list is read to its end.
func (a *ListAsker) Ask(ctx context.Context, wanted []*ledger.Record, prove bool) ([]Finding, error) {
	w := newWalk(a, wanted)
	w.prove = prove
	if !prove && w.anyOpen() && !w.run(ctx, statusOnProcessing) {
		return w.findings, w.err
	}
	if w.missing > 0 {
		w.run(ctx, 0)
	}
	return w.findings, w.err
}

// walk is one poll's way through the list.
type walk struct {
	asker    *ListAsker
	wanted   []*ledger.Record
	findings []Finding
	index    map[string]int // of wanted and findings, by transaction id
	missing  int            // how many were not seen yet
	noDetail bool           // AM has not answered when asked for a single one
	prove    bool           // no short cut
	err      error          // why AM could not be asked any further
}

func newWalk(a *ListAsker, wanted []*ledger.Record) *walk {
	w := &walk{
		asker: a, wanted: wanted, findings: make([]Finding, len(wanted)),
		index: make(map[string]int, len(wanted)), missing: len(wanted),
	}
	for i, r := range wanted {
		w.index[r.TransactionID] = i
	}
	return w
}

// anyOpen reports whether any of the wanted is known to be open at AM.
func (w *walk) anyOpen() bool {
	for _, r := range w.wanted {
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

// run reads the list, or the part of it in one status, page by page until all
// wanted were seen or the list ends, and notes for the missing what that means.
// It reports false when the gateway would not let it go on.
func (w *walk) run(ctx context.Context, statusID int) bool {
	var (
		first    = -1 // total_found of the first page
		seen     = make(map[row]bool)
		readable = true // every row so far could be read
		ordered  = true // newest first, as far as was seen
		oldest   = int64(0)
	)
	for page := 1; ; page++ {
		// Once no more are missing than pages were read, and all are known by AM's
		// id, asking for them one by one costs no more than was spent already,
		// however deep in the list they stand.
		if !w.prove && w.missing < page && !w.noDetail && w.askEach(ctx) {
			return true
		}
		p, answer, err := w.page(ctx, amdigipay.ListQuery{StatusID: statusID, Limit: w.asker.Limit, Page: page})
		if err != nil {
			w.err = err
			return false
		}
		if answer.Code != retrypolicy.HTTPCode(200) {
			w.conclude(answer, false)
			return false
		}
		if first < 0 {
			first = p.TotalFound
		}
		news := 0
		for _, r := range p.Rows {
			readable = readable && r.TransactionID != ""
			if key := (row{r.ID, r.TransactionID}); !seen[key] {
				seen[key] = true
				news++
				ordered = ordered && r.ID > 0 && (oldest == 0 || r.ID < oldest)
				oldest = r.ID
			}
			w.see(r, answer)
		}
		switch {
		case w.missing == 0:
			return true
		case !w.prove && ordered && w.allNewerThan(oldest):
			// The rest of the list is older than all that is missing: AM has given out
			// higher ids since. Whether it counts that way, the next proof will tell.
			answer.Absent = statusID == 0 && readable && p.TotalFound >= first
			w.conclude(answer, false)
			return true
		case len(p.Rows) == 0, p.TotalPage > 0 && page >= p.TotalPage:
			// New rows push known ones onto later pages, so that nothing is missed;
			// rows that leave the list pull unread ones onto pages already read. The
			// count tells: who saw as many as there were at the start saw them all.
			answer.Absent = statusID == 0 && readable && len(seen) >= first
			w.conclude(answer, answer.Absent)
			return true
		case news == 0:
			w.conclude(answer, false) // the list does not move on
			return true
		}
	}
}

// askEach asks for each of the missing by its id. It reports false, with some
// perhaps still missing, when not all of them have one or AM gives no answer:
// then only the list can tell.
func (w *walk) askEach(ctx context.Context) bool {
	for i, f := range w.findings {
		if f.Answer.Receipt == nil && w.wanted[i].GatewayReference == "" {
			return false
		}
	}
	for i, f := range w.findings {
		if f.Answer.Receipt != nil {
			continue
		}
		answer, err := w.ask(ctx, func() clients.Answer {
			return w.asker.Client.Detail(ctx, w.wanted[i].GatewayReference)
		})
		if err != nil || answer.Receipt == nil {
			w.noDetail = true
			return false
		}
		w.findings[i].Answer = answer
		w.missing--
	}
	return true
}

// page reads one page.
func (w *walk) page(ctx context.Context, q amdigipay.ListQuery) (p amdigipay.Page, answer clients.Answer, err error) {
	answer, err = w.ask(ctx, func() (answer clients.Answer) {
		p, answer = w.asker.Client.List(ctx, q)
		return answer
	})
	return p, answer, err
}

// ask asks AM, and once more with a new token where it does not take us for who we
// are, in whatever words.
func (w *walk) ask(ctx context.Context, question func() clients.Answer) (clients.Answer, error) {
	answer, err := w.asker.Gate.Ask(ctx, w.asker.Client, question)
	if err == nil && w.asker.Policy.Decide(payment.AMDigiPay, answer.Code, answer.Message, 1, 0).NewLogin {
		w.asker.Client.DropToken(answer.Token)
		answer, err = w.asker.Gate.Ask(ctx, w.asker.Client, question)
	}
	return answer, err
}

// see notes a row if it is one of the wanted. A payment whose gateway reference
// is known is that row and no other.
func (w *walk) see(r amdigipay.Row, answer clients.Answer) {
	i, ok := w.index[r.TransactionID]
	if !ok {
		return
	}
	known := w.wanted[i].GatewayReference
	if known != "" && r.Reference != "" && r.Reference != known {
		return
	}
	switch earlier := w.findings[i].Answer.Receipt; {
	case earlier == nil:
		w.missing--
	case earlier.Reference != r.Reference:
		w.findings[i].Twice = fmt.Sprintf("the gateway has it twice, as %s and as %s", earlier.Reference, r.Reference)
		return
	}
	answer.Receipt = &r.Receipt
	w.findings[i].Answer = answer
}

// conclude gives the missing the answer that the walk ended with.
func (w *walk) conclude(answer clients.Answer, proven bool) {
	for i := range w.findings {
		if w.findings[i].Answer.Receipt == nil {
			w.findings[i].Answer, w.findings[i].Proven = answer, proven
		}
	}
}

// allNewerThan reports whether every missing payment's row must be newer than
// the given id: because its id is known, or because that of another payment was
// known to be as high before it was sent.
func (w *walk) allNewerThan(id int64) bool {
	for i, f := range w.findings {
		if f.Answer.Receipt != nil {
			continue
		}
		least := w.wanted[i].Floor + 1
		if known, err := strconv.ParseInt(w.wanted[i].GatewayReference, 10, 64); err == nil {
			least = known
		}
		if least <= id || least == 1 {
			return false
		}
	}
	return true
}
