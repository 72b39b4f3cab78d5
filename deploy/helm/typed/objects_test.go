package typed

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// TestMetadata checks that names are valid in Kubernetes even for the longest release name, that
// every object is in the release's namespace and has the standard labels, and that no field is
// empty.
func TestMetadata(t *testing.T) {
	everyRelease(t, func(t *testing.T, r *release) {
		seen := map[string]bool{}
		for i, o := range r.objects {
			id := fmt.Sprintf("%T %s", o, o.GetName())
			if seen[id] {
				t.Errorf("%s is rendered twice", id)
			}
			seen[id] = true
			if errs := validation.IsDNS1035Label(o.GetName()); errs != nil {
				t.Errorf("%s: %v", id, errs)
			}
			if o.GetNamespace() != namespace {
				t.Errorf("%s is in namespace %q", id, o.GetNamespace())
			}
			for _, name := range []string{
				"helm.sh/chart", "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version",
				"app.kubernetes.io/managed-by", "app.kubernetes.io/part-of",
			} {
				if o.GetLabels()[name] == "" {
					t.Errorf("%s has no label %s", id, name)
				}
			}
			for name, value := range o.GetLabels() {
				if errs := validation.IsValidLabelValue(value); errs != nil {
					t.Errorf("%s: label %s: %v", id, name, errs)
				}
			}
			var tree any
			if err := yaml.Unmarshal([]byte(r.raw[i]), &tree); err != nil {
				t.Fatal(err)
			}
			findEmpty(tree, "", func(where string) { t.Errorf("%s: %s is empty", id, where) })
			if strings.Contains(r.raw[i], " \n") {
				t.Errorf("%s: a line ends with a space", id)
			}
		}
	})
}

// findEmpty reports every null, empty map and empty list in a tree: a template is missing a "with".
func findEmpty(node any, where string, report func(string)) {
	switch node := node.(type) {
	case nil:
		report(where)
	case map[string]any:
		if len(node) == 0 {
			report(where)
		}
		for key, value := range node {
			findEmpty(value, where+"."+key, report)
		}
	case []any:
		if len(node) == 0 {
			report(where)
		}
		for i, value := range node {
			findEmpty(value, fmt.Sprintf("%s[%d]", where, i), report)
		}
	}
}

// TestSelectors checks that every selector of a component selects all its pods and nothing else: not
// those of the other component, and not those that run a check.
func TestSelectors(t *testing.T) {
	everyRelease(t, func(t *testing.T, r *release) {
		for _, component := range components(t, r) {
			deployment := only[apps.Deployment](t, r, component)
			pod := labels.Set(deployment.Spec.Template.Labels)
			selects := func(what string, s *meta.LabelSelector, checks ...string) {
				t.Helper()
				selector, err := meta.LabelSelectorAsSelector(s)
				if err != nil || selector.Empty() {
					t.Errorf("%s of %s: selector %v, %v", what, component, s, err)
					return
				}
				for name, other := range pods(t, r) {
					if selector.Matches(labels.Set(other.Labels)) != (name == component || slices.Contains(checks, name)) {
						t.Errorf("%s of %s (%s): wrong for the pod %s (%s)", what, component, selector, name, other.Labels)
					}
				}
				for name := range pod {
					other := labels.Merge(pod, labels.Set{name: "another"})
					if strings.HasPrefix(name, "app.kubernetes.io/") && selector.Matches(other) {
						t.Errorf("%s of %s (%s) ignores the label %s", what, component, selector, name)
					}
				}
			}
			selects("Deployment", deployment.Spec.Selector)
			selects("Service", meta.SetAsLabelSelector(only[core.Service](t, r, component).Spec.Selector))
			for _, o := range of[policy.PodDisruptionBudget](r, component) {
				selects("PodDisruptionBudget", o.Spec.Selector)
			}
			for _, o := range of[monitoring.PodMonitor](r, component) {
				selects("PodMonitor", &o.Spec.Selector)
			}
			for _, o := range of[networking.NetworkPolicy](r, component) {
				if component == "worker" {
					selects("NetworkPolicy", &o.Spec.PodSelector, "worker-check")
				} else {
					selects("NetworkPolicy", &o.Spec.PodSelector)
				}
			}
			if len(deployment.Spec.Template.Spec.TopologySpreadConstraints) == 0 {
				t.Error("no topology spread")
			}
			for _, c := range deployment.Spec.Template.Spec.TopologySpreadConstraints {
				selects("topology spread over "+c.TopologyKey, c.LabelSelector)
			}
		}
	})
}

