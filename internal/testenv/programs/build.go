// Package programs is the test environment of the real programs: worker and enqueue as
// processes, a real Redis, both simulated gateways, an order system and a consumer of the
// result events. Tests and bench/chaos use it.
package programs

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
)

// Main runs the tests of a package, four at once whatever the number of cores: these tests
// wait more than they compute. TestMain calls it.
func Main(m interface{ Run() int }) {
	flag.Parse()
	code := 1
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	Remove()
	os.Exit(code)
}

var built struct {
	sync.Once

	dir string
	err error
}

// Path returns the path of "worker" or "enqueue". The first call builds both, with the race
// detector if this process has it.
func Path(t TB, program string) string {
	t.Helper()
	if strings.Contains(program, "/") {
		return program
	}
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "terbayar-programs-"); built.err == nil {
			built.err = build(built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, program)
}

func build(dir string) error {
	args := []string{"build", "-o", dir}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "terbayar/cmd/worker", "terbayar/cmd/enqueue")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// Remove removes the programs that Path has built.
func Remove() {
	if built.dir != "" {
		_ = os.RemoveAll(built.dir) // a temporary directory
	}
}
