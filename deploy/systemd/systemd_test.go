// Package systemd tests the unit file and the example environment file.
package systemd

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const repo = "../.."

// unit returns the values of every directive of the unit file.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	directives := map[string][]string{}
	for line := range strings.Lines(read(t, "terbayar-worker.service")) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), "="); found && !strings.HasPrefix(name, "#") {
			directives[name] = append(directives[name], value)
		}
	}
	return directives
}

// environmentFile returns the variables of worker.env, including those in comments.
func environmentFile(t *testing.T) map[string]string {
	t.Helper()
	variables := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#?([A-Z_]+)=(.*)$`).FindAllStringSubmatch(read(t, "worker.env"), -1) {
		variables[m[1]] = m[2]
	}
	return variables
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestSettings checks that every variable is a setting of the worker, that every credential is
// loaded, that systemd gives the worker more time to stop than the worker takes at most, and that
// the worker accepts the values of worker.env.
func TestSettings(t *testing.T) {
	worker := filepath.Join(t.TempDir(), "worker")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", worker, "./cmd/worker")
	build.Dir = repo
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	help, err := exec.CommandContext(t.Context(), worker, "run", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	directives, variables := unit(t), environmentFile(t)
	if len(variables) < 8 || len(directives["Environment"]) < 2 {
		t.Fatalf("worker.env has %v, the unit %v", variables, directives["Environment"])
	}
	loaded := map[string]bool{}
	for _, credential := range directives["LoadCredential"] {
		id, _, _ := strings.Cut(credential, ":")
		loaded["%d/"+id] = true
	}
	for _, e := range directives["Environment"] {
		name, value, _ := strings.Cut(e, "=")
		if !loaded[value] {
			t.Errorf("%s is %s, which no LoadCredential loads", name, value)
		}
		variables[name] = value
	}
	for name := range variables {
		if !strings.Contains(string(help), "($"+name+")") {
			t.Errorf("the worker has no setting %s", name)
		}
	}

	m := regexp.MustCompile(`--worker-shutdown-timeout=(\S+)`).FindStringSubmatch(string(help))
	if m == nil || m[1] != variables["WORKER_SHUTDOWN_TIMEOUT"] {
		t.Fatalf("WORKER_SHUTDOWN_TIMEOUT is %s in worker.env, the default is %v", variables["WORKER_SHUTDOWN_TIMEOUT"], m)
	}
	shutdown, err := time.ParseDuration(m[1])
	if err != nil {
		t.Fatal(err)
	}
	if stop, err := time.ParseDuration(directives["TimeoutStopSec"][0]); err != nil || stop < shutdown+10*time.Second {
		t.Errorf("TimeoutStopSec %s, WORKER_SHUTDOWN_TIMEOUT %s, %v", stop, shutdown, err)
	}

	// As openssl rand -base64 32 writes it, with a newline.
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	keys := filepath.Join(t.TempDir(), "payload-keys")
	if err := os.WriteFile(keys, []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := exec.CommandContext(t.Context(), worker, "check")
	for name, value := range variables {
		switch name {
		case "PAYLOAD_KEYS_FILE":
			value = keys
		case "PAYDIA_PRIVATE_KEY_FILE":
			value = repo + "/deploy/compose/paydia-private-key.pem"
		case "REDIS_URL":
			value = "redis://127.0.0.1:1" // nothing listens there
		case "AMDIGIPAY_USERNAME", "AMDIGIPAY_PASSWORD": // off: no request leaves this machine
			continue
		}
		if value != "" {
			check.Env = append(check.Env, name+"="+value)
		}
	}
	check.Env = append(check.Env, "PAYDIA_BASE_URL=http://127.0.0.1:1")
	out, _ := check.CombinedOutput()
	if check.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "ok    settings") || !strings.Contains(string(out), "FAIL  redis") {
		t.Errorf("worker check ended with %d\n%s", check.ProcessState.ExitCode(), out)
	}
}

// TestUnit checks the parts of the unit file that matter for payments, and has systemd verify the
// whole where it is installed.
func TestUnit(t *testing.T) {
	directives := unit(t)
	for name, want := range map[string]string{
		"ExecStart": "/usr/local/bin/worker run", "Restart": "always", "KillSignal": "SIGTERM",
		"DynamicUser": "yes", "ProtectSystem": "strict", "NoNewPrivileges": "yes",
	} {
		if !slices.Equal(directives[name], []string{want}) {
			t.Errorf("%s is %q, want %s", name, directives[name], want)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip(err)
	}
	// verify fails if the program of ExecStart is not installed: replace it with this test.
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	installed := filepath.Join(t.TempDir(), "terbayar-worker.service")
	text := strings.ReplaceAll(read(t, "terbayar-worker.service"), "/usr/local/bin/worker", executable)
	if err := os.WriteFile(installed, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", installed).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