// TestSelectorsUnchanged compares names and selectors of the Deployments with those of the
// previous chart. An upgrade cannot change either: the selector of a Deployment is immutable, and
// a Deployment with a new name runs in addition to the old one. To change them on purpose, raise
// the chart's major version, list in CHANGELOG.md what to delete by hand, and update the file:
//
//	GOLDEN=write go test -run TestSelectorsUnchanged ./...
func TestSelectorsUnchanged(t *testing.T) {
	const golden = chart + "/tests/selectors.golden"
	var now strings.Builder
	for _, file := range valueFiles(t) {
		for _, d := range all[apps.Deployment](render(t, "terbayar", "--values", file)) {
			fmt.Fprintf(&now, "%s %s %s\n", filepath.Base(file), d.Name, meta.FormatLabelSelector(d.Spec.Selector))
		}
	}
	if os.Getenv("GOLDEN") == "write" {
		if err := os.WriteFile(golden, []byte(now.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(before)) { // a new values file has no line yet
		if !strings.Contains(now.String(), line) {
			t.Errorf("an upgrade would change\n%snow:\n%s", line, now.String())
		}
	}
	if strings.Count(string(before), "\n") < 5 {
		t.Errorf("%s has too few lines", golden)
	}
}

// pods returns the pods of the Deployments and those that run a check, by component.
func pods(t *testing.T, r *release) map[string]core.PodTemplateSpec {
	t.Helper()
	found := map[string]core.PodTemplateSpec{}
	for _, component := range components(t, r) {
		found[component] = only[apps.Deployment](t, r, component).Spec.Template
	}
	for _, p := range all[core.Pod](r) {
		found[componentOf(p)] = core.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}
	}
	if len(found) < 2 || len(found) != len(components(t, r))+len(all[core.Pod](r)) {
		t.Fatalf("%d kinds of pods", len(found))
	}
	return found
}

// ofAPI reports whether a pod runs enqueue instead of worker.
func ofAPI(component string) bool { return strings.HasPrefix(component, "api") }

// TestHardened checks the security settings that no value can change.
func TestHardened(t *testing.T) {
	everyRelease(t, func(t *testing.T, r *release) {
		for name, template := range pods(t, r) {
			pod := template.Spec
			if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot ||
				s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
				t.Errorf("%s: pod security context %+v", name, s)
			}
			if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
				t.Errorf("%s mounts a service account token", name)
			}
			if pod.HostNetwork || pod.HostPID || pod.HostIPC || len(pod.InitContainers) != 0 || len(pod.Containers) != 1 {
				t.Errorf("%s: host namespaces or more containers", name)
			}
			for _, c := range pod.Containers {
				s := c.SecurityContext
				if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Privileged == nil || *s.Privileged ||
					s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
					s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || s.Capabilities.Add != nil {
					t.Errorf("%s: container security context %+v", name, s)
				}
				if ofAPI(name) && !slices.Equal(c.Command, []string{"enqueue"}) || !ofAPI(name) && c.Command != nil {
					t.Errorf("%s: command %q; the entrypoint of the image is worker", name, c.Command)
				}
				if tag := regexp.MustCompile(`[^/](:[\w.-]+|@sha256:[0-9a-f]{64})$`).FindStringSubmatch(c.Image); tag == nil || tag[1] == ":latest" {
					t.Errorf("%s: image %q has no fixed tag or digest", name, c.Image)
				}
				if c.TerminationMessagePolicy != core.TerminationMessageFallbackToLogsOnError {
					t.Errorf("%s: the pod's status does not contain why it ended", name)
				}
				if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
					t.Errorf("%s: resources %+v", name, c.Resources)
				}
			}
		}
		for _, o := range all[core.ServiceAccount](r) {
			if o.AutomountServiceAccountToken == nil || *o.AutomountServiceAccountToken {
				t.Error("the ServiceAccount mounts its token")
			}
		}
	})
}

