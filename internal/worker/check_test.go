package worker_test

import (
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/config"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/redistest"
	"terbayar/internal/secret"
	"terbayar/internal/worker"
)

// stage is what a check needs: a Redis, both gateways, and settings that are
// right for them.
type stage struct {
	redis *redistest.Process
	sim   *gatewaysim.Sim
	args  []string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	private, public, err := gatewaysim.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	cfg := gatewaysim.DefaultConfig()
	cfg.Paydia.PublicKey = public
	s := &stage{redis: redistest.Server(t), sim: gatewaysim.New(cfg, time.Now)}
	site := httptest.NewServer(s.sim.Handler())
	t.Cleanup(site.Close)
	s.args = []string{
		"--redis-url=" + s.redis.URL(),
		"--amdigipay-base-url=" + site.URL + "/api",
		"--amdigipay-username=" + cfg.AM.Username, "--amdigipay-password=" + cfg.AM.Password,
		"--paydia-base-url=" + site.URL + "/snap/v1.0",
		"--paydia-client-id=" + cfg.Paydia.ClientID, "--paydia-client-secret=" + cfg.Paydia.ClientSecret,
		"--paydia-private-key=" + string(private), "--paydia-merchant-id=" + cfg.Paydia.MerchantID,
		"--payload-keys=" + secret.NewKey().Reveal(),
	}
	return s
}

