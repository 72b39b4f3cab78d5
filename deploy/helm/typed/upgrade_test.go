package typed

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
)

const (
	deploymentPath = "/apis/apps/v1/namespaces/payments/deployments/terbayar-worker"
	settingsPath   = "/api/v1/namespaces/payments/configmaps/terbayar-worker"
	policyPath     = "/api/v1/namespaces/payments/configmaps/terbayar-worker-retry-policy"
)

// installed returns a cluster with chart 0.1.0, as testdata/terbayar-0.1.0.yaml has it.
func installed(t *testing.T) *cluster {
	t.Helper()
	old := t.TempDir()
	for name, content := range map[string]string{
		"Chart.yaml":         "{apiVersion: v2, name: terbayar, version: 0.1.0}",
		"templates/all.yaml": read(t, "testdata/terbayar-0.1.0.yaml"),
	} {
		file := filepath.Join(old, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := newCluster(t)
	if out, err := c.helm(t, "install", "terbayar", old); err != nil {
		t.Fatal(out)
	}
	return c
}

// upgrade upgrades to the chart of this checkout.
func upgrade(t *testing.T, c *cluster, args ...string) (string, error) {
	t.Helper()
	return c.helm(t, append([]string{
		"upgrade", "terbayar", chart, "--reset-values", "--values", chart + "/ci/minimal-values.yaml",
	}, args...)...)
}

// TestUpgradeKeepsConfigMaps checks that an upgrade from 0.1.0 leaves the ConfigMaps as they are,
// which pods of 0.1.0 need to restart, and that they go once they are deleted by hand.
func TestUpgradeKeepsConfigMaps(t *testing.T) {
	c := installed(t)
	var old, before, rolledBack apps.Deployment
	var was, is, wasPolicy, isPolicy core.ConfigMap
	if !c.get(t, deploymentPath, &old) || !c.get(t, settingsPath, &was) || !c.get(t, policyPath, &wasPolicy) {
		t.Fatal("0.1.0 is not installed")
	}
	for _, concurrency := range []string{"51", "52"} {
		if out, err := upgrade(t, c, "--set", "worker.concurrency="+concurrency); err != nil {
			t.Fatal(out)
		}
		if !c.get(t, settingsPath, &is) || !c.get(t, policyPath, &isPolicy) || !reflect.DeepEqual(was.Data, is.Data) || !reflect.DeepEqual(wasPolicy.Data, isPolicy.Data) {
			t.Errorf("after the upgrade: %v, %v", is.Data, isPolicy.Data)
		}
		c.get(t, deploymentPath, &before)
		if container := before.Spec.Template.Spec.Containers[0]; len(container.EnvFrom) != 0 || !reflect.DeepEqual(before.Spec.Selector, old.Spec.Selector) {
			t.Errorf("%+v", container.EnvFrom)
		}
	}
	if out, err := c.helm(t, "rollback", "terbayar", "1"); err != nil {
		t.Fatal(out)
	}
	if c.get(t, deploymentPath, &rolledBack); !reflect.DeepEqual(rolledBack.Spec, old.Spec) || !c.get(t, settingsPath, nil) {
		t.Errorf("after the rollback: %+v", rolledBack.Spec)
	}
	if out, err := upgrade(t, c); err != nil {
		t.Fatal(out)
	}
	c.mu.Lock()
	delete(c.objects, settingsPath)
	delete(c.objects, policyPath)
	c.mu.Unlock()
	if out, err := upgrade(t, c); err != nil || c.get(t, settingsPath, nil) || c.get(t, policyPath, nil) {
		t.Errorf("%v, or a ConfigMap is back\n%s", err, out)
	}
}

// TestUpgradeEnablesAPI checks that an upgrade from 0.1.0 to this chart with the API changes no selector of the
// workers, that enabling and disabling the API changes nothing of the workers, and that its objects go with it.
func TestUpgradeEnablesAPI(t *testing.T) {
	c := installed(t)
	var old, without, with, again apps.Deployment
	c.get(t, deploymentPath, &old)
	api := []string{"--set", "api.enabled=true,api.keys.existingSecret=s,api.networkPolicy.ingressFrom[0].ipBlock.cidr=10.0.0.0/8"}
	paths := []string{
		"/apis/apps/v1/namespaces/payments/deployments/terbayar-api", "/api/v1/namespaces/payments/services/terbayar-api",
		"/api/v1/namespaces/payments/serviceaccounts/terbayar-api", "/apis/policy/v1/namespaces/payments/poddisruptionbudgets/terbayar-api",
		"/apis/networking.k8s.io/v1/namespaces/payments/networkpolicies/terbayar-api", "/apis/networking.k8s.io/v1/namespaces/payments/networkpolicies/terbayar-api-check",
	}
	for _, step := range []struct {
		args    []string
		into    *apps.Deployment
		enabled bool
	}{{api, &with, true}, {nil, &without, false}, {api, &again, true}} {
		if out, err := upgrade(t, c, step.args...); err != nil {
			t.Fatal(out)
		}
		c.get(t, deploymentPath, step.into)
		for _, path := range paths {
			if c.get(t, path, nil) != step.enabled {
				t.Errorf("%s exists: %t", path, !step.enabled)
			}
		}
	}
	if !reflect.DeepEqual(with.Spec.Selector, old.Spec.Selector) || !reflect.DeepEqual(with.Spec, without.Spec) || !reflect.DeepEqual(with.Spec, again.Spec) {
		t.Errorf("the workers change:\n%+v\n%+v\n%+v", with.Spec, without.Spec, again.Spec)
	}
	if out, err := c.helm(t, "test", "terbayar"); err != nil || strings.Count(out, "the log of the check") != 2 {
		t.Errorf("helm test: %v\n%s", err, out)
	}
	if out, err := c.helm(t, "rollback", "terbayar", "1"); err != nil {
		t.Fatal(out)
	}
	for _, path := range paths {
		if c.get(t, path, nil) {
			t.Errorf("%s is left after the rollback", path)
		}
	}
}

// TestAPILeavesWorkers checks that enabling the API changes no object of the workers, whatever the values.
func TestAPILeavesWorkers(t *testing.T) {
	for _, file := range valueFiles(t) {
		objects := func(enabled string) map[string]string {
			r := render(t, "terbayar", "--values", file, "--set", "api.enabled="+enabled,
				"--set", "api.keys.existingSecret=s,api.ingress.enabled=false,api.httpRoute.enabled=false,api.autoscaling.enabled=false",
				"--set", "api.networkPolicy.ingressFrom[0].ipBlock.cidr=10.0.0.0/8,metrics.prometheusRule.enabled=false")
			found := map[string]string{}
			for i, o := range r.objects {
				if !ofAPI(componentOf(o)) {
					found[o.GetName()+" "+reflect.TypeOf(o).String()] = r.raw[i]
				}
			}
			return found
		}
		if off, on := objects("false"), objects("true"); len(off) < 5 || !reflect.DeepEqual(off, on) {
			t.Errorf("%s: the API changes objects of the workers", filepath.Base(file))
		}
	}
}

// TestUninstall checks that an uninstall deletes everything, the ConfigMaps of 0.1.0 and the pods of
// checks that passed included.
func TestUninstall(t *testing.T) {
	c := installed(t)
	if out, err := upgrade(t, c, "--set", "upgradeCheck.enabled=true"); err != nil {
		t.Fatal(out)
	}
	if out, err := c.helm(t, "test", "terbayar"); err != nil || !strings.Contains(out, "the log of the check") {
		t.Errorf("helm test: %v\n%s", err, out)
	}
	if out, err := c.helm(t, "uninstall", "terbayar"); err != nil {
		t.Fatal(out)
	}
	for path := range c.objects {
		t.Errorf("%s is left", path)
	}
}

// TestUpgradeCheck checks that a failed check stops an upgrade before it changes anything, and that
// helm prints why.
func TestUpgradeCheck(t *testing.T) {
	c := installed(t)
	var before, after apps.Deployment
	c.get(t, deploymentPath, &before)
	c.podPhase = "Failed"
	out, err := upgrade(t, c, "--set", "upgradeCheck.enabled=true")
	if c.get(t, deploymentPath, &after); err == nil || !strings.Contains(out, "the log of the check") || !reflect.DeepEqual(before, after) {
		t.Errorf("%v, %s", err, out)
	}
	var pod core.Pod
	if !c.get(t, "/api/v1/namespaces/payments/pods/terbayar-upgrade-check", &pod) || len(pod.Spec.Containers[0].Env) == 0 {
		t.Error("the pod that failed is not kept")
	}
	c.podPhase = "Succeeded"
	if out, err := upgrade(t, c, "--set", "upgradeCheck.enabled=true"); err != nil {
		t.Error(out)
	}
	for path := range c.objects {
		if strings.HasSuffix(path, "upgrade-check") {
			t.Errorf("%s is left", path)
		}
	}
}

// TestAutoscalerKeepsReplicas checks that an upgrade that enables an autoscaler, and every later one,
// keeps the number of replicas. Kubernetes sets it to 1 when the field is removed.
func TestAutoscalerKeepsReplicas(t *testing.T) {
	c := installed(t)
	replicas := func() int32 {
		var d apps.Deployment
		c.get(t, deploymentPath, &d)
		return *d.Spec.Replicas
	}
	if replicas() != 3 {
		t.Fatalf("%d replicas", replicas())
	}
	for _, scaled := range []int32{3, 7, 2} {
		c.mu.Lock() // as the autoscaler does
		c.objects[deploymentPath]["spec"].(map[string]any)["replicas"] = scaled
		c.mu.Unlock()
		if out, err := upgrade(t, c, "--set", "autoscaling.enabled=true"); err != nil {
			t.Fatal(out)
		}
		if replicas() != scaled {
			t.Errorf("%d replicas after the upgrade, %d before", replicas(), scaled)
		}
	}
	var hpa autoscaling.HorizontalPodAutoscaler
	if !c.get(t, "/apis/autoscaling/v2/namespaces/payments/horizontalpodautoscalers/terbayar-worker", &hpa) {
		t.Error("no HorizontalPodAutoscaler")
	}
	if out, err := upgrade(t, c, "--set", "worker.replicaCount=4"); err != nil || replicas() != 4 {
		t.Errorf("%d replicas without the autoscaler, %v\n%s", replicas(), err, out)
	}
}