// TestRollout checks that workers are replaced one after another, each before the old one stops,
// and that the grace period is longer than the timeouts.
func TestRollout(t *testing.T) {
	everyRelease(t, func(t *testing.T, r *release) {
		for _, d := range all[apps.Deployment](r) {
			rolling := d.Spec.Strategy.RollingUpdate
			if rolling == nil || *rolling.MaxUnavailable != intstr.FromInt32(0) || *rolling.MaxSurge != intstr.FromInt32(1) || d.Spec.MinReadySeconds < 1 {
				t.Errorf("%s: strategy %+v", d.Name, d.Spec.Strategy)
			}
		}
		for _, o := range all[policy.PodDisruptionBudget](r) {
			if o.Spec.MinAvailable != nil || *o.Spec.MaxUnavailable != intstr.FromInt32(1) {
				t.Errorf("disruption budget %+v", o.Spec)
			}
		}
		for _, component := range components(t, r) {
			settings := settings(t, r, component)
			duration := func(name string) time.Duration {
				d, err := time.ParseDuration(settings[name])
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				return d
			}
			grace := time.Duration(*only[apps.Deployment](t, r, component).Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
			if component == "api" {
				if delay, shutdown := duration("SERVE_SHUTDOWN_DELAY"), duration("SERVE_SHUTDOWN_TIMEOUT"); delay < time.Second || delay+shutdown+8*time.Second >= grace {
					t.Errorf("delay %s, shutdown %s, grace %s", delay, shutdown, grace)
				}
			} else if gateway, shutdown := duration("GATEWAY_TIMEOUT"), duration("WORKER_SHUTDOWN_TIMEOUT"); gateway >= shutdown || shutdown >= grace {
				t.Errorf("gateway %s, shutdown %s, grace %s", gateway, shutdown, grace)
			}
		}
	})
}

// TestSettingsInTemplate checks that every setting and the retry policy are a part of the pod
// template: a pod that restarts during a bad upgrade has its own, and kubectl rollout undo restores
// them. It also checks that a changed setting restarts the workers, and that other values do not.
func TestSettingsInTemplate(t *testing.T) {
	everyRelease(t, func(t *testing.T, r *release) {
		for name, pod := range pods(t, r) {
			for _, from := range pod.Spec.Containers[0].EnvFrom {
				if from.ConfigMapRef == nil || from.ConfigMapRef.Name != "proxy" {
					t.Errorf("%s: environment from %+v", name, from)
				}
			}
		}
		for _, c := range all[core.ConfigMap](r) {
			if c.Data["terbayar.json"] == "" { // the dashboard
				t.Errorf("ConfigMap %s", c.Name)
			}
		}
	})
	template := func(component string, args ...string) string {
		r := render(t, "terbayar", append([]string{"--values", chart + "/ci/full-values.yaml"}, args...)...)
		out, err := yaml.Marshal(only[apps.Deployment](t, r, component).Spec.Template)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	before := map[string]string{"worker": template("worker"), "api": template("api")}
	for change, restarts := range map[string][]string{
		"worker.gatewayTimeout=21s":                    {"worker"},
		"paydia.channelId=00124":                       {"worker"},
		"retryPolicy.gateways.paydia.verify.settle=6m": {"worker"},
		"webhooks.schedule=1s":                         {"worker"},
		"webhooks.existingSecret=other":                {"worker"},
		"paydia.merchantId=1":                          {"worker", "api"},
		"redis.durability=none":                        {"worker", "api"},
		"api.shutdownTimeout=31s":                      {"api"},
		"api.rateLimit=1/s":                            {"api"},
		"service.annotations.a=b":                      {},
		"ingress.host=other.example.com":               {},
		"api.ingress.host=other.example.net":           {},
		"metrics.podMonitor.interval=1m":               {},
	} {
		for component := range before {
			if changed := template(component, "--set-string", change) != before[component]; changed != slices.Contains(restarts, component) {
				t.Errorf("%s: the pod template of %s changes: %t", change, component, changed)
			}
		}
	}
}

// TestPorts checks that every port name refers to a port of its component, and that the API's metrics
// and health have a port that neither its Service nor Ingress or HTTPRoute leads to.
func TestPorts(t *testing.T) {
	everyRelease(t, func(t *testing.T, r *release) {
		for _, component := range components(t, r) {
			container := only[apps.Deployment](t, r, component).Spec.Template.Spec.Containers[0]
			ports := map[string]int32{}
			for _, p := range container.Ports {
				ports[p.Name] = p.ContainerPort
			}
			want := func(what, port, name string) {
				t.Helper()
				if port != name || ports[name] == 0 {
					t.Errorf("%s of %s names port %q, not %s; the container has %v", what, component, port, name, ports)
				}
			}
			public, private := "http", "http"
			addresses := map[string]string{"WORKER_HTTP_ADDR": "http"}
			if component == "api" {
				public, private = "api", "metrics"
				addresses = map[string]string{"SERVE_HTTP_ADDR": "api", "SERVE_METRICS_ADDR": "metrics"}
			}
			for setting, port := range addresses {
				if addr := settings(t, r, component)[setting]; ports[port] == 0 || addr != fmt.Sprintf(":%d", ports[port]) {
					t.Errorf("%s is %s, the container has %v", setting, addr, ports)
				}
			}
			for path, probe := range map[string]*core.Probe{
				"/healthz": container.LivenessProbe, "/readyz": container.ReadinessProbe, "/healthz ": container.StartupProbe,
			} {
				if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != strings.TrimSpace(path) || probe.HTTPGet.Scheme != "" {
					t.Errorf("probe of %s: %+v", path, probe)
					continue
				}
				want("probe of "+path, probe.HTTPGet.Port.StrVal, private)
			}
			service := only[core.Service](t, r, component)
			if len(service.Spec.Ports) != 1 {
				t.Errorf("Service %+v", service.Spec.Ports)
			}
			want("Service", service.Spec.Ports[0].TargetPort.StrVal, public)
			for _, o := range of[monitoring.PodMonitor](r, component) {
				for _, e := range o.Spec.PodMetricsEndpoints {
					want("PodMonitor", *e.Port, private)
				}
			}
			for _, o := range of[networking.NetworkPolicy](r, component) {
				want("NetworkPolicy", o.Spec.Ingress[0].Ports[0].Port.StrVal, public)
				want("NetworkPolicy", o.Spec.Ingress[len(o.Spec.Ingress)-1].Ports[0].Port.StrVal, private)
				for _, in := range o.Spec.Ingress {
					if len(in.Ports) != 1 || component == "api" && in.Ports[0].Port.StrVal == public && len(in.From) < 2 {
						t.Errorf("NetworkPolicy %s: %+v", o.Name, in)
					}
				}
			}
		}
		hosts := map[string]string{} // by component
		for _, o := range all[networking.Ingress](r) {
			hosts[componentOf(o)] += o.Spec.Rules[0].Host + " "
			service := only[core.Service](t, r, componentOf(o))
			for _, p := range o.Spec.Rules[0].HTTP.Paths {
				if b := p.Backend.Service; b.Name != service.Name || b.Port.Name != service.Spec.Ports[0].Name || !exposed(componentOf(o), p.Path) {
					t.Errorf("Ingress %+v leads to %+v", p, b)
				}
			}
		}
		for _, o := range all[gateway.HTTPRoute](r) {
			hosts[componentOf(o)] += string(o.Spec.Hostnames[0]) + " "
			service := only[core.Service](t, r, componentOf(o))
			for _, rule := range o.Spec.Rules {
				for _, m := range rule.Matches {
					if !exposed(componentOf(o), *m.Path.Value) {
						t.Errorf("HTTPRoute %+v", *m.Path.Value)
					}
				}
				if b := rule.BackendRefs[0]; len(rule.Matches) == 0 || string(b.Name) != service.Name || *b.Port != service.Spec.Ports[0].Port {
					t.Errorf("HTTPRoute leads to %+v", b)
				}
			}
		}
		for host := range strings.FieldsSeq(hosts["worker"]) {
			if strings.Contains(hosts["api"], host) {
				t.Errorf("the web UI is on the host of the API, %s", host)
			}
		}
	})
}

// exposed reports whether a path may be reached from outside the cluster.
func exposed(component, path string) bool {
	if component == "worker" {
		return path == "/monitoring"
	}
	return slices.Contains([]string{"/v1", "/openapi.json", "/docs", "/callbacks"}, path)
}

// TestReferences checks that every ConfigMap, Secret and ServiceAccount that a pod needs is in the
// release or named in the values, and that every file that a setting names is mounted.
func TestReferences(t *testing.T) {
	for _, file := range valueFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			r := render(t, "terbayar", "--values", file)
			values, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			ours := map[string]map[string]string{}
			for _, c := range all[core.ConfigMap](r) {
				ours[c.Name] = c.Data
			}
			exists := func(what, name string) {
				t.Helper()
				theirs := regexp.MustCompile(`(?m): ` + regexp.QuoteMeta(name) + `$`).Match(values)
				if ours[name] == nil && !theirs {
					t.Errorf("%s %q is neither in the release nor named in the values", what, name)
				}
			}
			for name, template := range pods(t, r) {
				pod := template.Spec
				account := "worker"
				if ofAPI(name) {
					account = "api"
				}
				if accounts := of[core.ServiceAccount](r, account); len(accounts) == 1 && pod.ServiceAccountName != accounts[0].Name {
					t.Errorf("%s runs as %s", name, pod.ServiceAccountName)
				}
				isCheck := name != "worker" && name != "api"
				files := map[string]map[string]bool{} // by volume
				for _, v := range pod.Volumes {
					files[v.Name] = map[string]bool{}
					switch {
					case v.Secret != nil:
						exists("Secret", v.Secret.SecretName)
						if optional := v.Secret.Optional != nil; optional != isCheck {
							t.Errorf("%s: volume %s is optional: %t", name, v.Name, optional)
						}
						if *v.Secret.DefaultMode != 0o440 {
							t.Errorf("%s: mode %o", v.Name, *v.Secret.DefaultMode)
						}
						for _, item := range v.Secret.Items {
							files[v.Name][item.Path] = true
						}
						if v.Name == "webhooks" { // all keys of the Secret
							files[v.Name]["webhooks.yaml"] = len(v.Secret.Items) == 0
						}
					case v.DownwardAPI != nil:
						for _, item := range v.DownwardAPI.Items {
							_, annotation, _ := strings.Cut(strings.TrimSuffix(item.FieldRef.FieldPath, "']"), "metadata.annotations['")
							if template.Annotations[annotation] == "" {
								t.Errorf("%s: volume %s: no annotation %q", name, v.Name, annotation)
							}
							files[v.Name][item.Path] = true
						}
					case v.ConfigMap != nil:
						exists("ConfigMap", v.ConfigMap.Name)
						for _, item := range v.ConfigMap.Items {
							files[v.Name][item.Path] = true
						}
						for key := range ours[v.ConfigMap.Name] {
							files[v.Name][key] = true
						}
					}
				}
				c := pod.Containers[0]
				mounted := map[string]bool{}
				for _, m := range c.VolumeMounts {
					if files[m.Name] == nil {
						t.Errorf("%s mounts volume %s, which does not exist", name, m.Name)
					}
					for f := range files[m.Name] {
						mounted[path.Join(m.MountPath, f)] = true
					}
					mounted[m.MountPath] = true
				}
				for _, from := range c.EnvFrom {
					exists("ConfigMap", from.ConfigMapRef.Name)
				}
				for _, e := range c.Env {
					if e.ValueFrom != nil {
						exists("Secret", e.ValueFrom.SecretKeyRef.Name)
						if optional := e.ValueFrom.SecretKeyRef.Optional != nil; optional != isCheck {
							t.Errorf("%s: %s is optional: %t", name, e.Name, optional)
						}
					}
				}
				for setting, value := range plain(c.Env) {
					if strings.HasSuffix(setting, "_FILE") || strings.HasSuffix(setting, "_DIR") {
						if !mounted[value] {
							t.Errorf("%s: %s is %s; mounted are %v", name, setting, value, mounted)
						}
					}
				}
			}
			for _, a := range all[keda.TriggerAuthentication](r) {
				for _, ref := range a.Spec.SecretTargetRef {
					exists("Secret", ref.Name)
				}
				for _, ref := range a.Spec.ConfigMapTargetRef {
					exists("ConfigMap", ref.Name)
				}
			}
		})
	}
}