// check checks with the stage's settings, some of them replaced: the last of a
// flag counts.
func (s *stage) check(t *testing.T, replaced ...string) (lines []string, err error) {
	t.Helper()
	var cfg struct{ worker.Config }
	if _, err := config.Parse("worker", "", &cfg, slices.Concat(s.args, replaced), io.Discard); err != nil {
		t.Fatal(err)
	}
	client, err := cfg.Redis.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var out strings.Builder
	err = worker.Check(t.Context(), cfg.Config, client, &out)
	for _, given := range []secret.Text{cfg.Redis.URL, cfg.Redis.Password, cfg.AMDigiPay.Password, cfg.Paydia.ClientSecret, cfg.Paydia.PrivateKey, cfg.Payload.Keys} {
		if !given.Empty() && strings.Contains(out.String(), given.Reveal()) {
			t.Errorf("a secret is printed:\n%s", out.String())
		}
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"), err
}

// verdicts are the first two columns of the lines.
func verdicts(lines []string) []string {
	var verdicts []string
	for _, line := range lines {
		verdicts = append(verdicts, strings.Join(strings.Fields(line[:min(len(line), 20)]), " "))
	}
	return verdicts
}

// hanging is an address where connections are taken and nothing is ever said.
func hanging(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String() // the kernel takes connections that nobody accepts
}

func TestCheck(t *testing.T) {
	anotherKey, _, err := gatewaysim.NewKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	file := func(content string) string {
		path := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const wrongSetting = "*config.Error"
	amOff := []string{"--amdigipay-username=", "--amdigipay-password="}
	paydiaOff := []string{"--paydia-client-id=", "--paydia-client-secret=", "--paydia-private-key="}
	s := newStage(t)
	for _, row := range []struct {
		name     string
		replaced []string
		line     string // what is not ok, or off
		settings string // named in that line
		err      string // "", a check failed, or a wrong setting
	}{
		{"all is well", nil, "", "", ""},
		{"AM is off", amOff, "off amdigipay", "", ""},
		{"Paydia is off, and needs no keys", append(paydiaOff, "--payload-keys="), "off paydia", "", ""},
		{"no keys", []string{"--payload-keys="}, "FAIL payload keys", "PAYLOAD_KEYS", "a check failed"},
		{"another password", []string{"--amdigipay-password=hunter2"}, "FAIL amdigipay", "AMDIGIPAY_PASSWORD", "a check failed"},
		{"another private key", []string{"--paydia-private-key=" + string(anotherKey)}, "FAIL paydia", "PAYDIA_PRIVATE_KEY", "a check failed"},
		{"another client id", []string{"--paydia-client-id=nobody"}, "FAIL paydia", "PAYDIA_CLIENT_ID", "a check failed"},
		{"nobody is there", []string{"--amdigipay-base-url=http://127.0.0.1:1/api"}, "FAIL amdigipay", "AMDIGIPAY_BASE_URL", "a check failed"},
		{"another path", []string{"--paydia-base-url=" + "http://127.0.0.1:1"}, "FAIL paydia", "PAYDIA_BASE_URL", "a check failed"},
		{"no answer", []string{"--amdigipay-base-url=http://" + hanging(t), "--gateway-timeout=300ms"}, "FAIL amdigipay", "GATEWAY_TIMEOUT", "a check failed"},
		{"no Redis", []string{"--redis-url=redis://127.0.0.1:1"}, "FAIL redis", "REDIS_URL", "a check failed"},
		{"Redis hangs", []string{"--redis-url=redis://" + hanging(t)}, "FAIL redis", "REDIS_URL", "a check failed"},
		{"a Cluster hangs", []string{"--redis-url=redis-cluster://" + strings.Join([]string{hanging(t), hanging(t), hanging(t), hanging(t)}, ",")}, "FAIL redis", "no answer within 8s", "a check failed"},
		{"overrides", []string{"--retry-policy-file=" + file("gateways: {}\n")}, "", "", ""},
		{"an unknown action", []string{"--retry-policy-file=" + file("gateways:\n  paydia:\n    rules: [{code: \"5006301\", action: hope}]\n")}, "FAIL retry policy", "RETRY_POLICY_FILE", wrongSetting},
		{"an unsafe action", []string{"--retry-policy-file=" + file("gateways: {amdigipay: {rules: [{code: \"net:unknown\", action: retry}]}}\n")}, "FAIL retry policy", "retry is not safe for net:unknown", wrongSetting},
		{
			"then: retry too soon",
			[]string{"--retry-policy-file=" + file("gateways: {paydia: {verify: {settle: 29s, then: retry, vendor_confirms: \"Paydia, 2026-11-02, by mail\"}}}\n")},
			"FAIL retry policy", "29s is too short for then: retry (GATEWAY_TIMEOUT is 15s", wrongSetting,
		},
		{"a status map of words", []string{"--amdigipay-status-map=paid=3"}, "FAIL amdigipay", "AMDIGIPAY_STATUS_MAP", wrongSetting},
		{"a time-out too long", []string{"--gateway-timeout=1h", "--worker-shutdown-timeout=2h"}, "FAIL settings", "GATEWAY_TIMEOUT", wrongSetting},
		{"a slot of its own", []string{"--redis-url=redis-cluster://127.0.0.1:1", "--events-stream=elsewhere"}, "FAIL settings", "EVENTS_STREAM", wrongSetting},
	} {
		t.Run(row.name, func(t *testing.T) {
			lines, err := s.check(t, row.replaced...)
			want := []string{"ok settings", "ok retry policy", "ok payload keys", "ok redis", "ok durability", "ok clocks", "ok amdigipay", "ok paydia"}
			if strings.HasPrefix(row.line, "FAIL redis") || row.name == "a slot of its own" { // nor is there a Cluster
				want = slices.Delete(want, 4, 6)
			}
			got := verdicts(lines)
			if row.name == "a slot of its own" { // nor is there a Cluster
				want[3] = "FAIL redis"
			}
			for i, line := range want {
				if _, what, _ := strings.Cut(row.line, " "); strings.HasSuffix(line, " "+what) && what != "" {
					want[i] = row.line
					if i < len(lines) && !strings.Contains(lines[i], row.settings) {
						t.Errorf("%q does not name %s", lines[i], row.settings)
					}
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("want -, got +\n%s\n%s", diff, strings.Join(lines, "\n"))
			}
			said := ""
			switch {
			case errors.As(err, new(*config.Error)):
				said = wrongSetting
			case err != nil:
				said = err.Error()
			}
			if said != row.err {
				t.Errorf("error %q, want %q: %v", said, row.err, err)
			}
		})
	}
	if logins := s.sim.Requests(gatewaysim.AMLogin); logins == 0 {
		t.Error("nobody logged in to AM")
	}
	for _, e := range s.sim.Journal() {
		if e.Operation != gatewaysim.AMLogin && e.Operation != gatewaysim.PaydiaToken {
			t.Errorf("a check asked for %s", e.Operation)
		}
	}
}

// TestCheckRedis: what a Redis must be like, and how much of that is shown.
func TestCheckRedis(t *testing.T) {
	for _, row := range []struct {
		parameter, value string
		line             string
		word             string
		err              error
	}{
		{"maxmemory-policy", "allkeys-lru", "FAIL redis", "maxmemory-policy is allkeys-lru and must be noeviction", worker.ErrCheck},
		{"appendonly", "no", "ok redis,FAIL durability", "appendonly is no; set appendonly yes and appendfsync always", worker.ErrCheck},
		{"maxmemory", "1", "FAIL redis", "is full and refuses writes", worker.ErrCheck},
		{"min-replicas-to-write", "1", "FAIL redis", "NOREPLICAS", worker.ErrCheck},
		{"requirepass", "hunter2", "FAIL redis", "REDIS_PASSWORD", worker.ErrCheck},
	} {
		t.Run(row.parameter, func(t *testing.T) {
			s := newStage(t)
			if err := s.redis.Client(t).ConfigSet(t.Context(), row.parameter, row.value).Err(); err != nil {
				t.Fatal(err)
			}
			lines, err := s.check(t)
			if !errors.Is(err, row.err) || err != nil && row.err == nil {
				t.Errorf("error %v, want %v", err, row.err)
			}
			want := slices.Concat([]string{"ok settings", "ok retry policy", "ok payload keys"}, strings.Split(row.line, ","), []string{"ok amdigipay", "ok paydia"})
			if diff := cmp.Diff(want, verdicts(lines)); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, row.word) }) {
				t.Errorf("nothing of %q in\n%s", row.word, strings.Join(lines, "\n"))
			}
		})
	}
}

// TestCheckTroubles: what a gateway answers to the login decides what is advised.
func TestCheckTroubles(t *testing.T) {
	for _, row := range []struct {
		rule gatewaysim.FaultRule
		says string
	}{
		{gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before}, "gives no login"},
		{gatewaysim.FaultRule{Fault: gatewaysim.FaultHTMLBefore, Status: 200}, "gives no login"},
		{gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy}, "is busy"},
		{gatewaysim.FaultRule{Fault: gatewaysim.FaultLostBefore}, "cannot be reached"},
		{gatewaysim.FaultRule{Fault: gatewaysim.FaultCutShort}, "cannot be reached"},
	} {
		t.Run(string(row.rule.Fault), func(t *testing.T) {
			s := newStage(t)
			s.sim.Inject(row.rule)
			lines, err := s.check(t)
			if !errors.Is(err, worker.ErrCheck) {
				t.Errorf("error %v", err)
			}
			for _, line := range lines[len(lines)-2:] {
				if !strings.HasPrefix(line, "FAIL") || !strings.Contains(line, row.says) {
					t.Errorf("%q, want FAIL and %q", line, row.says)
				}
			}
		})
	}
}
