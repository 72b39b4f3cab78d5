package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

// TestSettingsInReadme holds the README's table of settings and their defaults to
// the flags.
func TestSettingsInReadme(t *testing.T) {
	doc, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (?:`([^`]*)` )?\\|").FindAllStringSubmatch(string(doc), -1) {
		written[m[1]] = m[2]
	}
	parser, err := kong.New(&cli{})
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]string{}
	err = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok && len(f.Envs) > 0 {
			there[f.Envs[0]] = f.Default
		}
		return next(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(there, written); diff != "" {
		t.Errorf("flags -, README +\n%s", diff)
	}
}
