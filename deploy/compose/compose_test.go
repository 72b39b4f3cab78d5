package compose

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"go.yaml.in/yaml/v4"
)

const repo = "../.."

// load loads compose.yaml as docker compose does, with an empty environment. A warning fails the
// test.
func load(t *testing.T) *types.Project {
	t.Helper()
	warnings := logtest.NewGlobal()
	defer logrus.StandardLogger().ReplaceHooks(logrus.LevelHooks{})
	options, err := cli.NewProjectOptions([]string{repo + "/compose.yaml"}, cli.WithWorkingDirectory(repo), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range warnings.AllEntries() {
		t.Errorf("%s: %s", e.Level, e.Message)
	}
	return project
}

func service(t *testing.T, p *types.Project, name string) types.ServiceConfig {
	t.Helper()
	s, err := p.GetService(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// decode decodes a YAML file and fails on unknown fields.
func decode(t *testing.T, file string, into any) {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(read(t, file)))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// TestServices checks that every image has a fixed version or is built here, that every published
// port listens on loopback only, and that every dependency exists.
func TestServices(t *testing.T) {
	p := load(t)
	if want := []string{"gatewaysim", "grafana", "prometheus", "redis", "worker"}; !slices.Equal(p.ServiceNames(), want) {
		t.Errorf("services %v, want %v", p.ServiceNames(), want)
	}
	for name, s := range p.Services {
		if s.Build == nil && !regexp.MustCompile(`^docker\.io/[a-z/]+:v?[0-9]+\.[0-9]`).MatchString(s.Image) {
			t.Errorf("%s: image %q has no registry or no version", name, s.Image)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is published on %q", name, port.Published, port.HostIP)
			}
		}
		for dependency := range s.DependsOn {
			service(t, p, dependency)
		}
	}
}

// TestBuild checks that the Dockerfile has every build target, and that the default target, the
// production image, does not contain the simulator.
func TestBuild(t *testing.T) {
	p := load(t)
	dockerfile := read(t, repo+"/Dockerfile")
	targets := regexp.MustCompile(`(?m)^FROM .*$`).FindAllStringIndex(dockerfile, -1)
	production := dockerfile[targets[len(targets)-1][0]:]
	if strings.Contains(production, "gatewaysim") || !strings.Contains(production, "/out/worker /out/enqueue") {
		t.Errorf("the production image is built by\n%s", production)
	}
	for _, s := range p.Services {
		if s.Build == nil {
			continue
		}
		if s.Build.Context != filepath.Clean(abs(t, repo)) {
			t.Errorf("%s: build context %s", s.Name, s.Build.Context)
		}
		if target := s.Build.Target; target != "" && !strings.Contains(dockerfile, " AS "+target+"\n") {
			t.Errorf("%s: the Dockerfile has no target %s", s.Name, target)
		}
	}
	if target := service(t, p, "worker").Build.Target; target != "" {
		t.Errorf("the worker is built from target %q, want the default one", target)
	}
}

func abs(t *testing.T, file string) string {
	t.Helper()
	a, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// mounts returns the files that are mounted into a service's container: the file on the host
// by its path in the container.
func mounts(p *types.Project, s types.ServiceConfig) map[string]string {
	files := map[string]string{}
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeBind {
			files[v.Target] = v.Source
		}
	}
	for _, secret := range s.Secrets {
		target := secret.Target
		if !path.IsAbs(target) {
			target = path.Join("/run/secrets", target)
			if secret.Target == "" {
				target = path.Join("/run/secrets", secret.Source)
			}
		}
		files[target] = p.Secrets[secret.Source].File
	}
	return files
}

// TestMounts checks that every mounted file exists in the checkout, is read-only in the container
// and can be read by the container's user.
func TestMounts(t *testing.T) {
	p := load(t)
	count := 0
	for name, s := range p.Services {
		for target, source := range mounts(p, s) {
			count++
			info, err := os.Stat(source)
			if err != nil {
				t.Errorf("%s: %s: %v", name, target, err)
				continue
			}
			if !info.Mode().IsRegular() || info.Mode()&0o004 == 0 {
				t.Errorf("%s: %s has mode %s", name, source, info.Mode())
			}
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind && !v.ReadOnly {
				t.Errorf("%s: %s is writable", name, v.Target)
			}
		}
	}
	if count < 7 {
		t.Errorf("%d mounted files", count)
	}
}

// help runs a program of the checkout with --help and returns its output.
func help(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"run"}, args...), "--help")...)
	cmd.Dir = repo
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return string(out)
}

// TestSettings checks that every variable of worker and gatewaysim is a setting of the program, and
// that a setting that names a file names a mounted one.
func TestSettings(t *testing.T) {
	p := load(t)
	for name, text := range map[string]string{
		"worker":     help(t, "./cmd/worker", "run"),
		"gatewaysim": help(t, "./cmd/gatewaysim"),
	} {
		s := service(t, p, name)
		if len(s.Environment) == 0 {
			t.Errorf("%s has no environment", name)
		}
		for variable, value := range s.Environment {
			if !strings.Contains(text, "($"+variable+")") {
				t.Errorf("%s has no setting %s", name, variable)
			}
			if value == nil {
				t.Errorf("%s: %s has no value", name, variable)
			} else if strings.HasSuffix(variable, "_FILE") && mounts(p, s)[*value] == "" {
				t.Errorf("%s: %s is %s, which is not mounted", name, variable, *value)
			}
		}
	}
}

