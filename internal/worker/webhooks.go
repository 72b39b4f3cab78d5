package worker

import (
	"time"

	"terbayar/internal/config"
	"terbayar/internal/ledger"
	"terbayar/internal/webhooks"
)

// webhookOptions returns the options of the settings; false if there are no endpoints.
func webhookOptions(cfg Config) (o webhooks.Options, enabled bool, err error) {
	if !cfg.Webhooks.Enabled() {
		return o, false, nil
	}
	if err = o.Schedule.UnmarshalText([]byte(cfg.Webhooks.Schedule)); err != nil {
		return o, false, config.Wrong("WEBHOOK_SCHEDULE", err)
	}
	if o.Allow, err = webhooks.ParseAllow(cfg.Webhooks.Allow); err != nil {
		return o, false, config.Wrong("WEBHOOK_ALLOW", err)
	}
	if cfg.Webhooks.File != "" {
		if o.Endpoints, err = webhooks.Load(cfg.Webhooks.File); err != nil {
			return o, false, config.Wrong("WEBHOOKS_FILE", err)
		}
	} else {
		u, err := webhooks.ParseURL(cfg.Webhooks.URL.Reveal())
		if err != nil {
			return o, false, config.Wrong("WEBHOOK_URL", err)
		}
		endpoint, err := webhooks.NewEndpoint(u, cfg.Webhooks.Secret)
		if err != nil {
			return o, false, config.Wrong("WEBHOOK_SECRET", err)
		}
		o.Endpoints = []*webhooks.Endpoint{endpoint}
	}
	return o, true, nil
}

// newDeliverer returns nil if there are no endpoints.
func (w *Worker) newDeliverer() (*webhooks.Deliverer, error) {
	o, enabled, err := webhookOptions(w.cfg)
	if !enabled || err != nil {
		return nil, err
	}
	o.Redis, o.Streams = w.redis, ledger.StreamNames(w.cfg.Events.Stream, w.cfg.Ledger.Partitions)
	o.Retention = time.Duration(w.cfg.Retention.Events)
	o.Now, o.Log, o.Metrics = time.Now, w.log, w.metrics
	return webhooks.New(o), nil
}
