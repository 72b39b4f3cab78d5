package api_test

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/callbacks"
	"terbayar/internal/events"
	"terbayar/internal/intake"
	"terbayar/internal/order"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/retention"
)

// openAPIDocument is the part of openapi.json that tests compare.
type openAPIDocument struct {
	OpenAPI    string
	Paths      map[string]map[string]struct{ Responses map[string]any }
	Components struct{ Schemas map[string]schema }
}

type schema struct {
	Required             []string
	AdditionalProperties *bool
	Enum                 []string
	Properties           map[string]struct {
		MaxLength, MinLength               *int64
		Minimum, Maximum, ExclusiveMinimum *int64
		MaxItems, MinItems                 *int64
		Const                              *string
	}
}

func readOpenAPI(t *testing.T) (doc openAPIDocument) {
	t.Helper()
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestOpenAPI: the document is valid OpenAPI 3.1, and is served.
func TestOpenAPI(t *testing.T) {
	v, err := document()
	if err != nil {
		t.Fatal(err)
	}
	if ok, errs := v.ValidateDocument(); !ok {
		for _, err := range errs {
			t.Errorf("%s: %s %v", err.Message, err.Reason, err.SchemaValidationErrors)
		}
	}
	e := newEnv(t, redistest.Mini(t))
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if a := e.do("GET", "/openapi.json", ""); a.StatusCode != 200 || a.body != string(text) || readOpenAPI(t).OpenAPI != "3.1.0" {
		t.Errorf("%d", a.StatusCode)
	}
}

// TestOpenAPIRoutes: every path and method of the document exists, and every route of the server is
// in it. That every status is in it, the other tests check with each answer.
func TestOpenAPIRoutes(t *testing.T) {
	var documented []string
	for path, methods := range readOpenAPI(t).Paths {
		for method := range methods {
			documented = append(documented, strings.ToUpper(method)+" "+path)
		}
	}
	source, err := os.ReadFile("api.go")
	if err != nil {
		t.Fatal(err)
	}
	var routes []string
	for _, m := range regexp.MustCompile(`handle\(http\.Method(\w+), "([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
		if m[2] != "/docs/" {
			routes = append(routes, strings.ToUpper(m[1])+" "+m[2])
		}
	}
	for _, g := range payment.Gateways() {
		routes = append(routes, "POST "+callbacks.Route(g))
	}
	slices.Sort(documented)
	slices.Sort(routes)
	if diff := cmp.Diff(routes, documented); diff != "" {
		t.Errorf("routes -, openapi.json +\n%s", diff)
	}
}

// TestSchemas compares the schemas with the types: the names of all fields, which are required,
// and the limits of a payment.
func TestSchemas(t *testing.T) {
	schemas := readOpenAPI(t).Components.Schemas
	for name, value := range map[string]any{
		"AMDigiPay": order.AMDigiPay{}, "Item": order.Item{}, "Paydia": order.Paydia{}, "Amount": order.Amount{},
		"FieldError": order.FieldError{}, "Answer": intake.Answer{}, "Payment": retention.Status{}, "Attempt": payment.Attempt{},
		"Event": events.Event{}, "EventData": payment.Payment{},
	} {
		s := schemas[name]
		if s.AdditionalProperties == nil || *s.AdditionalProperties {
			t.Errorf("%s may have other fields", name)
		}
		var fields, always []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(value)) {
			field, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if field == "" || field == "-" || name == "EventData" && field == "attempts" {
				continue
			}
			fields = append(fields, field)
			if conditions := f.Tag.Get("validate"); conditions != "" {
				checkLimits(t, name+"."+field, s, field, conditions)
			}
			if options == "" {
				always = append(always, field)
			}
		}
		documented := make([]string, 0, len(s.Properties))
		for field := range s.Properties {
			documented = append(documented, field)
		}
		slices.Sort(fields)
		slices.Sort(documented)
		if diff := cmp.Diff(fields, documented); diff != "" {
			t.Errorf("%s: type -, openapi.json +\n%s", name, diff)
		}
		if !slices.Contains([]string{"AMDigiPay", "Item", "Paydia", "Amount"}, name) {
			slices.Sort(always)
			slices.Sort(s.Required)
			if diff := cmp.Diff(always, s.Required); diff != "" {
				t.Errorf("%s: required: type -, openapi.json +\n%s", name, diff)
			}
		}
	}
	var statuses []string
	for _, s := range payment.Statuses() {
		statuses = append(statuses, string(s))
	}
	if diff := cmp.Diff(statuses, schemas["Status"].Enum); diff != "" {
		t.Error(diff)
	}
}

// checkLimits compares a field with its validate tag.
func checkLimits(t *testing.T, name string, s schema, field, conditions string) {
	t.Helper()
	p := s.Properties[field]
	required := false
	same := func(condition string, documented *int64, want string) {
		if documented == nil || strconv.FormatInt(*documented, 10) != want {
			t.Errorf("%s: %s is not in openapi.json", name, condition)
		}
	}
	optional := strings.HasPrefix(conditions, "omitempty")
	for condition := range strings.SplitSeq(conditions, ",") {
		kind, limit, _ := strings.Cut(condition, "=")
		switch kind {
		case "required":
			required = field != "merchantId" // PAYDIA_MERCHANT_ID
		case "gt":
			required = true
			same(condition, p.ExclusiveMinimum, limit)
		case "gte":
			same(condition, p.Minimum, limit)
		case "lte":
			same(condition, p.Maximum, limit)
		case "min":
			required = true
			same(condition, p.MinItems, limit)
		case "max":
			if field == "item_details" {
				same(condition, p.MaxItems, limit)
			} else {
				same(condition, p.MaxLength, limit)
			}
		case "eq":
			if p.Const == nil || *p.Const != limit {
				t.Errorf("%s: %s is not in openapi.json", name, condition)
			}
		}
	}
	if documented := slices.Contains(s.Required, field); documented != required || optional && documented {
		t.Errorf("%s: required is %t in openapi.json", name, documented)
	}
}

// TestDocsPage: the page and all its files come from this server, and the page may load nothing
// from elsewhere.
func TestDocsPage(t *testing.T) {
	e := newEnv(t, redistest.Mini(t))
	e.key = ""
	a := e.do("GET", "/docs", "")
	if a.StatusCode != 200 || !strings.Contains(a.Header.Get("Content-Security-Policy"), "default-src 'self'") || !strings.Contains(a.body, `\/openapi.json`) && !strings.Contains(a.body, "/openapi.json") {
		t.Fatalf("%d %v", a.StatusCode, a.Header)
	}
	files := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(a.body, -1)
	if len(files) < 4 {
		t.Errorf("files: %v", files)
	}
	for _, m := range files {
		if file := e.do("GET", m[1], ""); !strings.HasPrefix(m[1], "/docs/") || file.StatusCode != 200 || len(file.body) == 0 {
			t.Errorf("%s: %d", m[1], file.StatusCode)
		}
	}
}
