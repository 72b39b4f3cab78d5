package worker

import (
	"net/http"
	"time"

	"terbayar/internal/admission"
	"terbayar/internal/clients"
	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/clients/paydia"
	"terbayar/internal/config"
	"terbayar/internal/payment"
	"terbayar/internal/refusals"
	"terbayar/internal/statuspoll"
	"terbayar/internal/submit"
)

// addAMDigiPay adds AM Digital Payment to the submitter and the poller, if it has
// credentials.
func (w *Worker) addAMDigiPay(submitter *submit.Submitter, poller *statuspoll.Poller) error {
	if !w.cfg.AMDigiPay.Enabled() {
		return nil
	}
	const g = payment.AMDigiPay
	client, err := amdigipayClient(w.cfg, w.metrics.Transport(g, clients.NewTransport()))
	if err != nil {
		return err
	}
	w.gateways = append(w.gateways, g)
	w.admission[g] = w.newAdmission(g, w.cfg.AMDigiPay.RateLimit)
	submitter.Gateways[g] = client
	poller.Askers[g] = &statuspoll.ListAsker{
		Client: client, Admission: w.admission[g], Policy: poller.Policy, Limit: w.cfg.AMDigiPay.ListLimit,
	}
	return nil
}

// addPaydia adds Paydia to the submitter and the poller, if it has credentials.
func (w *Worker) addPaydia(submitter *submit.Submitter, poller *statuspoll.Poller) error {
	if !w.cfg.Paydia.Enabled() {
		return nil
	}
	const g = payment.Paydia
	client, err := paydiaClient(w.cfg, w.metrics.Transport(g, clients.NewTransport()))
	if err != nil {
		return err
	}
	w.gateways = append(w.gateways, g)
	w.admission[g] = w.newAdmission(g, w.cfg.Paydia.RateLimit)
	submitter.Gateways[g] = client
	poller.Askers[g] = &statuspoll.QueryAsker{
		Client: client, Admission: w.admission[g], Policy: poller.Policy, Cipher: w.cipher, Now: time.Now,
		// Half as many as submits: the payments that a crashed worker had in flight are
		// looked up in two rounds.
		Concurrency: (w.cfg.Worker.Concurrency + 1) / 2,
	}
	return nil
}

func (w *Worker) newAdmission(g payment.Gateway, limit config.Rate) *admission.Controller {
	return admission.New(admission.Options{
		Gateway: g, Failures: w.cfg.Worker.BreakerFailures, Pause: w.cfg.Worker.BreakerPause,
		Requests: limit.Requests, Per: limit.Per, Redis: w.redis,
		Refusals: refusals.New(refusals.Options{
			Gateway: g, Limit: w.cfg.Worker.Refusals, Redis: w.redis, Accepted: w.ledger.Accepted,
			Now: time.Now, Log: w.log, OnPaused: func(paused bool) { w.metrics.Paused(g, paused) },
		}),
		Now: time.Now, Log: w.log, OnState: func(state int) { w.metrics.Breaker(g, state) },
		OnLogin: func(err error) { w.logins.report(g, err) },
	})
}

func amdigipayClient(cfg Config, transport http.RoundTripper) (*amdigipay.Client, error) {
	statusMap, err := amdigipay.ParseStatusMap(cfg.AMDigiPay.StatusMap)
	if err != nil {
		return nil, config.Wrong("AMDIGIPAY_STATUS_MAP", err)
	}
	a := cfg.AMDigiPay
	client, err := amdigipay.New(amdigipay.Options{
		BaseURL: a.BaseURL, Username: a.Username, Password: a.Password,
		SignatureScheme: a.SignatureScheme, SignatureKey: a.SignatureKey, SignatureFields: a.SignatureFields,
		LoginEncoding: a.LoginEncoding, ListMethod: a.ListMethod, StatusMap: statusMap,
		Timeout: cfg.Worker.GatewayTimeout, Transport: transport, Now: time.Now,
	})
	if err != nil {
		return nil, config.Invalid(err)
	}
	return client, nil
}

func paydiaClient(cfg Config, transport http.RoundTripper) (*paydia.Client, error) {
	key, err := cfg.Paydia.Key()
	if err != nil {
		return nil, err
	}
	p := cfg.Paydia
	client, err := paydia.New(paydia.Options{
		BaseURL: p.BaseURL, ClientID: p.ClientID, ClientSecret: p.ClientSecret, PrivateKey: key, ChannelID: p.ChannelID,
		CustomerTokenPrefix: p.CustomerTokenPrefix, SendEmptyReference: p.QueryEmptyReference,
		Timeout: cfg.Worker.GatewayTimeout, Transport: transport, Now: time.Now,
	})
	if err != nil {
		return nil, config.Invalid(err)
	}
	return client, nil
}
