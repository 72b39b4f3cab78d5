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

// TestSelectors checks that every selector of workers selects all workers and nothing else.
func TestSelectors(t *testing.T) {
	everyRelease(t, func(t *testing.T, r *release) {
		deployment := only[apps.Deployment](t, r)
		worker := labels.Set(deployment.Spec.Template.Labels)
		selects := func(what string, s *meta.LabelSelector, checks ...string) {
			t.Helper()
			selector, err := meta.LabelSelectorAsSelector(s)
			if err != nil || selector.Empty() {
				t.Errorf("%s: selector %v, %v", what, s, err)
				return
			}
			if !selector.Matches(worker) {
				t.Errorf("%s (%s) does not select the workers (%s)", what, selector, worker)
			}
			for _, check := range all[core.Pod](r) {
				component := check.Labels["app.kubernetes.io/component"]
				if selector.Matches(labels.Set(check.Labels)) != slices.Contains(checks, component) {
					t.Errorf("%s (%s): wrong for the pod %s", what, selector, component)
				}
			}
			for name := range worker {
				other := labels.Merge(worker, labels.Set{name: "another"})
				if strings.HasPrefix(name, "app.kubernetes.io/") && selector.Matches(other) {
					t.Errorf("%s (%s) ignores the label %s", what, selector, name)
				}
			}
		}
		selects("Deployment", deployment.Spec.Selector)
		for _, o := range all[core.Service](r) {
			selects("Service", meta.SetAsLabelSelector(o.Spec.Selector))
		}
		for _, o := range all[policy.PodDisruptionBudget](r) {
			selects("PodDisruptionBudget", o.Spec.Selector)
		}
		for _, o := range all[monitoring.PodMonitor](r) {
			selects("PodMonitor", &o.Spec.Selector)
		}
		for _, o := range all[networking.NetworkPolicy](r) {
			if _, isHook := o.Annotations["helm.sh/hook"]; !isHook {
				selects("NetworkPolicy", &o.Spec.PodSelector, "worker-check")
			}
		}
		if len(deployment.Spec.Template.Spec.TopologySpreadConstraints) == 0 {
			t.Error("no topology spread")
		}
		for _, c := range deployment.Spec.Template.Spec.TopologySpreadConstraints {
			selects("topology spread over "+c.TopologyKey, c.LabelSelector)
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

// pods returns the pods of the workers and those that run "worker check", by component.
func pods(t *testing.T, r *release) map[string]core.PodTemplateSpec {
	t.Helper()
	found := map[string]core.PodTemplateSpec{"worker": only[apps.Deployment](t, r).Spec.Template}
	for _, p := range all[core.Pod](r) {
		found[p.Labels["app.kubernetes.io/component"]] = core.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}
	}
	if len(found) < 2 || len(found) != 1+len(all[core.Pod](r)) {
		t.Fatalf("%d kinds of pods", len(found))
	}
	return found
}

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
				if c.Command != nil {
					t.Errorf("%s: command %q overrides the entrypoint of the image", name, c.Command)
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
		d := only[apps.Deployment](t, r)
		rolling := d.Spec.Strategy.RollingUpdate
		if rolling == nil || *rolling.MaxUnavailable != intstr.FromInt32(0) || *rolling.MaxSurge != intstr.FromInt32(1) {
			t.Errorf("strategy %+v", d.Spec.Strategy)
		}
		for _, o := range all[policy.PodDisruptionBudget](r) {
			if o.Spec.MinAvailable != nil || *o.Spec.MaxUnavailable != intstr.FromInt32(1) {
				t.Errorf("disruption budget %+v", o.Spec)
			}
		}
		settings := settings(t, r)
		duration := func(name string) time.Duration {
			d, err := time.ParseDuration(settings[name])
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return d
		}
		grace := time.Duration(*d.Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
		if gateway, shutdown := duration("GATEWAY_TIMEOUT"), duration("WORKER_SHUTDOWN_TIMEOUT"); gateway >= shutdown || shutdown >= grace {
			t.Errorf("gateway %s, shutdown %s, grace %s", gateway, shutdown, grace)
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
	template := func(args ...string) string {
		r := render(t, "terbayar", append([]string{"--values", chart + "/ci/full-values.yaml"}, args...)...)
		out, err := yaml.Marshal(only[apps.Deployment](t, r).Spec.Template)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	before := template()
	for change, restarts := range map[string]bool{
		"worker.gatewayTimeout=21s":                    true,
		"paydia.channelId=00124":                       true,
		"retryPolicy.gateways.paydia.verify.settle=6m": true,
		"service.annotations.a=b":                      false,
		"ingress.host=other.example.com":               false,
		"metrics.podMonitor.interval=1m":               false,
	} {
		if after := template("--set-string", change); (after != before) != restarts {
			t.Errorf("%s: the pod template changes: %t", change, after != before)
		}
	}
}

// TestPorts checks that every port name refers to a port of the worker.
func TestPorts(t *testing.T) {
	everyRelease(t, func(t *testing.T, r *release) {
		worker := only[apps.Deployment](t, r).Spec.Template.Spec.Containers[0]
		ports := map[string]int32{}
		for _, p := range worker.Ports {
			ports[p.Name] = p.ContainerPort
		}
		want := func(what, port string) {
			t.Helper()
			if ports[port] == 0 {
				t.Errorf("%s names port %q, the worker has %v", what, port, ports)
			}
		}
		if addr := settings(t, r)["WORKER_HTTP_ADDR"]; addr != fmt.Sprintf(":%d", ports["http"]) {
			t.Errorf("the worker listens on %s, its port is %d", addr, ports["http"])
		}
		for path, probe := range map[string]*core.Probe{
			"/healthz": worker.LivenessProbe, "/readyz": worker.ReadinessProbe, "/healthz ": worker.StartupProbe,
		} {
			if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != strings.TrimSpace(path) {
				t.Errorf("probe of %s: %+v", path, probe)
				continue
			}
			want("probe of "+path, probe.HTTPGet.Port.StrVal)
		}
		service := only[core.Service](t, r)
		want("Service", service.Spec.Ports[0].TargetPort.StrVal)
		for _, o := range all[monitoring.PodMonitor](r) {
			for _, e := range o.Spec.PodMetricsEndpoints {
				want("PodMonitor", *e.Port)
			}
		}
		for _, o := range all[networking.NetworkPolicy](r) {
			for _, in := range o.Spec.Ingress {
				want("NetworkPolicy", in.Ports[0].Port.StrVal)
			}
		}
		for _, o := range all[networking.Ingress](r) {
			for _, p := range o.Spec.Rules[0].HTTP.Paths {
				if b := p.Backend.Service; b.Name != service.Name || b.Port.Name != service.Spec.Ports[0].Name || p.Path != "/monitoring" {
					t.Errorf("Ingress %+v leads to %+v", p, b)
				}
			}
		}
	})
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
				if accounts := all[core.ServiceAccount](r); len(accounts) == 1 && pod.ServiceAccountName != accounts[0].Name {
					t.Errorf("%s runs as %s", name, pod.ServiceAccountName)
				}
				files := map[string]map[string]bool{} // by volume
				for _, v := range pod.Volumes {
					files[v.Name] = map[string]bool{}
					switch {
					case v.Secret != nil:
						exists("Secret", v.Secret.SecretName)
						if optional := v.Secret.Optional != nil; optional != (name != "worker") {
							t.Errorf("%s: volume %s is optional: %t", name, v.Name, optional)
						}
						if *v.Secret.DefaultMode != 0o440 {
							t.Errorf("%s: mode %o", v.Name, *v.Secret.DefaultMode)
						}
						for _, item := range v.Secret.Items {
							files[v.Name][item.Path] = true
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
						if optional := e.ValueFrom.SecretKeyRef.Optional != nil; optional != (name != "worker") {
							t.Errorf("%s: %s is optional: %t", name, e.Name, optional)
						}
					}
				}
				for setting, value := range settings(t, r) {
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
		d := only[apps.Deployment](t, r)
		hpas, scaled := all[autoscaling.HorizontalPodAutoscaler](r), all[keda.ScaledObject](r)
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
	pending := regexp.MustCompile(`^asynq:\{(amdigipay|paydia)\}:pending$`)
	latency := regexp.MustCompile(`^max\(asynq_queue_latency_seconds\{queue="(amdigipay|paydia)", `)
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
