package worker_test

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/config"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/redistest"
	"terbayar/internal/secret"
	"terbayar/internal/worker"
)

// env is a Redis, both simulated gateways, and settings of a worker for them.
type env struct {
	redis *redistest.Process
	sim   *gatewaysim.Sim
	args  []string
}

// keyPair makes one key pair for all tests: with the race detector one takes a second.
var keyPair = sync.OnceValues(func() (private []byte, public *rsa.PublicKey) {
	private, public, err := gatewaysim.NewKeyPair()
	if err != nil {
		panic(err)
	}
	return private, public
})

func newEnv(t *testing.T) *env {
	t.Helper()
	private, public := keyPair()
	cfg := gatewaysim.DefaultConfig()
	cfg.Paydia.PublicKey = public
	s := &env{redis: redistest.Server(t), sim: gatewaysim.New(cfg, time.Now)}
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

// check runs Check with the environment's settings and more flags: when a flag is given
// twice, the last one counts.
func (s *env) check(t *testing.T, flags ...string) (lines []string, err error) {
	t.Helper()
	var cfg struct{ worker.Config }
	if _, err := config.Parse("worker", "", &cfg, slices.Concat(s.args, flags), io.Discard); err != nil {
		t.Fatal(err)
	}
	client, err := cfg.Redis.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var out strings.Builder
	err = worker.Check(t.Context(), cfg.Config, client, &out)
	for _, text := range []secret.Text{cfg.Redis.URL, cfg.Redis.Password, cfg.AMDigiPay.Password, cfg.Paydia.ClientSecret, cfg.Paydia.PrivateKey, cfg.Payload.Keys} {
		if !text.Empty() && strings.Contains(out.String(), text.Reveal()) {
			t.Errorf("a secret is printed:\n%s", out.String())
		}
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"), err
}

// results returns the first two columns of the lines.
func results(lines []string) []string {
	var results []string
	for _, line := range lines {
		results = append(results, strings.Join(strings.Fields(line[:min(len(line), 20)]), " "))
	}
	return results
}

// hanging returns an address that accepts connections and never answers.
func hanging(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String() // the kernel completes connections without an Accept
}

func TestCheck(t *testing.T) {
	t.Parallel()
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
	s := newEnv(t)
	for _, row := range []struct {
		name     string
		flags    []string
		line     string // the result that is not ok
		contains string // what that line contains
		err      string // "", "a check failed", or wrongSetting
	}{
		{"everything works", nil, "", "", ""},
		{"AM is off", amOff, "off amdigipay", "", ""},
		{"Paydia is off and needs no keys", append(paydiaOff, "--payload-keys="), "off paydia", "", ""},
		{"no payload keys", []string{"--payload-keys="}, "FAIL payload keys", "PAYLOAD_KEYS", "a check failed"},
		{"wrong password", []string{"--amdigipay-password=hunter2"}, "FAIL amdigipay", "AMDIGIPAY_PASSWORD", "a check failed"},
		{"wrong private key", []string{"--paydia-private-key=" + string(anotherKey)}, "FAIL paydia", "PAYDIA_PRIVATE_KEY", "a check failed"},
		{"wrong client id", []string{"--paydia-client-id=other"}, "FAIL paydia", "PAYDIA_CLIENT_ID", "a check failed"},
		{"connection refused", []string{"--amdigipay-base-url=http://127.0.0.1:1/api"}, "FAIL amdigipay", "AMDIGIPAY_BASE_URL", "a check failed"},
		{"wrong base URL", []string{"--paydia-base-url=" + "http://127.0.0.1:1"}, "FAIL paydia", "PAYDIA_BASE_URL", "a check failed"},
		{"gateway hangs", []string{"--amdigipay-base-url=http://" + hanging(t), "--gateway-timeout=300ms"}, "FAIL amdigipay", "GATEWAY_TIMEOUT", "a check failed"},
		{"Redis is down", []string{"--redis-url=redis://127.0.0.1:1"}, "FAIL redis", "REDIS_URL", "a check failed"},
		{"Redis hangs", []string{"--redis-url=redis://" + hanging(t)}, "FAIL redis", "REDIS_URL", "a check failed"},
		{"a Cluster hangs", []string{"--redis-url=redis-cluster://" + strings.Join([]string{hanging(t), hanging(t), hanging(t), hanging(t)}, ",")}, "FAIL redis", "no answer within 5s", "a check failed"},
		{"policy file", []string{"--retry-policy-file=" + file("gateways: {}\n")}, "", "", ""},
		{"policy file with an unknown action", []string{"--retry-policy-file=" + file("gateways:\n  paydia:\n    rules: [{code: \"5006301\", action: hope}]\n")}, "FAIL retry policy", "RETRY_POLICY_FILE", wrongSetting},
		{"policy file with an unsafe action", []string{"--retry-policy-file=" + file("gateways: {amdigipay: {rules: [{code: \"net:unknown\", action: retry}]}}\n")}, "FAIL retry policy", "retry is not safe for net:unknown", wrongSetting},
		{
			"policy file that retries too soon",
			[]string{"--retry-policy-file=" + file("gateways: {paydia: {verify: {settle: 29s, then: retry, vendor_confirms: \"Paydia, 2026-11-02, by mail\"}}}\n")},
			"FAIL retry policy", "29s is too short for then: retry (GATEWAY_TIMEOUT is 15s", wrongSetting,
		},
		{"malformed status map", []string{"--amdigipay-status-map=paid=3"}, "FAIL amdigipay", "AMDIGIPAY_STATUS_MAP", wrongSetting},
		{"timeout too long", []string{"--gateway-timeout=1h", "--worker-shutdown-timeout=2h"}, "FAIL settings", "GATEWAY_TIMEOUT", wrongSetting},
		{"events in another slot", []string{"--redis-url=redis-cluster://127.0.0.1:1", "--events-stream=elsewhere"}, "FAIL settings", "EVENTS_STREAM", wrongSetting},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			lines, err := s.check(t, row.flags...)
			want := []string{"ok settings", "ok retry policy", "ok payload keys", "ok webhooks", "ok redis", "ok memory", "ok durability", "ok clocks", "ok amdigipay", "ok paydia"}
			noCluster := row.name == "events in another slot" // its REDIS_URL is of a Cluster that does not exist
			if noCluster || strings.HasPrefix(row.line, "FAIL redis") {
				want = slices.Delete(want, 5, 8)
			}
			if noCluster {
				want[4] = "FAIL redis"
			}
			_, what, _ := strings.Cut(row.line, " ")
			for i, line := range want {
				if what != "" && strings.HasSuffix(line, " "+what) {
					want[i] = row.line
					if i < len(lines) && !strings.Contains(lines[i], row.contains) {
						t.Errorf("%q does not contain %s", lines[i], row.contains)
					}
				}
			}
			if diff := cmp.Diff(want, results(lines)); diff != "" {
				t.Errorf("want -, got +\n%s\n%s", diff, strings.Join(lines, "\n"))
			}
			got := ""
			switch {
			case errors.As(err, new(*config.Error)):
				got = wrongSetting
			case err != nil:
				got = err.Error()
			}
			if got != row.err {
				t.Errorf("error %q, want %q: %v", got, row.err, err)
			}
		})
	}
	t.Cleanup(func() { // after the subtests, which run in parallel
		if s.sim.Requests(gatewaysim.AMLogin) == 0 {
			t.Error("no check has logged in to AM")
		}
		for _, e := range s.sim.Journal() {
			if e.Operation != gatewaysim.AMLogin && e.Operation != gatewaysim.PaydiaToken {
				t.Errorf("a check has sent %s", e.Operation)
			}
		}
	})
}

