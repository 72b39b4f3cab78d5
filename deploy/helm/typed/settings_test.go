package typed

import (
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
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

// settings returns the settings of a component that are not secret.
func settings(t *testing.T, r *release, component string) map[string]string {
	t.Helper()
	return plain(only[apps.Deployment](t, r, component).Spec.Template.Spec.Containers[0].Env)
}

// plain returns the variables that are not secret, as a process reads them: Kubernetes reads $$ as $.
func plain(env []core.EnvVar) map[string]string {
	found := map[string]string{}
	for _, e := range env {
		if e.ValueFrom == nil {
			found[e.Name] = strings.ReplaceAll(e.Value, "$$", "$")
		}
	}
	return found
}

// documentedSettings returns the settings of all programs with their defaults, from the table in
// docs/settings.md. A test in cmd/worker compares that table with the flags.
func documentedSettings(t *testing.T) map[string]string {
	t.Helper()
	table := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (?:`([^`]*)` )?\\|").FindAllStringSubmatch(read(t, repo+"/docs/settings.md"), -1) {
		table[m[1]] = m[2]
	}
	if len(table) < 30 {
		t.Fatalf("the table of docs/settings.md has %d settings", len(table))
	}
	return table
}

// apiSettings returns the settings that enqueue serve reads, from its help.
func apiSettings(t *testing.T) map[string]bool {
	t.Helper()
	help, err := exec.CommandContext(t.Context(), build(t, "enqueue"), "serve", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`\$([A-Z_]+)`).FindAllStringSubmatch(string(help), -1) {
		found[m[1]] = true
	}
	if len(found) < 15 || !found["SERVE_HTTP_ADDR"] {
		t.Fatalf("enqueue serve reads %v", found)
	}
	return found
}

// onlyAPI reports whether a setting is that of enqueue serve and not of the workers.
func onlyAPI(setting string) bool {
	return regexp.MustCompile(`^(SERVE|API|CALLBACK)_`).MatchString(setting)
}

// otherVariables are variables that are not settings.
var otherVariables = []string{
	"SSL_CERT_DIR", // Go's crypto/x509
	"HTTPS_PROXY",  // Go's net/http; ci/full-values.yaml
	"GOMEMLIMIT",   // Go's runtime; ci/full-values.yaml
}

// TestSettings checks that every variable that the chart sets is a setting of the program in that pod,
// and that the chart sets every setting of the worker and of enqueue serve.
func TestSettings(t *testing.T) {
	known, ofServe := documentedSettings(t), apiSettings(t)
	used := map[string]bool{}
	everyRelease(t, func(t *testing.T, r *release) {
		all := pods(t, r)
		worker := all["worker"].Spec.Containers[0].Env
		for name, pod := range all {
			env := pod.Spec.Containers[0].Env
			if name == "api-check" {
				if len(env) != 0 {
					t.Errorf("%s has %v", name, env)
				}
				continue
			}
			if !ofAPI(name) && len(env) != len(worker) {
				t.Errorf("%s has %d variables, the worker %d", name, len(env), len(worker))
			}
			seen := map[string]bool{}
			for i, e := range env {
				_, ok := known[e.Name]
				if ofAPI(name) {
					ok = ok && ofServe[e.Name]
				} else {
					ok = ok && !onlyAPI(e.Name)
				}
				if !ok && !slices.Contains(otherVariables, e.Name) {
					t.Errorf("%s: its program has no setting %s", name, e.Name)
				}
				used[name+" "+e.Name] = true
				if seen[e.Name] {
					t.Errorf("%s is set twice", e.Name)
				}
				seen[e.Name] = true
				if !ofAPI(name) && (e.Name != worker[i].Name || e.Value != worker[i].Value) {
					t.Errorf("%s has %+v, the worker %+v", name, e, worker[i])
				}
			}
		}
	})
	for name := range known {
		_, hasFile := known[name+"_FILE"] // the chart sets that instead, where the content is secret
		if !onlyAPI(name) && !used["worker "+name] && !(hasFile && used["worker "+name+"_FILE"]) {
			t.Errorf("no values file in ci/ sets %s", name)
		}
		if ofServe[name] && !used["api "+name] && !(hasFile && used["api "+name+"_FILE"]) {
			t.Errorf("no values file in ci/ sets %s of the API", name)
		}
	}
}

// TestAPIHasNoGatewayCredential checks that the pods of the API have no setting of a gateway but the
// merchant id, no users of the web UI, and no Secret of these.
func TestAPIHasNoGatewayCredential(t *testing.T) {
	allowed := regexp.MustCompile(`^(REDIS_(URL|PASSWORD|SENTINEL_PASSWORD|DURABILITY|WAIT_REPLICAS|WAIT_TIMEOUT)|EVENTS_STREAM|LEDGER_PARTITIONS|ARCHIVE_DIR|PAYLOAD_KEYS_FILE|PAYDIA_MERCHANT_ID|LOG_(LEVEL|FORMAT)|(SERVE|API|CALLBACK)_[A-Z_]+|SSL_CERT_DIR|GOMEMLIMIT)$`)
	checked := 0
	everyRelease(t, func(t *testing.T, r *release) {
		all := pods(t, r)
		if _, enabled := all["api"]; !enabled {
			return
		}
		checked++
		secretsOf := func(pod core.PodTemplateSpec) map[string]bool {
			names := map[string]bool{}
			for _, v := range pod.Spec.Volumes {
				if v.Secret != nil {
					names[v.Secret.SecretName] = true
				}
			}
			for _, e := range pod.Spec.Containers[0].Env {
				if e.ValueFrom != nil {
					names[e.ValueFrom.SecretKeyRef.Name] = true
				}
			}
			return names
		}
		shared := map[string]bool{"terbayar-redis": true, "redis-ca": true, "terbayar-payload-keys": true}
		ofWorker := secretsOf(all["worker"])
		if len(ofWorker) < 2 {
			t.Fatalf("the worker has the Secrets %v", ofWorker)
		}
		for _, name := range []string{"api", "api-check"} {
			for secret := range secretsOf(all[name]) {
				if ofWorker[secret] && !shared[secret] || name == "api-check" {
					t.Errorf("%s has the Secret %s", name, secret)
				}
			}
			c := all[name].Spec.Containers[0]
			for _, e := range c.Env {
				if !allowed.MatchString(e.Name) {
					t.Errorf("%s has %s", name, e.Name)
				}
			}
			if len(c.EnvFrom) != 0 {
				t.Errorf("%s has %+v", name, c.EnvFrom)
			}
		}
	})
	if checked < 4 {
		t.Errorf("%d releases have the API", checked)
	}
}

// TestSettingsRejected checks that worker.extraEnv and api.extraEnv, which have the same check, reject
// every setting of the programs: it would bypass the checks of the value, or put a password into the values.
func TestSettingsRejected(t *testing.T) {
	rejected := regexp.MustCompile(`regexMatch "([^"]+)" \.name`).FindStringSubmatch(read(t, chart+"/templates/_check.tpl"))
	if rejected == nil {
		t.Fatal("templates/_check.tpl does not check the names in extraEnv")
	}
	pattern := regexp.MustCompile(rejected[1])
	for name := range documentedSettings(t) {
		if !pattern.MatchString(name) {
			t.Errorf("extraEnv accepts %s", name)
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
		{"internal/api/serve.go", `cutOffTimeout = 8 \* time\.Second\n`, `\(add \$delay \$timeout 8000\)`},
		{"internal/api/api.go", `maxWait += time\.Minute\n`, `\(le \$timeout 60000\)`},
		{"internal/tasks/tasks.go", `SubmitTimeout = 5 \* time\.Minute\n`, `\(add \$gateway \$send \$lease\) 300000 `},
	} {
		if !regexp.MustCompile(link.worker).MatchString(read(t, repo+"/"+link.file)) || !regexp.MustCompile(link.chart).MatchString(check) {
			t.Errorf("templates/_check.tpl (%s) and %s (%s) may differ", link.chart, link.file, link.worker)
		}
	}
}

