package retrypolicy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/retrypolicy"
)

// TestTableInDocument holds the table in docs/retry-policy.md to the built-in
// policy. After a change, the output of "worker policies" goes into its block.
func TestTableInDocument(t *testing.T) {
	doc, err := os.ReadFile("../../docs/retry-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```text\n")
	written, _, _ := strings.Cut(rest, "```")
	var table strings.Builder
	if err := retrypolicy.WriteTable(&table, retrypolicy.Builtin()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(table.String(), written); diff != "" {
		t.Errorf("policy -, document +\n%s", diff)
	}
}

// TestExampleInDocument holds the document's policy file to the parser.
func TestExampleInDocument(t *testing.T) {
	doc, err := os.ReadFile("../../docs/retry-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	policy, err := retrypolicy.Parse("policy.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := retrypolicy.WriteTable(&table, policy); err != nil {
		t.Fatal(err)
	}
	shown := 0
	for line := range strings.Lines(table.String()) {
		if strings.Contains(line, "policy.yaml:") {
			shown++
			if !strings.Contains(string(doc), line) {
				t.Errorf("not shown: %s", line)
			}
		}
	}
	if shown != 6 {
		t.Errorf("%d rows of the example are in force, want 6", shown)
	}
}