// TestCheckRedis: a Redis that is not fit to keep payments fails, with the reason.
func TestCheckRedis(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		parameter, value string
		results          string
		contains         string
	}{
		{"maxmemory-policy", "allkeys-lru", "FAIL redis", "maxmemory-policy is allkeys-lru and must be noeviction"},
		{"appendonly", "no", "ok redis,ok memory,FAIL durability", "appendonly is no; set appendonly yes and appendfsync always"},
		{"maxmemory", "1", "FAIL redis", "is full and refuses writes"},
		{"min-replicas-to-write", "1", "FAIL redis", "NOREPLICAS"},
		{"requirepass", "hunter2", "FAIL redis", "REDIS_PASSWORD"},
	} {
		t.Run(row.parameter, func(t *testing.T) {
			t.Parallel()
			s := newEnv(t)
			if err := s.redis.Client(t).ConfigSet(t.Context(), row.parameter, row.value).Err(); err != nil {
				t.Fatal(err)
			}
			lines, err := s.check(t)
			if !errors.Is(err, worker.ErrCheck) {
				t.Errorf("error %v", err)
			}
			want := slices.Concat([]string{"ok settings", "ok retry policy", "ok payload keys", "ok webhooks"}, strings.Split(row.results, ","), []string{"ok amdigipay", "ok paydia"})
			if diff := cmp.Diff(want, results(lines)); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, row.contains) }) {
				t.Errorf("%q is missing in\n%s", row.contains, strings.Join(lines, "\n"))
			}
		})
	}
}

