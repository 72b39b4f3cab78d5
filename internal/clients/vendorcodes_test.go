package clients_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/clients/amdigipay"
	"terbayar/internal/config"
	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/retrypolicy"
)

// The codes of the vendors are in docs/gateways.md, in the built-in retry policy and in the
// simulator, which do not import each other. The tests of this file compare them.

// paydiaServices are the SNAP services that the client uses: auth-payment, payment query and
// access token.
var paydiaServices = []string{"63", "64", "73"}

// hasRule reports whether the built-in policy has a rule for a code.
func hasRule(g payment.Gateway, code string) bool {
	return retrypolicy.Builtin().Decide(g, code, "", 1, 0).Rule.Code != "unlisted"
}

// gatewaysDoc returns the text of a section of docs/gateways.md; all of it for "".
func gatewaysDoc(t *testing.T, heading string) string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/gateways.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(doc), heading)
	if !found {
		t.Fatalf("docs/gateways.md has no section %q", heading)
	}
	if heading != "" {
		text, _, _ = strings.Cut(text, "\n## ")
	}
	return text
}

// documentedSNAPCodes returns the codes in docs/gateways.md of the services that the client
// uses. Codes like 403xx05, which are for all services, are returned for each of them.
func documentedSNAPCodes(t *testing.T) map[string]bool {
	t.Helper()
	codes := map[string]bool{}
	add := func(status, service, caseCode string) {
		services := []string{service}
		if service == "xx" {
			services = paydiaServices
		}
		for _, s := range services {
			codes[status+s+caseCode] = true
		}
	}
	// In the text: 2006300, 403xx05, and 4016302/03/04 for three codes.
	inText := regexp.MustCompile(`\b([1-5]\d\d)(` + strings.Join(paydiaServices, "|") + `|xx)(\d\d(?:/\d\d)*)\b`)
	for _, m := range inText.FindAllStringSubmatch(gatewaysDoc(t, ""), -1) {
		for caseCode := range strings.SplitSeq(m[3], "/") {
			add(m[1], m[2], caseCode)
		}
	}
	// In the table of section 3.1: HTTP status and case codes.
	inTable := regexp.MustCompile(`(?m)^\| (\d{3}) \| ((?:\d\d )+)\|`)
	for _, m := range inTable.FindAllStringSubmatch(gatewaysDoc(t, "## 3.1 responseCode"), -1) {
		for caseCode := range strings.FieldsSeq(m[2]) {
			add(m[1], "xx", caseCode)
		}
	}
	return codes
}

// TestDocumentedSNAPCodes: the built-in policy has a rule for every documented code of
// Paydia's, and no rule for any other.
func TestDocumentedSNAPCodes(t *testing.T) {
	documented := documentedSNAPCodes(t)
	for _, code := range slices.Sorted(maps.Keys(documented)) {
		if !hasRule(payment.Paydia, code) {
			t.Errorf("docs/gateways.md has the code %s, the built-in policy has no rule for it", code)
		}
	}
	for _, r := range retrypolicy.Builtin().Rules() {
		if r.Gateway != payment.Paydia || len(r.Code) != 7 || strings.Contains(r.Code, ":") || r.Code == "401xxxx" {
			continue // 401xxxx is for the codes that SNAP does not define
		}
		if !documented[strings.Replace(r.Code, "xx", paydiaServices[0], 1)] {
			t.Errorf("the built-in policy has a rule for %s, docs/gateways.md does not have the code", r.Code)
		}
	}
}

// TestDocumentedAMCodes: the built-in policy has a rule for every answer to create-transaction
// that docs/gateways.md describes.
func TestDocumentedAMCodes(t *testing.T) {
	text := gatewaysDoc(t, "## 1.1 Background") + gatewaysDoc(t, "## 1.4 Create Transaction")
	for words, code := range map[string]string{
		"Response 200": "http:200", `HTTP 200 with ` + "`" + `{"error":true`: retrypolicy.CodeRefused,
		"401": "http:401", "422": "http:422", "500": "http:500",
	} {
		if !strings.Contains(text, words) {
			t.Errorf("docs/gateways.md does not describe %s (%q)", code, words)
		}
		if !hasRule(payment.AMDigiPay, code) {
			t.Errorf("the built-in policy has no rule for %s", code)
		}
	}
}

