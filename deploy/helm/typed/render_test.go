package typed

import (
	"bytes"
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

const (
	chart     = "../terbayar"
	repo      = "../../.."
	namespace = "payments"
)

// kinds lists the kinds that the chart may render. Any other kind fails the tests, for example a
// Secret or a Role.
var kinds = map[string]reflect.Type{
	"apps/v1 Deployment":                      reflect.TypeFor[apps.Deployment](),
	"autoscaling/v2 HorizontalPodAutoscaler":  reflect.TypeFor[autoscaling.HorizontalPodAutoscaler](),
	"gateway.networking.k8s.io/v1 HTTPRoute":  reflect.TypeFor[gateway.HTTPRoute](),
	"keda.sh/v1alpha1 ScaledObject":           reflect.TypeFor[keda.ScaledObject](),
	"keda.sh/v1alpha1 TriggerAuthentication":  reflect.TypeFor[keda.TriggerAuthentication](),
	"monitoring.coreos.com/v1 PodMonitor":     reflect.TypeFor[monitoring.PodMonitor](),
	"monitoring.coreos.com/v1 PrometheusRule": reflect.TypeFor[monitoring.PrometheusRule](),
	"networking.k8s.io/v1 Ingress":            reflect.TypeFor[networking.Ingress](),
	"networking.k8s.io/v1 NetworkPolicy":      reflect.TypeFor[networking.NetworkPolicy](),
	"policy/v1 PodDisruptionBudget":           reflect.TypeFor[policy.PodDisruptionBudget](),
	"v1 ConfigMap":                            reflect.TypeFor[core.ConfigMap](),
	"v1 Pod":                                  reflect.TypeFor[core.Pod](),
	"v1 Service":                              reflect.TypeFor[core.Service](),
	"v1 ServiceAccount":                       reflect.TypeFor[core.ServiceAccount](),
}

// release is the output of one helm template.
type release struct {
	name    string // of the release
	objects []meta.Object
	raw     []string // the objects as YAML
}

// valueFiles returns the chart's values files in ci/.
func valueFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(chart + "/ci/*-values.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d values files, %v", len(files), err)
	}
	return files
}

// everyRelease runs a check with every values file, once with a short release name and once with
// the longest that helm allows.
func everyRelease(t *testing.T, check func(*testing.T, *release)) {
	for _, file := range valueFiles(t) {
		for _, name := range []string{"terbayar", "a-release-whose-name-has-fifty-three-characters-12345"} {
			t.Run(strings.TrimSuffix(filepath.Base(file), "-values.yaml")+"/"+name, func(t *testing.T) {
				check(t, render(t, name, "--values", file))
			})
		}
	}
}

// rendered caches releases, because helm is slow. The tests do not modify them.
var rendered = map[string]*release{}

// render runs helm template and decodes its output.
func render(t *testing.T, name string, args ...string) *release {
	t.Helper()
	key := name + " " + strings.Join(args, " ")
	if r := rendered[key]; r != nil {
		return r
	}
	args = append([]string{
		"template", name, chart, "--namespace", namespace, "--kube-version", "1.31.0",
		"--api-versions", "keda.sh/v1alpha1/ScaledObject",
		"--api-versions", "monitoring.coreos.com/v1/PodMonitor",
		"--api-versions", "monitoring.coreos.com/v1/PrometheusRule",
		"--api-versions", "gateway.networking.k8s.io/v1/HTTPRoute",
	}, args...)
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), cmp.Or(os.Getenv("HELM"), "helm"), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	r := &release{name: name}
	for doc := range strings.SplitSeq("\n"+out.String(), "\n---\n") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		var head meta.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		kind, known := kinds[head.APIVersion+" "+head.Kind]
		if !known {
			t.Fatalf("the chart may not render %s %s:\n%s", head.APIVersion, head.Kind, doc)
		}
		decoded := reflect.New(kind).Interface().(meta.Object)
		if err := yaml.UnmarshalStrict([]byte(doc), decoded); err != nil {
			t.Fatalf("%s: %v\n%s", head.Kind, err, doc)
		}
		r.objects, r.raw = append(r.objects, decoded), append(r.raw, doc)
	}
	rendered[key] = r
	return r
}

// all returns the objects of one kind.
func all[T any](r *release) []*T {
	var found []*T
	for _, o := range r.objects {
		if o, ok := o.(any).(*T); ok {
			found = append(found, o)
		}
	}
	return found
}

// of returns the objects of one kind that belong to a component.
func of[T any](r *release, component string) []*T {
	var found []*T
	for _, o := range r.objects {
		if typed, ok := o.(any).(*T); ok && componentOf(o) == component {
			found = append(found, typed)
		}
	}
	return found
}

func componentOf(o meta.Object) string { return o.GetLabels()["app.kubernetes.io/component"] }

// only returns the only object of its kind that belongs to a component.
func only[T any](t *testing.T, r *release, component string) *T {
	t.Helper()
	found := of[T](r, component)
	if len(found) != 1 {
		t.Fatalf("%d objects of kind %s and component %s, want one", len(found), reflect.TypeFor[T](), component)
	}
	return found[0]
}

// components returns the components with a Deployment: the workers, and the API if it is enabled.
func components(t *testing.T, r *release) []string {
	t.Helper()
	found := []string{"worker"}
	if len(of[apps.Deployment](r, "api")) == 1 {
		found = append(found, "api")
	}
	if n := len(all[apps.Deployment](r)); n != len(found) {
		t.Fatalf("%d Deployments", n)
	}
	return found
}
