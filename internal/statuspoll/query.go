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

// QueryAsker looks up payments at Paydia: one payment query (SNAP service 64) per payment,
// several in parallel.
type QueryAsker struct {
	Client      *paydia.Client
	Admission   *admission.Controller // nil: no limit
	Policy      *retrypolicy.Policy
	Cipher      *secret.Cipher
	Concurrency int // maximum number of queries in flight
	Now         func() time.Time
}

// Ready implements Asker.
func (a *QueryAsker) Ready(ctx context.Context) error { return a.Admission.Ready(ctx, a.Client) }

// Shared implements Asker.
func (a *QueryAsker) Shared() bool { return false }

// RoundSize implements Asker. Rounds are small because every payment costs a request: the
// answers are recorded at the end of a round, so a worker that is killed loses those of
// one round, and other workers can take payments at the same time.
func (a *QueryAsker) RoundSize() int { return 2 * a.Concurrency }

// Ask implements Asker. A query names its payment, so every answer is conclusive without a
// full scan.
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

// query looks up one payment. If Paydia refuses the access token, it repeats the query with
// a new one.
func (a *QueryAsker) query(ctx context.Context, r *ledger.Record) (Finding, error) {
	token, err := a.Cipher.Decrypt(r.EncryptedToken, r.Key().String())
	if err != nil {
		return Finding{Answer: clients.Answer{
			Code: retrypolicy.CodeUndecryptable, At: a.Now(),
			Err: errors.Join(errors.New("the customer token cannot be decrypted"), err),
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
