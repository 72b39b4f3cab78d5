package statuspoll

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"terbayar/internal/admission"
	"terbayar/internal/clients"
	"terbayar/internal/clients/paydia"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
	"terbayar/internal/secret"
)

// QueryAsker asks Paydia: one payment query (SNAP service 64) a payment, several
// side by side.
type QueryAsker struct {
	Client      *paydia.Client
	Admission   *admission.Controller // nil: Paydia may always be asked
	Policy      *retrypolicy.Policy
	Cipher      *secret.Cipher
	Concurrency int // so many queries are under way at the most
	Now         func() time.Time
}

// Ready implements Asker.
func (a *QueryAsker) Ready(ctx context.Context) error { return a.Admission.Ready(ctx, a.Client) }

// Together implements Asker.
func (a *QueryAsker) Together() bool { return false }

// Round implements Asker. Each payment is a request of its own, so few: the answers
// are recorded when a round ends, and a worker that is killed before that loses them;
// and other workers are to have their share.
func (a *QueryAsker) Round() int { return 2 * a.Concurrency }

// Ask implements Asker. A query names its payment, so there is no short cut to
// take.
func (a *QueryAsker) Ask(ctx context.Context, wanted []*ledger.Record, _ bool) ([]Finding, error) {
	findings := make([]Finding, len(wanted))
	var group errgroup.Group
	group.SetLimit(a.Concurrency)
	for i, r := range wanted {
		group.Go(func() (err error) {
			if ctx.Err() == nil {
				findings[i], err = a.query(ctx, r)
			}
			return err
		})
	}
	return findings, group.Wait()
}

// query asks about one payment, with a new token if the gateway wants one.
func (a *QueryAsker) query(ctx context.Context, r *ledger.Record) (Finding, error) {
	token, err := a.Cipher.Decrypt(r.EncryptedToken, r.Key().String())
	if err != nil {
		return Finding{Answer: clients.Answer{
			Code: retrypolicy.CodeUndecryptable, At: a.Now(),
			Err: errors.Join(errors.New("the customer token cannot be opened"), err),
		}}, nil
	}
	q := paydia.Query{
		Key: r.Key(), Reference: r.GatewayReference, MerchantID: r.MerchantID,
		CustomerToken: token, ExternalID: a.Client.NewExternalID(),
	}
	query := func() clients.Answer { return a.Client.Query(ctx, q) }
	answer, err := a.Admission.Lookup(ctx, a.Client, query)
	if err == nil && a.Policy.Decide(payment.Paydia, answer.Code, answer.Message, 1, 0).NewLogin {
		a.Client.DropToken(answer.Token)
		q.ExternalID = a.Client.NewExternalID()
		answer, err = a.Admission.Lookup(ctx, a.Client, query)
	}
	return Finding{Answer: answer, ExternalID: q.ExternalID, Conclusive: answer.Absent}, err
}
