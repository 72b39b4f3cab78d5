package typed

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
)

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// moduleDir returns the source directory of a module that the module in dir requires.
func moduleDir(t *testing.T, dir, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil || len(out) < 2 {
		t.Fatalf("go list -m %s in %s: %q, %v (go mod download?)", module, dir, out, err)
	}
	return strings.TrimSpace(string(out))
}

// settings returns the settings of a release's workers that are not secret, as a process reads
// them: Kubernetes reads $$ as $.
func settings(t *testing.T, r *release) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, e := range only[apps.Deployment](t, r).Spec.Template.Spec.Containers[0].Env {
		if e.ValueFrom == nil {
			found[e.Name] = strings.ReplaceAll(e.Value, "$$", "$")
		}
	}
	return found
}

// workerSettings returns the worker's settings with their defaults, from the table in docs/settings.md.
// A test in cmd/worker compares that table with the flags.
func workerSettings(t *testing.T) map[string]string {
	t.Helper()
	table := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (?:`([^`]*)` )?\\|").FindAllStringSubmatch(read(t, repo+"/docs/settings.md"), -1) {
		if ofServe := strings.HasPrefix(m[1], "SERVE_") || strings.HasPrefix(m[1], "API_KEYS"); !ofServe { // enqueue serve is not in the chart yet
			table[m[1]] = m[2]
		}
	}
	if len(table) < 30 {
		t.Fatalf("the table of docs/settings.md has %d settings", len(table))
	}
	return table
}

// otherVariables are variables that are not settings of the worker.
var otherVariables = []string{
	"SSL_CERT_DIR", // Go's crypto/x509
	"HTTPS_PROXY",  // Go's net/http; ci/full-values.yaml
}

// TestSettings checks that every variable that the chart sets is a setting of the worker, and that
// the chart sets every setting of the worker.
func TestSettings(t *testing.T) {
	known := workerSettings(t)
	used := map[string]bool{
		// The chart sets the _FILE form of these.
		"PAYDIA_PRIVATE_KEY": true, "PAYLOAD_KEYS": true,
	}
	everyRelease(t, func(t *testing.T, r *release) {
		use := func(name string) {
			t.Helper()
			if _, ok := known[name]; !ok && !slices.Contains(otherVariables, name) {
				t.Errorf("the worker has no setting %s", name)
			}
			used[name] = true
		}
		worker := pods(t, r)["worker"].Spec.Containers[0].Env
		for name, pod := range pods(t, r) {
			env := pod.Spec.Containers[0].Env
			if len(env) != len(worker) {
				t.Errorf("%s has %d variables, the worker %d", name, len(env), len(worker))
			}
			seen := map[string]bool{}
			for i, e := range env {
				use(e.Name)
				if seen[e.Name] {
					t.Errorf("%s is set twice", e.Name)
				}
				seen[e.Name] = true
				if e.Name != worker[i].Name || e.Value != worker[i].Value {
					t.Errorf("%s has %+v, the worker %+v", name, e, worker[i])
				}
			}
		}
	})
	for name := range known {
		if !used[name] {
			t.Errorf("no values file in ci/ sets %s", name)
		}
	}
}

// TestSettingsRejected checks that worker.extraEnv rejects every setting of the worker: it would
// bypass the checks of the value, or put a password into the values.
func TestSettingsRejected(t *testing.T) {
	rejected := regexp.MustCompile(`regexMatch "([^"]+)" \.name`).FindStringSubmatch(read(t, chart+"/templates/_check.tpl"))
	if rejected == nil {
		t.Fatal("templates/_check.tpl does not check the names in worker.extraEnv")
	}
	pattern := regexp.MustCompile(rejected[1])
	for name := range workerSettings(t) {
		if !pattern.MatchString(name) {
			t.Errorf("worker.extraEnv accepts %s", name)
		}
	}
}

