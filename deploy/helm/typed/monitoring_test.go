package typed

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestAlerts compares the chart's alerts with those of the runbook.
func TestAlerts(t *testing.T) {
	var documented, shipped struct{ Groups []monitoring.RuleGroup }
	block := regexp.MustCompile("(?s)```yaml\n(groups:\n.*?)```").FindStringSubmatch(read(t, repo+"/docs/runbook.md"))
	if block == nil {
		t.Fatal("docs/runbook.md has no YAML block of alerts")
	}
	if err := yaml.UnmarshalStrict([]byte(block[1]), &documented); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict([]byte(read(t, chart+"/files/alerts.yaml")), &shipped); err != nil {
		t.Fatal(err)
	}
	rules := func(groups []monitoring.RuleGroup) string {
		var text strings.Builder
		for _, g := range groups {
			for _, r := range g.Rules {
				expr := strings.NewReplacer(", SELECTOR", "", "{SELECTOR}", "", ", API_SELECTOR", "", "{API_SELECTOR}", "").Replace(r.Expr.String())
				wait := "0s"
				if r.For != nil {
					wait = string(*r.For)
				}
				fmt.Fprintln(&text, r.Alert, wait, strings.Join(strings.Fields(expr), " "))
			}
		}
		return text.String()
	}
	if want, got := rules(documented.Groups), rules(shipped.Groups); got != want {
		t.Errorf("files/alerts.yaml:\n%s\ndocs/runbook.md:\n%s", got, want)
	}
	for _, g := range shipped.Groups {
		for _, r := range g.Rules {
			if r.Labels["severity"] != "warning" && r.Labels["severity"] != "critical" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: %v %v", r.Alert, r.Labels, r.Annotations)
			}
			if ofAPI := strings.Contains(r.Expr.String(), "API_SELECTOR"); ofAPI != (g.Name == "terbayar-api") {
				t.Errorf("%s is in the group %s", r.Alert, g.Name)
			}
		}
	}
}

// metrics returns the names of the worker's metrics, parsed from its source and from that of
// asynq's collector.
func metrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{
		"up": true, "go_goroutines": true, "process_cpu_seconds_total": true, "process_resident_memory_bytes": true,
	}
	files, err := filepath.Glob(repo + "/internal/telemetry/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		for _, m := range regexp.MustCompile(`"(terbayar_[a-z_]+)"`).FindAllStringSubmatch(read(t, file), -1) {
			names[m[1]] = true
		}
	}
	collector := read(t, filepath.Join(moduleDir(t, repo, "github.com/hibiken/asynq/x"), "metrics/metrics.go"))
	for _, m := range regexp.MustCompile(`BuildFQName\(namespace, "", "([a-z_]+)"\)`).FindAllStringSubmatch(collector, -1) {
		names["asynq_"+m[1]] = true
	}
	if len(names) < 15 {
		t.Fatalf("metrics: %v", names)
	}
	return names
}

// selected matches a metric with its selector in an expression.
var selected = regexp.MustCompile(`([a-z_]+)\{([^}]*)\}`)

// TestExpressions checks that alerts and dashboard use only metrics that the worker has, and
// select only the series of their own release. TestTriggers does the same for KEDA.
func TestExpressions(t *testing.T) {
	names := metrics(t)
	histogram := regexp.MustCompile(`_(count|sum|bucket)$`)
	checked := 0
	check := func(t *testing.T, where, expr string, selectors ...string) {
		t.Helper()
		for _, m := range selected.FindAllStringSubmatch(expr, -1) {
			checked++
			if !names[m[1]] && !names[histogram.ReplaceAllString(m[1], "")] {
				t.Errorf("%s: the worker has no metric %s", where, m[1])
			}
			for _, s := range selectors {
				if !strings.Contains(m[2], s) {
					t.Errorf("%s: %s does not select %s", where, m[0], s)
				}
			}
		}
		for _, m := range regexp.MustCompile(`\b(terbayar|asynq)_[a-z_]+\b.?`).FindAllString(expr, -1) {
			if !strings.HasSuffix(m, "{") {
				t.Errorf("%s: %s has no selector", where, m)
			}
		}
	}
	everyRelease(t, func(t *testing.T, r *release) {
		for _, o := range all[monitoring.PodMonitor](r) {
			if rel := o.Spec.PodMetricsEndpoints[0].RelabelConfigs; len(rel) != 1 || rel[0].TargetLabel != "job" || *rel[0].Replacement != o.Name {
				t.Errorf("job is not %s: %+v", o.Name, rel)
			}
		}
		for _, o := range all[monitoring.PrometheusRule](r) {
			if len(o.Spec.Groups) != len(components(t, r)) {
				t.Errorf("%d groups of alerts", len(o.Spec.Groups))
			}
			for _, g := range o.Spec.Groups { // named as the PodMonitor, which sets job
				for _, rule := range g.Rules {
					check(t, rule.Alert, rule.Expr.String(), `namespace="`+namespace+`"`, `job="`+g.Name+`"`)
					if strings.Contains(rule.Expr.String(), "SELECTOR") {
						t.Errorf("%s: %s", rule.Alert, rule.Expr.String())
					}
				}
			}
		}
		for _, c := range all[core.ConfigMap](r) {
			if c.Data["terbayar.json"] != "" {
				for where, expr := range panels(t, c.Data["terbayar.json"]) {
					check(t, where, expr, `namespace=~"$namespace"`, `job=~"$job"`)
				}
			}
		}
	})
	if checked < 30 {
		t.Errorf("%d metrics checked", checked)
	}
}

// panels returns the queries of a Grafana dashboard by panel title and reference id. Panels must
// have unique ids and must not overlap.
func panels(t *testing.T, dashboard string) map[string]string {
	t.Helper()
	var d struct {
		UID    string
		Panels []struct {
			ID          int
			Type, Title string
			Description string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal([]byte(dashboard), &d); err != nil {
		t.Fatal(err)
	}
	queries, ids, cells := map[string]string{}, map[int]string{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] != "" {
			t.Errorf("%s and %s have the same id", ids[p.ID], p.Title)
		}
		ids[p.ID] = p.Title
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if cells[cell] != "" || cell[0] > 23 {
					t.Fatalf("%q overlaps %q", p.Title, cells[cell])
				}
				cells[cell] = p.Title
			}
		}
		if p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("%s has no description or no query", p.Title)
		}
		for _, target := range p.Targets {
			queries[p.Title+" "+target.RefID] = target.Expr
		}
	}
	if d.UID == "" || len(queries) < 10 {
		t.Errorf("dashboard %q with %d queries", d.UID, len(queries))
	}
	return queries
}