// TestDefaults checks that the chart's default values are the programs' defaults.
func TestDefaults(t *testing.T) {
	known := documentedSettings(t)
	r := render(t, "terbayar", "--values", chart+"/ci/minimal-values.yaml",
		"--set", "amdigipay.enabled=true,amdigipay.username=u,amdigipay.existingSecret=s",
		"--set", "paydia.enabled=true,paydia.clientId=c,paydia.existingSecret=s,payloadKeys.existingSecret=s,webhooks.existingSecret=s",
		"--set", "api.enabled=true,api.keys.existingSecret=s,networkPolicy.enabled=false")
	both := settings(t, r, "api")
	maps.Copy(both, settings(t, r, "worker"))
	for name, value := range both {
		switch name {
		case "REDIS_URL", "AMDIGIPAY_USERNAME", "PAYDIA_CLIENT_ID", "PAYDIA_PRIVATE_KEY_FILE", "PAYLOAD_KEYS_FILE", "API_KEYS_FILE": // no default
		case "SERVE_METRICS_ADDR": // the default is that of development: at SERVE_HTTP_ADDR
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
				t.Errorf("%s is %q, the program's default is %q", name, value, known[name])
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
		for _, component := range components(t, r) {
			for name, value := range settings(t, r, component) {
				if name == "REDIS_URL" { // may contain a user; the password is in REDIS_PASSWORD
					login, _, _ := strings.Cut(strings.SplitAfter(value, "://")[1], "@")
					if u, err := url.Parse("redis://" + login + "@host"); err != nil || strings.Contains(value, "@") && hasPassword(u) || strings.Contains(value, "password") {
						t.Errorf("%s is %s", name, value)
					}
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
