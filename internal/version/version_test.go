package version

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestFromBuildInfo(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "3b130b8f4c2d1e0a9b8c7d6e5f4a3b2c1d0e9f8a"}
	for _, row := range []struct {
		settings []debug.BuildSetting
		want     string
	}{
		{nil, "unknown"},
		{[]debug.BuildSetting{{Key: "-race", Value: "true"}}, "unknown"},
		{[]debug.BuildSetting{revision}, "3b130b8"},
		{[]debug.BuildSetting{revision, {Key: "vcs.modified", Value: "false"}}, "3b130b8"},
		{[]debug.BuildSetting{revision, {Key: "vcs.modified", Value: "true"}}, "3b130b8-dirty"},
		{[]debug.BuildSetting{{Key: "vcs.revision", Value: "77"}}, "77"}, // a revision of Subversion
	} {
		if got := fromBuildInfo(row.settings); got != row.want {
			t.Errorf("%v: %s, want %s", row.settings, got, row.want)
		}
	}
}

// TestPrograms builds the programs with a commit and runs each with --version, which needs
// neither a command nor valid settings.
func TestPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("links three programs")
	}
	dir := t.TempDir()
	programs := []string{"worker", "enqueue", "gatewaysim"}
	build := exec.Command("go", "build", "-ldflags", "-s -w -X terbayar/internal/version.commit=abc1234", "-o", dir)
	for _, p := range programs {
		build.Args = append(build.Args, "terbayar/cmd/"+p)
	}
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, p := range programs {
		cmd := exec.Command(filepath.Join(dir, p), "--version")
		cmd.Env = []string{"REDIS_URL=wrong", "GATEWAYSIM_SEED=wrong"}
		out, err := cmd.Output()
		want := p + " " + Release + " (commit abc1234, " + runtime.Version() + ")\n"
		if err != nil || string(out) != want {
			t.Errorf("%s --version: %q, %v, want %q", p, out, err, want)
		}
	}
}

// TestChart: the chart's appVersion is the release.
func TestChart(t *testing.T) {
	chart, err := os.ReadFile("../../deploy/helm/terbayar/Chart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^appVersion: (.*)$`).FindStringSubmatch(string(chart))
	if m == nil || strings.Trim(m[1], `"`) != Release {
		t.Errorf("appVersion of the chart: %q, want %s", m, Release)
	}
}