// TestOneAutoscaler checks that at most one of HPA and KEDA is rendered, that the Deployment sets
// the number of replicas only without them, and that the number is never zero.
func TestOneAutoscaler(t *testing.T) {
	everyRelease(t, func(t *testing.T, r *release) {
		for _, component := range components(t, r) {
			d := only[apps.Deployment](t, r, component)
			hpas, scaled := of[autoscaling.HorizontalPodAutoscaler](r, component), of[keda.ScaledObject](r, component)
			if len(hpas)+len(scaled) > 1 {
				t.Error("two autoscalers")
			}
			if (d.Spec.Replicas == nil) != (len(hpas)+len(scaled) == 1) || d.Spec.Replicas != nil && *d.Spec.Replicas < 1 {
				t.Errorf("replicas %v with %d autoscalers", d.Spec.Replicas, len(hpas)+len(scaled))
			}
			for _, h := range hpas {
				if h.Spec.ScaleTargetRef.Name != d.Name || *h.Spec.MinReplicas < 1 {
					t.Errorf("%+v", h.Spec)
				}
			}
			for _, s := range scaled {
				if s.Spec.ScaleTargetRef.Name != d.Name || s.Spec.MinReplicaCount == nil || *s.Spec.MinReplicaCount < 1 || s.Spec.IdleReplicaCount != nil {
					t.Errorf("%+v", s.Spec)
				}
			}
		}
	})
}

