package typed

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestChangelog checks that the newest section of CHANGELOG.md is that of the chart's version,
// and that the annotation for Artifact Hub lists the same changes.
func TestChangelog(t *testing.T) {
	var c struct {
		Version     string
		AppVersion  string
		Annotations map[string]string
	}
	if err := yaml.Unmarshal([]byte(read(t, chart+"/Chart.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?s)\n## ([^\n]+)\n(.*?)(\n## |$)`).FindStringSubmatch(read(t, chart+"/CHANGELOG.md"))
	if section == nil || section[1] != c.Version {
		t.Fatalf("version %s is not the newest section of CHANGELOG.md: %q", c.Version, section)
	}
	var annotated []struct{ Kind, Description string }
	if err := yaml.UnmarshalStrict([]byte(c.Annotations["artifacthub.io/changes"]), &annotated); err != nil {
		t.Fatal(err)
	}
	var want, got []string
	kind := ""
	for line := range strings.Lines(section[2]) {
		line = strings.TrimSpace(line)
		if heading, ok := strings.CutPrefix(line, "### "); ok {
			kind = strings.ToLower(heading)
		} else if item, ok := strings.CutPrefix(line, "- "); ok {
			want = append(want, kind+" "+item)
		}
	}
	for _, c := range annotated {
		got = append(got, c.Kind+" "+c.Description)
	}
	if len(want) == 0 || !slices.Equal(want, got) {
		t.Errorf("CHANGELOG.md:\n%s\nChart.yaml:\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}
