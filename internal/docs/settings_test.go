package docs

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"terbayar/internal/config"
	"terbayar/internal/worker"
)

// settings returns the variables that the programs read, with their defaults. A test in
// cmd/worker compares them with docs/settings.md.
func settings(t *testing.T) map[string]string {
	t.Helper()
	parser, err := kong.New(&struct {
		worker.Config
		Serve config.Serve `embed:""` // of enqueue
	}{})
	if err != nil {
		t.Fatal(err)
	}
	variables := map[string]string{}
	for _, f := range parser.Model.Flags {
		if len(f.Envs) > 0 {
			variables[f.Envs[0]] = f.Default
		}
	}
	return variables
}

// notBuilt lists what docs/README.md calls not built, in backticks.
func notBuilt(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, row := range table(t, read(t, "docs/README.md"), "section of interface.md") {
		section(t, read(t, "docs/interface.md"), row[0]) // exists
		all = append(all, code(row[1])...)
	}
	return all
}

var variable = regexp.MustCompile(`^[A-Z][A-Z0-9_]+$`)

// TestSettings compares the settings of docs/interface.md with the programs'. One that
// does not exist has to be listed in docs/README.md as not built, and no other is.
func TestSettings(t *testing.T) {
	text, exist, missing := read(t, "docs/interface.md"), settings(t), notBuilt(t)
	rows := table(t, text, `variable \| meaning`)
	inTable := func(name string) bool {
		return slices.ContainsFunc(rows, func(row []string) bool { return slices.Contains(code(row[0]), name) })
	}
	for _, name := range sorted(code(text)) {
		if _, built := exist[name]; variable.MatchString(name) && (inTable(name) || strings.Contains(name, "_")) &&
			!built && !slices.Contains(missing, name) {
			t.Errorf("%s does not exist, and docs/README.md does not list it as not built", name)
		}
	}
	for _, name := range missing {
		if _, built := exist[name]; built && variable.MatchString(name) {
			t.Errorf("docs/README.md lists %s as not built, and it exists", name)
		}
		if variable.MatchString(name) && !strings.Contains(text, "`"+name+"`") {
			t.Errorf("docs/README.md lists %s as not built, and docs/interface.md does not mention it", name)
		}
	}

	// Defaults, in brackets behind the name.
	inWords := map[string]string{
		"REDIS_WAIT_TIMEOUT": "auto", // the durations that auto stands for
	}
	withDefault := regexp.MustCompile("`([A-Z_]+)` \\[(?:`([^`]+)`|([^\\];:]+))[^\\]]*\\]")
	compared := 0
	for _, row := range rows {
		for _, m := range withDefault.FindAllStringSubmatch(row[0], -1) {
			want := m[2] + m[3]
			if words, ok := inWords[m[1]]; ok {
				want = words
			}
			if got, built := exist[m[1]]; built && got != want {
				t.Errorf("%s: the default is %q, in docs/interface.md %q", m[1], got, want)
			} else if built {
				compared++
			}
		}
	}
	if compared < 17 {
		t.Errorf("%d defaults compared", compared)
	}
}

// TestWebhookSchedule compares the default of WEBHOOK_SCHEDULE with the documents.
func TestWebhookSchedule(t *testing.T) {
	field, _ := reflect.TypeFor[config.Webhooks]().FieldByName("Schedule")
	schedule := field.Tag.Get("default")
	if page := read(t, "docs/webhooks.md"); !strings.Contains(page, "\n`"+schedule+"`\n") {
		t.Errorf("docs/webhooks.md does not have %s", schedule)
	}
	words := strings.ReplaceAll(strings.ReplaceAll(schedule, ",", ", "), "\n", " ")
	spaced := regexp.MustCompile(`(\d+)([smh])`).ReplaceAllString(words, "$1 $2")
	if page := strings.ReplaceAll(read(t, "docs/interface.md"), "\n", " "); !strings.Contains(page, "("+spaced+", each with jitter") {
		t.Errorf("docs/interface.md does not have %s", spaced)
	}
	tries := strconv.Itoa(strings.Count(schedule, ",") + 2)
	for _, name := range []string{"docs/webhooks.md", "docs/interface.md"} {
		if !strings.Contains(read(t, name), tries+" tries") {
			t.Errorf("%s does not say %s tries", name, tries)
		}
	}
}