// TestSimulatorCodes: the built-in policy has a rule for every code that the simulator can
// answer, and docs/gateways.md has every one of Paydia's.
func TestSimulatorCodes(t *testing.T) {
	documented := documentedSNAPCodes(t)
	snap, statuses := simulatorCodes(t)
	if len(snap) < 30 || len(statuses) < 5 {
		t.Fatalf("only %d codes and %d HTTP statuses found in the simulator", len(snap), len(statuses))
	}
	for _, code := range slices.Sorted(maps.Keys(snap)) {
		if !hasRule(payment.Paydia, code) {
			t.Errorf("the simulator has the code %s, the built-in policy has no rule for it", code)
		}
		if !documented[code] {
			t.Errorf("the simulator has the code %s, docs/gateways.md does not", code)
		}
	}
	// An answer "accepted" without a payment has an unknown outcome, like any unlisted code.
	withoutRule := map[int]bool{http.StatusAccepted: true}
	for _, status := range slices.Sorted(maps.Keys(statuses)) {
		if code := retrypolicy.HTTPCode(status); hasRule(payment.AMDigiPay, code) == withoutRule[status] {
			t.Errorf("the simulator has the HTTP status %d; the built-in policy has a rule: %t, want %t",
				status, withoutRule[status], !withoutRule[status])
		}
	}
}

// simulatorCodes reads SNAP codes and HTTP statuses from the source of the simulator. A SNAP
// code is written as 2006300, as a map key "40001" (status and case), as the arguments "400",
// "01", or as "429"+service+"00". The last three are for all services.
func simulatorCodes(t *testing.T) (snap map[string]bool, statuses map[int]bool) {
	t.Helper()
	snap, statuses = map[string]bool{}, map[int]bool{}
	allServices := func(status, caseCode string) {
		for _, service := range paydiaServices {
			snap[status+service+caseCode] = true
		}
	}
	digits := func(e ast.Expr, n int) (text string, ok bool) {
		literal, isLiteral := e.(*ast.BasicLit)
		if !isLiteral || literal.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(literal.Value)
		return text, err == nil && len(text) == n && strings.Trim(text, "0123456789") == ""
	}
	statusByName := map[string]int{}
	for status := 100; status < 600; status++ {
		statusByName["Status"+strings.NewReplacer(" ", "", "-", "").Replace(http.StatusText(status))] = status
	}
	files, err := filepath.Glob("../gatewaysim/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || filepath.Base(name) == "admin.go" { // answers of the admin interface
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if code, ok := digits(n, 7); ok {
					snap[code] = true
				}
			case *ast.KeyValueExpr:
				if key, ok := digits(n.Key, 5); ok {
					allServices(key[:3], key[3:])
				}
			case *ast.CallExpr:
				for i := range len(n.Args) - 1 {
					status, isStatus := digits(n.Args[i], 3)
					caseCode, isCase := digits(n.Args[i+1], 2)
					if isStatus && isCase {
						allServices(status, caseCode)
					}
				}
			case *ast.BinaryExpr:
				left, isSum := n.X.(*ast.BinaryExpr)
				if !isSum {
					break
				}
				status, isStatus := digits(left.X, 3)
				caseCode, isCase := digits(n.Y, 2)
				if isStatus && isCase {
					allServices(status, caseCode)
				}
			case *ast.SelectorExpr:
				if status, ok := statusByName[n.Sel.Name]; ok && fmt.Sprint(n.X) == "http" {
					statuses[status] = true
				}
			}
			return true
		})
	}
	return snap, statuses
}

// TestStatusIDsOfAM compares the status ids in docs/gateways.md 1.8 with the client's default,
// the default of the setting and the simulator.
func TestStatusIDsOfAM(t *testing.T) {
	meanings := map[string]payment.Status{
		"pending": payment.OnProcessing, "paid": payment.Paid, "cancelled": payment.Cancelled,
		"refund": payment.Refunded, "failed": payment.Failed,
	}
	documented := amdigipay.StatusMap{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| [^|]*\| (\w+)`).FindAllStringSubmatch(gatewaysDoc(t, "## 1.8 Status ids"), -1) {
		id, err := strconv.Atoi(m[1])
		if err != nil || meanings[m[2]] == "" {
			t.Fatalf("%q: unknown meaning (%v)", m[0], err)
		}
		documented[id] = meanings[m[2]]
	}
	client, err := amdigipay.ParseStatusMap(amdigipay.DefaultStatusMap)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(documented, client); diff != "" {
		t.Errorf("docs/gateways.md -, amdigipay.DefaultStatusMap +\n%s", diff)
	}
	field, ok := reflect.TypeFor[config.AMDigiPay]().FieldByName("StatusMap")
	if got := field.Tag.Get("default"); !ok || got != amdigipay.DefaultStatusMap {
		t.Errorf("AMDIGIPAY_STATUS_MAP has the default %q, amdigipay.DefaultStatusMap is %q", got, amdigipay.DefaultStatusMap)
	}
	simulated := slices.Sorted(maps.Keys(gatewaysim.DefaultConfig().AM.StatusWords))
	if diff := cmp.Diff(slices.Sorted(maps.Keys(documented)), simulated); diff != "" {
		t.Errorf("docs/gateways.md -, simulator +\n%s", diff)
	}
}
