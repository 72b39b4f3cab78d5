package retrypolicy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/retrypolicy"
)

// TestTableInDocument compares the table in docs/retry-policy.md with the built-in policy.
// After a change of the policy, copy the output of "worker policies" into the document.
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

// TestExampleInDocument parses the document's example policy file and compares the rows that
// the document shows for it.
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
				t.Errorf("missing in the document: %s", line)
			}
		}
	}
	if shown != 6 {
		t.Errorf("%d rows come from the example, want 6", shown)
	}
}
