package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"terbayar/internal/config"
)

// TestSettingsDocument compares the table of docs/settings.md of settings and defaults with the flags.
func TestSettingsDocument(t *testing.T) {
	doc, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (?:`([^`]*)` )?\\|").FindAllStringSubmatch(string(doc), -1) {
		documented[m[1]] = m[2]
	}
	parser, err := kong.New(&struct {
		cli
		Serve config.Serve `embed:""` // of enqueue
	}{})
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]string{}
	err = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok && len(f.Envs) > 0 {
			flags[f.Envs[0]] = f.Default
		}
		return next(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(flags, documented); diff != "" {
		t.Errorf("flags -, docs/settings.md +\n%s", diff)
	}
}
