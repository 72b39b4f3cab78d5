package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// root is the top of the repository.
const root = "../../"

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(root + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// files lists the repository's files with one of the endings, relative to its top.
func files(t *testing.T, endings ...string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if d.IsDir() && (name == ".git" || name == "bin" || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if d.Type().IsRegular() && slices.Contains(endings, filepath.Ext(name)) {
			found = append(found, name)
		}
		return err
	})
	if err != nil || len(found) == 0 {
		t.Fatal(endings, err)
	}
	return found
}

// heading matches a heading: its level, its number if it has one, its text.
var heading = regexp.MustCompile(`(?m)^(#+) (?:(\d+(?:\.\d+)?)\.? )?(.+)$`)

// fence matches a block of code.
var fence = regexp.MustCompile("(?ms)^ *```(\\w*)\n(.*?)^ *```")

// section returns the text below the heading that begins with the title, up to the next
// heading of the same or a higher level.
func section(t *testing.T, text, title string) string {
	t.Helper()
	text = fence.ReplaceAllString(text, "")
	begin, level := -1, 0
	for _, m := range heading.FindAllStringSubmatchIndex(text, -1) {
		depth := m[3] - m[2]
		switch {
		case begin < 0 && strings.HasPrefix(text[m[6]:m[7]], title):
			begin, level = m[1], depth
		case begin >= 0 && depth <= level:
			return text[begin:m[0]]
		}
	}
	if begin < 0 {
		t.Fatalf("no section %q", title)
	}
	return text[begin:]
}

// table returns the rows, without the header, of the first table whose header fits.
func table(t *testing.T, text, header string) [][]string {
	t.Helper()
	at := regexp.MustCompile(`(?m)^\| ?` + header + `.*\n\|[-:| ]+\n((?:\|.*\n?)+)`).FindStringSubmatch(text)
	if at == nil {
		t.Fatalf("no table %q", header)
	}
	var rows [][]string
	for line := range strings.Lines(at[1]) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

var span = regexp.MustCompile("`([^`\n]+)`")

// code lists what a text has in backticks.
func code(text string) []string {
	var all []string
	for _, m := range span.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// sources parses the Go files of a directory, tests left out.
func sources(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(root + dir + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var parsed []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, file)
	}
	if len(parsed) == 0 {
		t.Fatalf("no Go files in %s", dir)
	}
	return parsed
}

// constants lists the values of a package's constants whose type is given, or whose name
// begins with the prefix.
func constants(t *testing.T, dir, typeName, prefix string) []string {
	t.Helper()
	var values []string
	for _, file := range sources(t, dir) {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			typed, _ := spec.Type.(*ast.Ident)
			for i, name := range spec.Names {
				if i >= len(spec.Values) || (typed == nil || typed.Name != typeName) && (prefix == "" || !strings.HasPrefix(name.Name, prefix)) {
					continue
				}
				if value, ok := spec.Values[i].(*ast.BasicLit); ok {
					values = append(values, literal(value))
				}
			}
			return true
		})
	}
	if len(values) == 0 {
		t.Fatalf("%s has no constants %s %s", dir, typeName, prefix)
	}
	return values
}

// literal is the value of a string, or the text of another literal.
func literal(l *ast.BasicLit) string {
	if text, err := strconv.Unquote(l.Value); err == nil {
		return text
	}
	return l.Value
}

func sorted(values []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(values)))
}
