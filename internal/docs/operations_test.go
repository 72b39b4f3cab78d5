package docs

import (
	"go/ast"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestAlerts: the runbook has a section for every alert of the chart, in the same order, and
// for no other. A test in deploy/helm/typed compares their expressions.
func TestAlerts(t *testing.T) {
	var shipped, documented []string
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(read(t, "deploy/helm/terbayar/files/alerts.yaml"), -1) {
		shipped = append(shipped, m[1])
	}
	for _, m := range heading.FindAllStringSubmatch(section(t, read(t, "docs/runbook.md"), "Alerts"), -1) {
		documented = append(documented, m[3])
	}
	if !slices.Equal(shipped, documented) {
		t.Errorf("alerts.yaml has %v\ndocs/runbook.md has %v", shipped, documented)
	}
}

// TestMetrics compares the runbook's table of metrics with internal/telemetry, and the
// names in every document.
func TestMetrics(t *testing.T) {
	var exist []string
	for _, file := range sources(t, "internal/telemetry") {
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && regexp.MustCompile(`^terbayar_[a-z_]+$`).MatchString(literal(l)) {
				exist = append(exist, literal(l))
			}
			return true
		})
	}
	name := regexp.MustCompile(`\bterbayar_[a-z_]+[a-z]\b`)
	var documented []string
	for _, row := range table(t, read(t, "docs/runbook.md"), `metric \|`) {
		documented = append(documented, name.FindAllString(row[0], -1)...)
	}
	if got, want := sorted(documented), sorted(exist); !slices.Equal(got, want) {
		t.Errorf("docs/runbook.md:\n got %v\nwant %v", got, want)
	}
	histogram := regexp.MustCompile(`_(count|sum|bucket)$`)
	for _, page := range files(t, ".md") {
		if filepath.Base(page) == "CHANGELOG.md" || page == "docs/interface.md" {
			continue // old names, and names of what is not built
		}
		for _, m := range name.FindAllString(read(t, page), -1) {
			if !slices.Contains(exist, histogram.ReplaceAllString(m, "")) {
				t.Errorf("%s: there is no metric %s", page, m)
			}
		}
	}
}

// workerPackages are the packages that log.
var workerPackages = []string{
	"admission", "api", "callbacks", "durable", "intake", "ledger", "redishealth", "refusals", "retention", "statuspoll", "submit", "tasks", "telemetry", "webhooks", "worker",
}

// logged lists the messages in calls of a logger, and every text in the worker's packages:
// some messages are chosen or put together elsewhere.
func logged(t *testing.T) (messages, texts []string) {
	t.Helper()
	levels := []string{"Info", "Warn", "Error", "Log"}
	logger := regexp.MustCompile(`(?i)log(ger)?$`)
	for _, dir := range workerPackages {
		for _, file := range sources(t, "internal/"+dir) {
			ast.Inspect(file, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok {
					texts = append(texts, literal(l))
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				method, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || !slices.Contains(levels, method.Sel.Name) || !logger.MatchString(lastName(method.X)) {
					return true
				}
				at := 0
				if method.Sel.Name == "Log" { // context and level come first
					at = 2
				}
				if text := firstLiteral(call.Args[at]); text != "" {
					messages = append(messages, text)
				}
				return true
			})
		}
	}
	if len(messages) < 20 {
		t.Fatalf("messages: %q", messages)
	}
	return sorted(messages), sorted(texts)
}

func lastName(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return x.Sel.Name
	default:
		return ""
	}
}

func firstLiteral(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.BasicLit:
		return literal(x)
	case *ast.BinaryExpr:
		return firstLiteral(x.X)
	case *ast.CallExpr: // fmt.Sprintf
		if len(x.Args) > 0 {
			return firstLiteral(x.Args[0])
		}
	}
	return ""
}

// TestLogMessages: every message of the worker is in the runbook's tables, and every
// message there is in the code. One that ends in "..." is the beginning of a message.
func TestLogMessages(t *testing.T) {
	var documented []string
	for _, each := range strings.SplitAfter(section(t, read(t, "docs/runbook.md"), "Log messages"), "\n\n") {
		if strings.HasPrefix(each, "| message |") {
			for _, row := range table(t, each, `message \|`) {
				documented = append(documented, code(row[0])...)
			}
		}
	}
	messages, texts := logged(t)
	fits := func(documented, message string) bool {
		beginning, cut := strings.CutSuffix(documented, "...")
		fixed, _, put := strings.Cut(message, "%")
		return documented == message || cut && strings.HasPrefix(message, beginning) ||
			cut && put && fixed != "" && strings.HasPrefix(beginning, fixed)
	}
	for _, m := range messages {
		if !slices.ContainsFunc(documented, func(d string) bool { return fits(d, m) }) {
			t.Errorf("not in docs/runbook.md: %s", m)
		}
	}
	for _, d := range documented {
		if !slices.ContainsFunc(texts, func(m string) bool { return fits(d, m) }) {
			t.Errorf("nothing logs: %s", d)
		}
	}
}

// TestReasons: the fixed parts of the reasons in the runbook are in the code.
func TestReasons(t *testing.T) {
	text := ""
	for _, name := range files(t, ".go") {
		if dir := filepath.Base(filepath.Dir(name)); !strings.HasSuffix(name, "_test.go") &&
			slices.Contains([]string{"clients", "refusals", "retrypolicy", "statuspoll", "submit"}, dir) {
			text += read(t, name)
		}
	}
	variable := regexp.MustCompile(`[(),.:]*\.\.\.[(),.:]*|[ (]?\b(N|X|Y|CODE)\b[ :]?|\(`)
	parts := 0
	for _, row := range table(t, read(t, "docs/runbook.md"), `reason \|`) {
		for _, reason := range code(row[0]) {
			for _, part := range variable.Split(reason, -1) {
				part = strings.TrimSpace(part)
				if len(part) < 5 || regexp.MustCompile(`^(\d|http:)`).MatchString(part) {
					continue
				}
				if parts++; !strings.Contains(text, part) {
					t.Errorf("no reason contains %q: %s", part, reason)
				}
			}
		}
	}
	if parts < 12 {
		t.Errorf("%d parts compared", parts)
	}
}
