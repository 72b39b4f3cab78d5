package docs

import (
	"go/ast"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// commands returns the commands of a program, and every flag that its code has.
func commands(t *testing.T, program string) (names, flags []string) {
	t.Helper()
	flags = []string{"version", "help"}
	for i, dir := range []string{"cmd/" + program, "internal/config"} {
		for _, file := range sources(t, dir) {
			ast.Inspect(file, func(n ast.Node) bool {
				field, ok := n.(*ast.Field)
				if !ok || field.Tag == nil || len(field.Names) != 1 {
					return true
				}
				tag := reflect.StructTag(literal(field.Tag))
				name := tag.Get("name")
				if name == "" {
					name = strings.ToLower(field.Names[0].Name)
				}
				if _, is := tag.Lookup("cmd"); is && i == 0 {
					names = append(names, name)
				} else {
					flags = append(flags, name)
				}
				return true
			})
		}
	}
	if len(names) < 3 {
		t.Fatalf("%s has the commands %v", program, names)
	}
	return names, flags
}

// TestInterfaceCommands: a command in docs/interface.md exists, or docs/README.md lists it
// as not built.
func TestInterfaceCommands(t *testing.T) {
	missing := notBuilt(t)
	for _, program := range []string{"worker", "enqueue"} {
		names, _ := commands(t, program)
		for _, row := range table(t, read(t, "docs/interface.md"), `program \| what it does`) {
			words := regexp.MustCompile(`^`+program+` ([a-z]+)`).FindAllStringSubmatch(strings.Join(code(row[0]), "\n"), -1)
			for _, m := range words {
				exists, listed := slices.Contains(names, m[1]), slices.Contains(missing, program+" "+m[1])
				if exists == listed {
					t.Errorf("%s %s: exists: %t, listed as not built: %t", program, m[1], exists, listed)
				}
			}
		}
	}
}

// TestCommands: every command and flag in the documents exists, or docs/README.md lists it
// as not built. The runbook only has those that exist.
func TestCommands(t *testing.T) {
	call := regexp.MustCompile(`(?m)(?:^|[|;] |-- |\$ |&& |bin/)(worker|enqueue) ([a-z-]+)([^|;#&\n]*)`)
	missing := notBuilt(t)
	found := 0
	for _, name := range []string{"README.md", "docs/runbook.md", "docs/retry-policy.md", "docs/states.md", "docs/architecture.md"} {
		text := read(t, name)
		if name == "docs/runbook.md" {
			text = strings.Replace(text, section(t, text, "Log messages"), "", 1) // they may begin with "worker"
		}
		shell := ""
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			if m[1] == "sh" || m[1] == "console" {
				shell += m[2]
			}
		}
		shell += strings.Join(code(fence.ReplaceAllString(text, "")), "\n")
		for _, m := range call.FindAllStringSubmatch(shell, -1) {
			found++
			names, flags := commands(t, m[1])
			if !strings.HasPrefix(m[2], "--") && !slices.Contains(names, m[2]) && (name == "docs/runbook.md" || !slices.Contains(missing, m[1]+" "+m[2])) {
				t.Errorf("%s: %s has no command %s", name, m[1], m[2])
			}
			for _, flag := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(m[2]+m[3], -1) {
				if !slices.Contains(flags, flag[1]) {
					t.Errorf("%s: %s %s has no flag --%s", name, m[1], m[2], flag[1])
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("%d commands found", found)
	}
}

// TestExitCodes compares the exit codes of enqueue with the documents.
func TestExitCodes(t *testing.T) {
	want := sorted(append(constants(t, "cmd/enqueue", "", "exit"), "0"))
	var readme []string
	for _, row := range table(t, read(t, "README.md"), "exit code") {
		readme = append(readme, strings.Trim(row[0], "`"))
	}
	if got := sorted(readme); !slices.Equal(got, want) {
		t.Errorf("README.md has the exit codes %v, enqueue %v", got, want)
	}
	text := section(t, read(t, "docs/interface.md"), "A payment, as") + section(t, read(t, "docs/interface.md"), "Payment status")
	var documented []string
	for _, m := range regexp.MustCompile(`(?:[Ee]xit code (\d)|; (\d) (?:when|for))`).FindAllStringSubmatch(text, -1) {
		documented = append(documented, m[1]+m[2])
	}
	if got := sorted(documented); !slices.Equal(got, want) {
		t.Errorf("docs/interface.md has the exit codes %v, enqueue %v", got, want)
	}
}