// TestTriggers checks that KEDA's source has every field of a trigger, and that the list or query
// is that of a submit queue.
func TestTriggers(t *testing.T) {
	fields := map[string]map[string]bool{}
	for kind, source := range map[string]string{"redis": "redis_scaler.go", "prometheus": "prometheus_scaler.go"} {
		fields[kind] = map[string]bool{}
		for _, m := range regexp.MustCompile(`keda:"name=([^,]+),`).FindAllStringSubmatch(read(t, filepath.Join(moduleDir(t, ".", "github.com/kedacore/keda/v2"), "pkg/scalers", source)), -1) {
			for name := range strings.SplitSeq(m[1], ";") {
				fields[kind][name] = true
			}
		}
	}
	fields["redis-sentinel"], fields["redis-cluster"] = fields["redis"], fields["redis"]
	pending := regexp.MustCompile(`^asynq:\{(amdigipay|paydia)(-interactive)?\}:pending$`)
	latency := regexp.MustCompile(`^max\(asynq_queue_latency_seconds\{queue=~"(amdigipay|paydia)\(-interactive\)\?", `)
	triggers := 0
	everyRelease(t, func(t *testing.T, r *release) {
		authentications := map[string]*keda.TriggerAuthentication{}
		for _, a := range all[keda.TriggerAuthentication](r) {
			authentications[a.Name] = a
		}
		for _, s := range all[keda.ScaledObject](r) {
			for _, trigger := range s.Spec.Triggers {
				triggers++
				for field := range trigger.Metadata {
					if !fields[trigger.Type][field] {
						t.Errorf("%s has no field %s", trigger.Type, field)
					}
				}
				if trigger.Type == "prometheus" {
					if !latency.MatchString(trigger.Metadata["query"]) || trigger.MetricType != autoscaling.ValueMetricType {
						t.Errorf("%+v", trigger)
					}
					continue
				}
				if !pending.MatchString(trigger.Metadata["listName"]) || trigger.MetricType != autoscaling.AverageValueMetricType {
					t.Errorf("%+v", trigger)
				}
				if ref := trigger.AuthenticationRef; ref != nil {
					if authentications[ref.Name] == nil {
						t.Fatalf("TriggerAuthentication %s does not exist", ref.Name)
					}
					for _, secret := range authentications[ref.Name].Spec.SecretTargetRef {
						if !fields["redis"][secret.Parameter] {
							t.Errorf("redis has no parameter %s", secret.Parameter)
						}
					}
				}
			}
		}
	})
	if triggers < 4 {
		t.Errorf("%d triggers, want at least 4", triggers)
	}
}
