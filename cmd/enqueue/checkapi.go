package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"terbayar/internal/config"
)

var errCheckFailed = errors.New("the check has failed")

type checkAPICmd struct {
	URL      string        `arg:"" help:"The URL of the HTTP API, as order systems have it."`
	Insecure bool          `help:"Do not verify the TLS certificate."`
	Timeout  time.Duration `default:"10s" help:"How long to try again when there is no answer."`
}

// Help is shown below the one-line help.
func (c *checkAPICmd) Help() string {
	return `It sends no API key and submits nothing. It checks that /openapi.json is answered, that a payment cannot be read without a
key, and that /metrics and the pages of the workers cannot be reached at this URL: see SERVE_METRICS_ADDR.`
}

// run sends the requests and writes a line for each.
func (c *checkAPICmd) run(ctx context.Context, out io.Writer) error {
	base, err := url.Parse(c.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return config.Invalid(errors.New("URL must be an http or https URL"))
	}
	client := &http.Client{
		Timeout:       5 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: c.Insecure}}, //nolint:gosec // G402: a flag, and nothing secret is sent
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	failed := false
	deadline := time.Now().Add(c.Timeout)
	for _, check := range []struct {
		path   string
		status int
		wrong  string
	}{
		{"/openapi.json", http.StatusOK, "the HTTP API does not answer here"},
		{"/v1/payments/paydia/check-api", http.StatusUnauthorized, "a request without a key must be answered 401"},
		{"/metrics", http.StatusNotFound, "order systems can read the metrics: set SERVE_METRICS_ADDR"},
		{"/monitoring/", http.StatusNotFound, "the pages of the workers must not be on this host"},
		{"/payments/", http.StatusNotFound, "the pages of the workers must not be on this host"},
	} {
		status, err := get(ctx, client, base.JoinPath(check.path).String(), check.path == "/openapi.json", deadline)
		switch {
		case err != nil:
			fmt.Fprintf(out, "FAILED  GET %s: %v\n", check.path, err)
			return errCheckFailed
		case status != check.status:
			fmt.Fprintf(out, "FAILED  GET %s: %d, not %d: %s\n", check.path, status, check.status, check.wrong)
			failed = true
		default:
			fmt.Fprintf(out, "ok      GET %s: %d\n", check.path, status)
		}
	}
	if failed {
		return errCheckFailed
	}
	return nil
}

// get returns the status of the answer. It tries again until the deadline while there is none, or
// a proxy reports that.
func get(ctx context.Context, client *http.Client, address string, isOpenAPI bool, deadline time.Time) (int, error) {
	for {
		status, err := getOnce(ctx, client, address, isOpenAPI)
		noAnswer := err != nil || status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
		if !noAnswer || time.Now().After(deadline) || ctx.Err() != nil {
			return status, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func getOnce(ctx context.Context, client *http.Client, address string, isOpenAPI bool) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, err
	}
	res, err := client.Do(r)
	if err != nil {
		if urlErr, ok := errors.AsType[*url.Error](err); ok {
			err = urlErr.Err
		}
		return 0, err
	}
	defer res.Body.Close()
	if isOpenAPI && res.StatusCode == http.StatusOK {
		var document struct{ OpenAPI string }
		if err := json.NewDecoder(io.LimitReader(res.Body, 10<<20)).Decode(&document); err != nil || !strings.HasPrefix(document.OpenAPI, "3.") {
			return 0, errors.New("the answer is not an OpenAPI document")
		}
	}
	return res.StatusCode, nil
}