// TestTimeouts compares the constants in the chart's chain of timeouts with those of the worker.
func TestTimeouts(t *testing.T) {
	check := read(t, chart+"/templates/_check.tpl")
	for _, link := range []struct{ file, worker, chart string }{
		{"internal/config/settings.go", `sendSlack = 5 \* time\.Second\n`, `\$send := add \$wait 5000 `},
		{"internal/config/settings.go", `leaseMargin = 3 \* time\.Second\n`, `\$lease := add \$send \$gateway 3000 `},
		{"internal/durable/durable.go", `EverySecTimeout = 2500 \* time\.Millisecond\n`, `\$wait := 2500 `},
		{"internal/redisconn/redisconn.go", `ioTimeout += 3 \* time\.Second\n(?s:.*)MaxWaitTimeout = ioTimeout\n`, `ge \$wait 3000\)`},
		{"internal/tasks/tasks.go", `SubmitTimeout = 5 \* time\.Minute\n`, `\(add \$gateway \$send \$lease\) 300000 `},
	} {
		if !regexp.MustCompile(link.worker).MatchString(read(t, repo+"/"+link.file)) || !regexp.MustCompile(link.chart).MatchString(check) {
			t.Errorf("templates/_check.tpl (%s) and %s (%s) may differ", link.chart, link.file, link.worker)
		}
	}
}

// TestDefaults checks that the chart's default values are the worker's defaults.
func TestDefaults(t *testing.T) {
	known := workerSettings(t)
	r := render(t, "terbayar", "--values", chart+"/ci/minimal-values.yaml",
		"--set", "amdigipay.enabled=true,amdigipay.username=u,amdigipay.existingSecret=s",
		"--set", "paydia.enabled=true,paydia.clientId=c,paydia.existingSecret=s,payloadKeys.existingSecret=s")
	for name, value := range settings(t, r) {
		switch name {
		case "REDIS_URL", "AMDIGIPAY_USERNAME", "PAYDIA_CLIENT_ID", "PAYDIA_PRIVATE_KEY_FILE", "PAYLOAD_KEYS_FILE": // no default
		case "LOG_FORMAT": // a pod's log does not go to a terminal
			if value != "json" {
				t.Errorf("%s is %q", name, value)
			}
		case "PAYDIA_QUERY_EMPTY_REFERENCE":
			if value != "false" {
				t.Errorf("%s is %q", name, value)
			}
		default:
			if value != known[name] {
				t.Errorf("%s is %q, the worker's default is %q", name, value, known[name])
			}
		}
	}
}

// TestNoSecrets checks that no setting of type secret.Text is a plain value in a pod.
func TestNoSecrets(t *testing.T) {
	sources, err := filepath.Glob(repo + "/internal/config/*.go")
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]bool{}
	for _, file := range sources {
		for _, m := range regexp.MustCompile(`secret\.Text +.*?env:"([A-Z_]+)"`).FindAllStringSubmatch(read(t, file), -1) {
			secrets[m[1]] = true
		}
	}
	if len(secrets) < 7 || !secrets["REDIS_URL"] {
		t.Fatalf("secret settings: %v", secrets)
	}
	everyRelease(t, func(t *testing.T, r *release) {
		for name, value := range settings(t, r) {
			if name == "REDIS_URL" { // may contain a user; the password is in REDIS_PASSWORD
				login, _, _ := strings.Cut(strings.SplitAfter(value, "://")[1], "@")
				if u, err := url.Parse("redis://" + login + "@host"); err != nil || strings.Contains(value, "@") && hasPassword(u) || strings.Contains(value, "password") {
					t.Errorf("%s is %s", name, value)
				}
			}
		}
		for _, pod := range pods(t, r) {
			for _, e := range pod.Spec.Containers[0].Env {
				if e.Name != "REDIS_URL" && secrets[e.Name] && (e.Value != "" || e.ValueFrom.SecretKeyRef == nil) {
					t.Errorf("%s: %+v", e.Name, e)
				}
			}
		}
	})
}

func hasPassword(u *url.URL) bool {
	_, set := u.User.Password()
	return set
}
