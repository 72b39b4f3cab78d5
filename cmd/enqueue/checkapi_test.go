package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestCheckAPI: check-api fails for each answer that an HTTP API must not give, says which, and
// sends nothing but GET requests without a key.
func TestCheckAPI(t *testing.T) {
	good := map[string]int{"/openapi.json": 200, "/v1/payments/paydia/check-api": 401}
	server := func(t *testing.T, change map[string]int, body string, tls bool) string {
		t.Helper()
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || r.Header.Get("Authorization") != "" {
				t.Errorf("%s %s", r.Method, r.Header)
			}
			status, ok := change[r.URL.Path]
			if !ok {
				status, ok = good[r.URL.Path]
			}
			if !ok {
				status = http.StatusNotFound
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
		s := httptest.NewUnstartedServer(handler)
		if tls {
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		return s.URL
	}
	const openAPI = `{"openapi":"3.1.0"}`
	for _, test := range []struct {
		name   string
		url    string
		flags  []string
		failed string // what the output contains
	}{
		{"as it should be", server(t, nil, openAPI, false), nil, ""},
		{"TLS, not verified", server(t, nil, openAPI, true), []string{"--insecure"}, ""},
		{"TLS, verified", server(t, nil, openAPI, true), nil, "certificate"},
		{"another server", server(t, nil, "<html>", false), nil, "not an OpenAPI document"},
		{"no keys", server(t, map[string]int{"/v1/payments/paydia/check-api": 403}, openAPI, false), nil, "GET /v1/payments/paydia/check-api: 403"},
		{"open to all", server(t, map[string]int{"/v1/payments/paydia/check-api": 404}, openAPI, false), nil, "GET /v1/payments/paydia/check-api: 404"},
		{"metrics", server(t, map[string]int{"/metrics": 200}, openAPI, false), nil, "SERVE_METRICS_ADDR"},
		{"web UI", server(t, map[string]int{"/monitoring/": 401}, openAPI, false), nil, "GET /monitoring/: 401"},
		{"pages of payments", server(t, map[string]int{"/payments/": 307}, openAPI, false), nil, "GET /payments/: 307"},
		{"nothing listens", "http://127.0.0.1:1", nil, "connection refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			args := append([]string{"check-api", "--timeout", "1ms", test.url}, test.flags...)
			err := run(t.Context(), args, nil, &out, io.Discard)
			if failed := test.failed != ""; errors.Is(err, errCheckFailed) != failed || failed == (err == nil) || strings.Contains(out.String(), "FAILED") != failed || !strings.Contains(out.String(), test.failed) {
				t.Errorf("%v\n%s", err, out.String())
			}
		})
	}
	if err := run(t.Context(), []string{"check-api", "127.0.0.1:8081"}, nil, io.Discard, io.Discard); exitCode(err) != exitUsage {
		t.Error(err)
	}
}

// TestCheckAPIWaits: it tries again while a server is not there yet.
func TestCheckAPIWaits(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case asked.Add(1) == 1:
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/openapi.json":
			_, _ = io.WriteString(w, `{"openapi":"3.1.0"}`)
		case strings.HasPrefix(r.URL.Path, "/v1/"):
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	if err := run(t.Context(), []string{"check-api", s.URL}, nil, io.Discard, io.Discard); err != nil {
		t.Error(err)
	}
}
