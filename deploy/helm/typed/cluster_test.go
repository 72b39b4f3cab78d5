package typed

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// cluster is an API server that keeps objects in memory: as much of it as helm needs. No controller
// runs. Of the defaults it knows only that of a Deployment's replicas.
type cluster struct {
	kubeconfig string

	mu       sync.Mutex
	objects  map[string]map[string]any // by path
	podPhase string                    // of pods that are created
}

// resources are the kinds that the cluster has, by group and version.
var resources = map[string][]meta.APIResource{
	"v1": {
		{Name: "configmaps", Kind: "ConfigMap"},
		{Name: "secrets", Kind: "Secret"},
		{Name: "services", Kind: "Service"},
		{Name: "pods", Kind: "Pod"},
		{Name: "serviceaccounts", Kind: "ServiceAccount"},
	},
	"apps/v1":              {{Name: "deployments", Kind: "Deployment"}},
	"autoscaling/v2":       {{Name: "horizontalpodautoscalers", Kind: "HorizontalPodAutoscaler"}},
	"networking.k8s.io/v1": {{Name: "networkpolicies", Kind: "NetworkPolicy"}},
	"policy/v1":            {{Name: "poddisruptionbudgets", Kind: "PodDisruptionBudget"}},
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{objects: map[string]map[string]any{}, podPhase: "Succeeded"}
	server := httptest.NewServer(c)
	t.Cleanup(server.CloseClientConnections)
	c.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf("{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: %q}}]}", server.URL)
	if err := os.WriteFile(c.kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// helm runs helm against the cluster.
func (c *cluster) helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if version, _ := run(t, "version", "--short"); strings.HasPrefix(version, "v4") && slices.Contains([]string{"install", "upgrade", "rollback"}, args[0]) {
		args = append(args, "--server-side=false") // the cluster has no server-side apply
	}
	return run(t, append(args, "--namespace", namespace, "--kubeconfig", c.kubeconfig)...)
}

// get decodes an object. It reports whether it exists.
func (c *cluster) get(t *testing.T, path string, into any) bool {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	object, found := c.objects[path]
	if found && into != nil {
		if err := convert(object, into); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func convert(from, to any) error {
	text, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, to)
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	path := r.URL.Path
	switch path {
	case "/version":
		reply(http.StatusOK, map[string]string{"major": "1", "minor": "31", "gitVersion": "v1.31.0"})
		return
	case "/openapi/v2": // an empty document: helm validates nothing
		return
	case "/api":
		reply(http.StatusOK, meta.APIVersions{TypeMeta: meta.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
		return
	case "/apis":
		groups := meta.APIGroupList{TypeMeta: meta.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		for version := range resources {
			if group, name, isGroup := strings.Cut(version, "/"); isGroup {
				v := meta.GroupVersionForDiscovery{GroupVersion: version, Version: name}
				groups.Groups = append(groups.Groups, meta.APIGroup{Name: group, Versions: []meta.GroupVersionForDiscovery{v}, PreferredVersion: v})
			}
		}
		reply(http.StatusOK, groups)
		return
	}
	version, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "/apis/"), "/api/"), "/namespaces/"+namespace+"/")
	known, found := resources[version]
	if !found {
		reply(http.StatusNotFound, meta.Status{TypeMeta: meta.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 404, Reason: meta.StatusReasonNotFound})
		return
	}
	if rest == "" {
		found := meta.APIResourceList{TypeMeta: meta.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: version}
		for _, k := range known {
			k.Namespaced, k.Verbs = true, meta.Verbs{"get", "list", "create", "patch", "delete", "watch"}
			found.APIResources = append(found.APIResources, k)
		}
		reply(http.StatusOK, found)
		return
	}
	if strings.HasSuffix(rest, "/log") {
		_, _ = io.WriteString(w, "the log of the check\n")
		return
	}
	plural, name, _ := strings.Cut(rest, "/")
	kind := known[slices.IndexFunc(known, func(k meta.APIResource) bool { return k.Name == plural })].Kind

	if r.URL.Query().Get("watch") != "" {
		if r.URL.Query().Get("sendInitialEvents") != "" { // helm lists instead
			reply(http.StatusUnprocessableEntity, meta.Status{TypeMeta: meta.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 422, Reason: meta.StatusReasonInvalid})
			return
		}
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done() // nothing changes
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	body := map[string]any{}
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		text, err := io.ReadAll(r.Body)
		if err == nil {
			err = decode(text, body)
		}
		if err != nil {
			reply(http.StatusBadRequest, err.Error())
			return
		}
	}
	if r.Method == http.MethodPost {
		name = body["metadata"].(map[string]any)["name"].(string)
		path += "/" + name
		if kind == "Pod" {
			body["status"] = map[string]any{"phase": c.podPhase}
		}
	}
	old, exists := c.objects[path]
	switch {
	case name == "" && r.Method == http.MethodGet:
		items := []map[string]any{}
		for _, at := range slices.Sorted(maps.Keys(c.objects)) {
			if strings.HasPrefix(at, path+"/") && matches(r, c.objects[at]) {
				items = append(items, c.objects[at])
			}
		}
		reply(http.StatusOK, map[string]any{"kind": kind + "List", "apiVersion": version, "metadata": map[string]any{"resourceVersion": "1"}, "items": items})
		return
	case !exists && r.Method != http.MethodPost:
		reply(http.StatusNotFound, meta.Status{TypeMeta: meta.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 404, Reason: meta.StatusReasonNotFound, Message: path + " not found"})
		return
	case r.Method == http.MethodDelete:
		delete(c.objects, path)
		reply(http.StatusOK, meta.Status{TypeMeta: meta.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Success"})
		return
	case r.Method == http.MethodPatch:
		patch, err := io.ReadAll(r.Body)
		if err == nil && r.Header.Get("Content-Type") != "application/strategic-merge-patch+json" {
			err = fmt.Errorf("patch of type %s", r.Header.Get("Content-Type"))
		}
		original, _ := json.Marshal(old)
		if err == nil {
			patch, err = strategicpatch.StrategicMergePatch(original, patch, reflect.New(kinds[version+" "+kind]).Interface())
		}
		if err != nil {
			reply(http.StatusBadRequest, err.Error())
			return
		}
		_ = json.Unmarshal(patch, &body)
	case r.Method == http.MethodGet:
		reply(http.StatusOK, old)
		return
	}
	body["metadata"].(map[string]any)["namespace"] = namespace
	if spec, _ := body["spec"].(map[string]any); kind == "Deployment" && spec["replicas"] == nil {
		spec["replicas"] = 1
	}
	c.objects[path] = body
	reply(http.StatusOK, body)
}

// codecs decode the objects in which helm stores its releases: these are sent as protobuf.
var codecs = func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	if err := core.AddToScheme(scheme); err != nil {
		panic(err)
	}
	return serializer.NewCodecFactory(scheme)
}()

func decode(text []byte, into map[string]any) error {
	if json.Valid(text) {
		return json.Unmarshal(text, &into)
	}
	object, _, err := codecs.UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		return err
	}
	return convert(object, &into)
}

// matches reports whether an object has the labels and fields of a request.
func matches(r *http.Request, object map[string]any) bool {
	var o core.Pod
	if convert(map[string]any{"metadata": object["metadata"]}, &o) != nil {
		return false
	}
	byLabel, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	byField, err2 := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	return err == nil && err2 == nil && byLabel.Matches(labels.Set(o.Labels)) && byField.Matches(fields.Set{"metadata.name": o.Name})
}