// TestCheckMemory: the check reports how many more payments fit, and warns when memory runs out.
func TestCheckMemory(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	client := s.redis.Client(t)
	for i := range 200 { // 20 MB
		if err := client.Set(t.Context(), fmt.Sprint("ballast", i), strings.Repeat("x", 100<<10), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		maxmemory string
		want      string
	}{
		{"2gb", `^ok    memory        about 10\d{5} more payments fit: the fullest primary uses 2\d of 2048 MB, for 0 payments$`},
		{"26mb", `^warn  memory        about \d+ more payments fit: the fullest primary uses 2\d of 26 MB, for 0 payments$`},
	} {
		if err := client.ConfigSet(t.Context(), "maxmemory", row.maxmemory).Err(); err != nil {
			t.Fatal(err)
		}
		lines, err := s.check(t)
		if err != nil || !slices.ContainsFunc(lines, regexp.MustCompile(row.want).MatchString) {
			t.Errorf("%v; want %s in\n%s", err, row.want, strings.Join(lines, "\n"))
		}
	}
}

// TestCheckLoginProblems: the gateway's answer to the login decides what the check advises.
func TestCheckLoginProblems(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		rule     gatewaysim.FaultRule
		contains string
	}{
		{gatewaysim.FaultRule{Fault: gatewaysim.Fault500Before}, "no usable answer"},
		{gatewaysim.FaultRule{Fault: gatewaysim.FaultHTMLBefore, Status: 200}, "no usable answer"},
		{gatewaysim.FaultRule{Fault: gatewaysim.FaultBusy}, "is busy"},
		{gatewaysim.FaultRule{Fault: gatewaysim.FaultLostBefore}, "cannot be reached"},
		{gatewaysim.FaultRule{Fault: gatewaysim.FaultCutShort}, "cannot be reached"},
	} {
		t.Run(string(row.rule.Fault), func(t *testing.T) {
			t.Parallel()
			s := newEnv(t)
			s.sim.Inject(row.rule)
			lines, err := s.check(t)
			if !errors.Is(err, worker.ErrCheck) {
				t.Errorf("error %v", err)
			}
			for _, line := range lines[len(lines)-2:] {
				if !strings.HasPrefix(line, "FAIL") || !strings.Contains(line, row.contains) {
					t.Errorf("%q, want FAIL and %q", line, row.contains)
				}
			}
		})
	}
}
