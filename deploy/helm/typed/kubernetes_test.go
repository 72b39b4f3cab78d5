package typed

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// kubernetesTypes are the types of the values that the chart passes on to Kubernetes unchanged.
var kubernetesTypes = []reflect.Type{
	reflect.TypeFor[core.Affinity](),
	reflect.TypeFor[core.Toleration](),
	reflect.TypeFor[core.TopologySpreadConstraint](),
	reflect.TypeFor[core.EnvVar](),
	reflect.TypeFor[core.EnvFromSource](),
	reflect.TypeFor[core.Volume](),
	reflect.TypeFor[core.VolumeMount](),
	reflect.TypeFor[networking.NetworkPolicyPeer](),
	reflect.TypeFor[networking.NetworkPolicyEgressRule](),
	reflect.TypeFor[autoscaling.HorizontalPodAutoscalerBehavior](),
}

// TestKubernetesSchema compares definitions.kubernetes of values.schema.json with the Go types of
// Kubernetes, so that a misspelt key such as podAntiAfinity is rejected: the API server would ignore
// it. To update the file:
//
//	GOLDEN=write go test -run TestKubernetesSchema ./...
func TestKubernetesSchema(t *testing.T) {
	const file = chart + "/values.schema.json"
	const begin, end = "\n    \"kubernetes\": ", "\n  }\n}\n" // it is the last definition
	definitions := map[string]any{}
	for _, kubernetes := range kubernetesTypes {
		schemaOf(kubernetes, definitions)
	}
	var want bytes.Buffer
	encoder := json.NewEncoder(&want)
	encoder.SetIndent("    ", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(definitions); err != nil {
		t.Fatal(err)
	}
	schema := read(t, file)
	before, generated, found := strings.Cut(schema, begin)
	if !found {
		t.Fatalf("%s has no definitions.kubernetes", file)
	}
	if os.Getenv("GOLDEN") == "write" {
		if err := os.WriteFile(file, []byte(before+begin+strings.TrimSpace(want.String())+end), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if strings.TrimSpace(want.String())+end != generated {
		t.Errorf("definitions.kubernetes of %s differs from the types of Kubernetes", file)
	}
	for _, kubernetes := range kubernetesTypes {
		if !strings.Contains(before, `"#/definitions/kubernetes/`+kubernetes.Name()+`"`) {
			t.Errorf("no value is a %s", kubernetes.Name())
		}
	}
}

// schemaOf returns the JSON schema of a Go type: its keys and the kinds of their values. It adds
// that of every struct to definitions.
func schemaOf(t reflect.Type, definitions map[string]any) map[string]any {
	switch t {
	case reflect.TypeFor[intstr.IntOrString]():
		return map[string]any{"type": []string{"integer", "string"}}
	case reflect.TypeFor[resource.Quantity]():
		return map[string]any{"type": []string{"number", "string"}}
	case reflect.TypeFor[meta.ObjectMeta](): // of a volume claim template
		return map[string]any{"type": "object"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), definitions)
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), definitions)}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem(), definitions)}
	case reflect.Struct:
		ref := map[string]any{"$ref": "#/definitions/kubernetes/" + t.Name()}
		if definitions[t.Name()] != nil {
			return ref
		}
		properties := map[string]any{}
		definitions[t.Name()] = map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
		for field := range fieldsOf(t) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			properties[name] = schemaOf(field.Type, definitions)
		}
		return ref
	default:
		panic("no JSON schema of " + t.String())
	}
}

// fieldsOf yields the fields of a struct and of the structs that are inline in its JSON.
func fieldsOf(t reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			field := t.Field(i)
			if field.Anonymous && strings.HasSuffix(field.Tag.Get("json"), ",inline") {
				for inner := range fieldsOf(field.Type) {
					if !yield(inner) {
						return
					}
				}
			} else if !yield(field) {
				return
			}
		}
	}
}
