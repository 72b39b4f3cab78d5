package gatewaysim

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestServer(t *testing.T) {
	private, _, err := NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	requests := 0
	s, err := NewServer(DefaultConfig(), ServerOptions{PrivateKey: private, Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			next.ServeHTTP(w, r)
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []Setting{
		{"AMDIGIPAY_BASE_URL", s.URL + "/api"},
		{"AMDIGIPAY_USERNAME", "SIMULATED1"},
		{"AMDIGIPAY_PASSWORD", "simulated-am-password"},
		{"AMDIGIPAY_SIGNATURE_SCHEME", SchemeSHA256},
		{"PAYDIA_BASE_URL", s.URL + "/snap/v1.0"},
		{"PAYDIA_CLIENT_ID", DefaultConfig().Paydia.ClientID},
		{"PAYDIA_CLIENT_SECRET", DefaultConfig().Paydia.ClientSecret},
		{"PAYDIA_PRIVATE_KEY", string(private)},
		{"PAYDIA_MERCHANT_ID", DefaultConfig().Paydia.MerchantID},
	}
	if diff := cmp.Diff(want, s.Settings()); diff != "" {
		t.Error(diff)
	}
	if flag := want[1].Flag(); flag != "--amdigipay-username=SIMULATED1" {
		t.Error(flag)
	}
	res, err := http.Get(s.URL + "/admin/summary")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK || requests != 1 {
		t.Errorf("status %d, %d requests", res.StatusCode, requests)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-s.Failed():
		t.Error(err)
	default:
	}
}

func TestServerGeneratesAKeyPair(t *testing.T) {
	s, err := NewServer(DefaultConfig(), ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(s.PrivateKey) == 0 || s.config.Paydia.PublicKey == nil {
		t.Error("no key pair was generated")
	}
}

// TestServerClose: Close sends an answer that a fault delays, without the delay.
func TestServerClose(t *testing.T) {
	config := DefaultConfig()
	config.Faults = []FaultRule{{Fault: FaultSlow, Operation: AMLogin, Delay: time.Hour}}
	s, err := NewServer(config, ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/api/login", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		res, err := http.DefaultTransport.RoundTrip(r) // a Client would follow the redirect
		if err != nil {
			t.Errorf("not answered: %v", err)
			return
		}
		res.Body.Close()
	}()
	for s.Requests(AMLogin) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}