// TestStopGracePeriod checks that docker compose gives the worker more time to stop than the worker
// takes at most.
func TestStopGracePeriod(t *testing.T) {
	m := regexp.MustCompile(`--worker-shutdown-timeout=(\S+)`).FindStringSubmatch(help(t, "./cmd/worker", "run"))
	if m == nil {
		t.Fatal("no --worker-shutdown-timeout")
	}
	shutdown, err := time.ParseDuration(m[1])
	if err != nil {
		t.Fatal(err)
	}
	s := service(t, load(t), "worker")
	if _, set := s.Environment["WORKER_SHUTDOWN_TIMEOUT"]; set {
		t.Error("compare with this value instead of the default")
	}
	if s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) < shutdown+10*time.Second {
		t.Errorf("stop_grace_period %v, WORKER_SHUTDOWN_TIMEOUT %s", s.StopGracePeriod, shutdown)
	}
}

// prometheusConfig is the part of Prometheus' configuration that prometheus.yaml uses.
type prometheusConfig struct {
	Global        map[string]string `yaml:"global"`
	RuleFiles     []string          `yaml:"rule_files"`
	ScrapeConfigs []struct {
		JobName       string `yaml:"job_name"`
		StaticConfigs []struct {
			Targets []string          `yaml:"targets"`
			Labels  map[string]string `yaml:"labels"`
		} `yaml:"static_configs"`
	} `yaml:"scrape_configs"`
}

// TestAlerts checks that alerts.yaml has the alerts of the chart, with a selector for the series
// that prometheus.yaml scrapes, but those of the HTTP API, which compose.yaml does not run. To update
// the file:
//
//	GOLDEN=write go test -run TestAlerts .
func TestAlerts(t *testing.T) {
	var c prometheusConfig
	decode(t, "prometheus.yaml", &c)
	job := c.ScrapeConfigs[0]
	selector := fmt.Sprintf("namespace=%q, job=%q", job.StaticConfigs[0].Labels["namespace"], job.JobName)
	want := "# The alerts of deploy/helm/terbayar/files/alerts.yaml. GOLDEN=write go test -run TestAlerts . updates it.\n"
	_, rules, found := strings.Cut("\n"+read(t, repo+"/deploy/helm/terbayar/files/alerts.yaml"), "\ngroups:\n")
	if !found {
		t.Fatal("the chart's alerts.yaml has no groups")
	}
	rules, _, found = strings.Cut(rules, "  # Of enqueue serve.")
	if !found {
		t.Fatal("the chart's alerts.yaml has no group of the HTTP API")
	}
	want += "groups:\n" + strings.ReplaceAll(rules, "SELECTOR", selector)
	if os.Getenv("GOLDEN") == "write" {
		if err := os.WriteFile("alerts.yaml", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, "alerts.yaml") != want {
		t.Error("alerts.yaml differs from the chart's alerts")
	}
	if !slices.Equal(c.RuleFiles, []string{"alerts.yaml"}) {
		t.Errorf("rule files %v", c.RuleFiles)
	}
	if m := mounts(load(t), service(t, load(t), "prometheus")); m["/etc/prometheus/prometheus.yml"] != abs(t, "prometheus.yaml") || m["/etc/prometheus/alerts.yaml"] != abs(t, "alerts.yaml") {
		t.Errorf("mounts of prometheus: %v", m)
	}
}

// TestGrafana checks that the provisioning files are valid, that the data source is the Prometheus
// of compose.yaml, and that the dashboard of the chart is mounted where the provider looks for it.
func TestGrafana(t *testing.T) {
	p := load(t)
	grafana := service(t, p, "grafana")
	files := mounts(p, grafana)
	var sources struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name      string `yaml:"name"`
			UID       string `yaml:"uid"`
			Type      string `yaml:"type"`
			Access    string `yaml:"access"`
			URL       string `yaml:"url"`
			IsDefault bool   `yaml:"isDefault"`
		} `yaml:"datasources"`
	}
	decode(t, files["/etc/grafana/provisioning/datasources/terbayar.yaml"], &sources)
	if len(sources.Datasources) != 1 || sources.APIVersion != 1 {
		t.Fatalf("%+v", sources)
	}
	// Port 9090 is the default of Prometheus.
	if d := sources.Datasources[0]; d.Type != "prometheus" || d.Access != "proxy" || !d.IsDefault || d.URL != "http://"+service(t, p, "prometheus").Name+":9090" {
		t.Errorf("%+v", d)
	}
	var dashboards struct {
		APIVersion int `yaml:"apiVersion"`
		Providers  []struct {
			Name    string            `yaml:"name"`
			Type    string            `yaml:"type"`
			Options map[string]string `yaml:"options"`
		} `yaml:"providers"`
	}
	decode(t, files["/etc/grafana/provisioning/dashboards/terbayar.yaml"], &dashboards)
	if len(dashboards.Providers) != 1 || dashboards.APIVersion != 1 || dashboards.Providers[0].Type != "file" {
		t.Fatalf("%+v", dashboards)
	}
	home := *grafana.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
	if path.Dir(home) != dashboards.Providers[0].Options["path"] || files[home] != abs(t, repo+"/deploy/helm/terbayar/files/dashboard.json") {
		t.Errorf("home dashboard %s, provider %v, mounts %v", home, dashboards.Providers[0].Options, files)
	}
	if !json.Valid([]byte(read(t, files[home]))) {
		t.Error("the dashboard is not valid JSON")
	}
	for variable, want := range map[string]string{
		"GF_AUTH_ANONYMOUS_ENABLED": "true", "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer", "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
	} {
		if value := grafana.Environment[variable]; value == nil || *value != want {
			t.Errorf("%s is not %s", variable, want)
		}
	}
}
