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

func TestServerMakesAKeyPair(t *testing.T) {
	s, err := NewServer(DefaultConfig(), ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(s.PrivateKey) == 0 || s.config.Paydia.PublicKey == nil {
		t.Error("no key pair was made")
	}
}

// TestServerClose: an answer that a fault holds back does not hold back Close.
func TestServerClose(t *testing.T) {
	config := DefaultConfig()
	config.Faults = []FaultRule{{Fault: FaultSlow, Operation: AMLogin, Delay: time.Hour}}
	s, err := NewServer(config, ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if res, err := http.Post(s.URL+"/api/login", "application/json", http.NoBody); err == nil {
			res.Body.Close()
		}
	}()
	for s.Requests(AMLogin) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-ended
}
