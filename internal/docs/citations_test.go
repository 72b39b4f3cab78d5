package docs

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// citation matches a document in a comment, with the section that is cited, by its title in
// quotes or by numbers such as 1.4, 2.2.
var citation = regexp.MustCompile(`([\w./-]*\b[\w-]+\.md)(?:,? "([^"]+)"|,?(?: sections?)?((?:(?:,| and|, and)? \d+(?:\.\d+)?\b)+))?`)

// ours are the documents of this directory; a comment names them with "docs/".
var ours = regexp.MustCompile(`^(\.\./)*(shared/)?(architecture|asynq|design|gateways|interface|retry-policy|runbook|states)\.md$`)

// TestCitations: documents and sections that Go comments cite exist.
func TestCitations(t *testing.T) {
	found := 0
	for _, name := range files(t, ".go") {
		file, err := parser.ParseFile(token.NewFileSet(), root+name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range file.Comments {
			comment := strings.Join(strings.Fields(group.Text()), " ")
			for _, m := range citation.FindAllStringSubmatch(comment, -1) {
				if ours.MatchString(m[1]) {
					t.Errorf("%s cites %s: write docs/%s", name, m[0], filepath.Base(m[1]))
					continue
				}
				if !strings.HasPrefix(m[1], "docs/") {
					continue
				}
				found++
				if _, err := os.Stat(root + m[1]); err != nil {
					t.Errorf("%s cites %s, which does not exist", name, m[1])
					continue
				}
				for _, number := range regexp.MustCompile(`\d+(\.\d+)?`).FindAllString(m[3], -1) {
					if !hasHeading(t, m[1], number, "") {
						t.Errorf("%s cites %s %s, which does not exist", name, m[1], number)
					}
				}
				if m[2] != "" && !hasHeading(t, m[1], "", m[2]) {
					t.Errorf("%s cites %s, %q, which does not exist", name, m[1], m[2])
				}
			}
			for _, m := range regexp.MustCompile(`\bADR (\d+)`).FindAllStringSubmatch(comment, -1) {
				if pages, _ := filepath.Glob(root + "docs/adr/*" + m[1] + "-*.md"); len(pages) == 0 {
					t.Errorf("%s cites %s, which does not exist", name, m[0])
				}
			}
		}
	}
	if found < 40 {
		t.Errorf("%d citations found", found)
	}
	// Scripts and settings: files only.
	for _, name := range append(files(t, ".yaml", ".yml", ".tpl"), "Makefile", "Dockerfile") {
		for _, cited := range regexp.MustCompile(`\bdocs/[\w/-]+\.md`).FindAllString(read(t, name), -1) {
			if _, err := os.Stat(root + cited); err != nil {
				t.Errorf("%s cites %s, which does not exist", name, cited)
			}
		}
	}
}

// hasHeading reports whether a document has a heading with that number, or one that begins
// with that title.
func hasHeading(t *testing.T, page, number, title string) bool {
	t.Helper()
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(read(t, page), ""), -1) {
		if number != "" && m[2] == number || title != "" && strings.HasPrefix(m[3], title) {
			return true
		}
	}
	return false
}

// anchor is the name that a heading has in links.
func anchor(title string) string {
	title = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(title), "")
	return strings.ReplaceAll(title, " ", "-")
}

// TestAnchors: the heading that a link names exists. That the file exists is checked by
// scripts/links.
func TestAnchors(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s:]*)#([^)\s]+)\)`)
	found := 0
	for _, page := range files(t, ".md") {
		text := fence.ReplaceAllString(read(t, page), "")
		for _, m := range link.FindAllStringSubmatch(span.ReplaceAllString(text, ""), -1) {
			found++
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			var anchors []string
			for _, h := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(fence.ReplaceAllString(read(t, target), ""), -1) {
				anchors = append(anchors, anchor(h[1]))
			}
			if !slices.Contains(anchors, m[2]) {
				t.Errorf("%s links to %s#%s, which does not exist", page, m[1], m[2])
			}
		}
	}
	if found < 10 {
		t.Errorf("%d links with an anchor found", found)
	}
}

// TestTestsExist: the tests that the documents name exist.
func TestTestsExist(t *testing.T) {
	exist := map[string]bool{}
	for _, name := range files(t, ".go") {
		if strings.HasSuffix(name, "_test.go") {
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(read(t, name), -1) {
				exist[m[1]] = true
			}
		}
	}
	found := 0
	for _, page := range files(t, ".md") {
		for _, m := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)").FindAllStringSubmatch(read(t, page), -1) {
			if found++; !exist[m[1]] {
				t.Errorf("%s names %s, which does not exist", page, m[1])
			}
		}
	}
	if found < 30 {
		t.Errorf("%d tests found", found)
	}
}

// TestIdentifiersExist: the identifiers of our packages that the documents name, such as
// ledger.Claim, exist.
func TestIdentifiersExist(t *testing.T) {
	text := map[string]string{}
	for _, name := range files(t, ".go") {
		if dir := filepath.Dir(name); strings.HasPrefix(dir, "internal/") && !strings.HasSuffix(name, "_test.go") {
			text[filepath.Base(dir)] += read(t, name)
		}
	}
	values := read(t, "deploy/helm/terbayar/values.yaml")
	identifier := regexp.MustCompile(`^([a-z]+)\.([A-Za-z]\w*)(?:\.([A-Za-z]\w*))?$`)
	found := 0
	for _, page := range files(t, ".md") {
		for _, each := range code(fence.ReplaceAllString(read(t, page), "")) {
			m := identifier.FindStringSubmatch(each)
			if m == nil || text[m[1]] == "" || page == "CHANGELOG.md" || strings.Contains(values, m[2]+":") {
				continue // of another module, a former name, or a value of the chart
			}
			found++
			for _, name := range m[2:] {
				if !regexp.MustCompile(`\b` + name + `\b`).MatchString(text[m[1]]) {
					t.Errorf("%s: there is no %s", page, each)
				}
			}
		}
	}
	if found < 10 {
		t.Errorf("%d identifiers found", found)
	}
}

// TestIndex: docs/README.md lists every document.
func TestIndex(t *testing.T) {
	index := read(t, "docs/README.md")
	for _, page := range files(t, ".md") {
		if name, ok := strings.CutPrefix(page, "docs/"); ok && !strings.Contains(name, "/") && name != "README.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/README.md does not list %s", name)
		}
	}
}
