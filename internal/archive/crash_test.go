package archive_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"terbayar/internal/archive"
)

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// The environment of a child process: the directory it appends to, its number, and how many
// batches it appends.
const (
	childDir     = "ARCHIVE_TEST_DIR"
	childRun     = "ARCHIVE_TEST_RUN"
	childBatches = "ARCHIVE_TEST_BATCHES"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		appendBatches(dir)
		return
	}
	os.Exit(m.Run())
}

// batchLine is a line of a batch of a child process.
type batchLine struct {
	Run, Batch, Line, Of int
	Fill                 []byte // random
	SHA256               string // of Fill
}

// appendBatches prints the number of each batch once Append has returned.
func appendBatches(dir string) {
	run, _ := strconv.Atoi(os.Getenv(childRun))
	batches, _ := strconv.Atoi(os.Getenv(childBatches))
	w := archive.NewWriter(dir, "child:"+os.Getenv(childRun), clock)
	random := rand.NewChaCha8([32]byte{byte(run), byte(run >> 8)})
	for batch := range batches {
		size := 30 << (5 * (batch % 3)) // up to 30 KB a line: writing takes a while
		lines := make([][]byte, 1+batch%7)
		for i := range lines {
			line := batchLine{Run: run, Batch: batch, Line: i, Of: len(lines), Fill: make([]byte, size)}
			_, _ = random.Read(line.Fill)
			line.SHA256 = sha256Hex(line.Fill)
			lines[i], _ = json.Marshal(line)
		}
		if _, err := w.Append(lines); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(batch)
	}
	w.Close()
}

func child(dir string, run, batches int, command ...string) *exec.Cmd {
	command = append(command, os.Args[0])
	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec // the test itself
	cmd.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprint(childRun, "=", run), fmt.Sprint(childBatches, "=", batches))
	return cmd
}

// Processes that append to one archive are killed at random moments. Each batch whose number was
// printed must be there, and nothing may be damaged.
func TestKill(t *testing.T) {
	t.Parallel()
	const kills, parallel = 40, 2
	dir := t.TempDir()
	type batch struct{ run, number int }
	var mu sync.Mutex
	printed := map[batch]bool{}
	var running sync.WaitGroup
	for lane := range parallel {
		running.Go(func() {
			for run := lane; run < kills; run += parallel {
				numbers, err := killedRun(dir, run)
				if err != nil {
					t.Errorf("run %d: %v", run, err)
				}
				mu.Lock()
				for _, n := range numbers {
					printed[batch{run, n}] = true
				}
				mu.Unlock()
			}
		})
	}
	running.Wait()

	found := map[batch][]int{} // the numbers of the lines
	for text, err := range archive.Read(dir, today) {
		if err != nil {
			t.Fatal(err)
		}
		var line batchLine
		if err := json.Unmarshal(text, &line); err != nil || sha256Hex(line.Fill) != line.SHA256 {
			t.Fatalf("line %.100q: %v", text, err)
		}
		b := batch{line.Run, line.Batch}
		if line.Line != len(found[b]) || line.Of != 1+line.Batch%7 {
			t.Fatalf("%+v: line %d of %d after %v", b, line.Line, line.Of, found[b])
		}
		found[b] = append(found[b], line.Line)
	}
	for b := range printed {
		if len(found[b]) != 1+b.number%7 {
			t.Errorf("%+v was appended, but has lines %v", b, found[b])
		}
	}
	unprinted := 0
	for b, lines := range found {
		if len(lines) != 1+b.number%7 {
			t.Errorf("%+v has only lines %v", b, lines)
		}
		if !printed[b] {
			unprinted++
		}
	}
	remains := 0
	for _, r := range reports(t, dir) {
		if len(r.Problems) > 0 {
			t.Errorf("%+v", r)
		}
		if r.Unconfirmed > 0 {
			remains++
		}
	}
	t.Logf("%d batches printed, %d more in the archive, %d files with unconfirmed bytes", len(printed), unprinted, remains)
	if len(printed) < kills {
		t.Errorf("only %d batches in %d runs: the test does not test", len(printed), kills)
	}
}

// killedRun starts a child, kills it, and returns the numbers that it printed. Every fourth child
// is killed at a random time after its start, the others at one after a random batch.
func killedRun(dir string, run int) ([]int, error) {
	cmd := child(dir, run, 1_000_000)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	kill := func(within time.Duration) {
		time.AfterFunc(rand.N(within), func() { _ = cmd.Process.Kill() })
	}
	after := rand.N(12)
	if run%4 == 0 {
		after = -1
		kill(200 * time.Millisecond)
	}
	var numbers []int
	var malformed error
	for lines := bufio.NewReader(stdout); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // killed
		}
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			malformed = fmt.Errorf("printed %q", line)
			kill(1)
			continue
		}
		if numbers = append(numbers, n); n == after {
			kill(8 * time.Millisecond)
		}
	}
	_ = cmd.Wait() // killed
	if stderr.Len() > 0 {
		return numbers, fmt.Errorf("child: %s", stderr.String())
	}
	return numbers, malformed
}

// SIGKILL does not lose what is in the page cache. So this test checks with strace that the
// child calls fsync in the right order.
func TestSyncOrder(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	dir, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	cmd := child(dir, 1, 2, strace, "-f", "-y", "-s", "0", "-o", trace, "-e", "trace=mkdirat,openat,write,fsync,unlinkat")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "0\n1\n" {
		if _, statErr := os.Stat(filepath.Join(dir, string(today))); statErr != nil {
			t.Skipf("strace cannot trace here: %v, %s", err, out)
		}
		t.Fatalf("%v, %s", err, out)
	}
	day := filepath.Join(dir, string(today))
	data := dataFiles(t, dir, today)[0]
	names := strings.NewReplacer(data, "DATA", manifestOf(data), "MANIFEST", day, "DAY", dir, "DIR")
	call := regexp.MustCompile(`^\d+ +(\w+)\((?:AT_FDCWD(?:<[^>]*>)?, "([^"]*)", (\w+(?:\|\w+)*)|(\d+)<([^>]*)>)`)
	var got []string
	for line := range strings.Lines(string(readFile(t, trace))) {
		m := call.FindStringSubmatch(line)
		switch {
		case m == nil: // "resumed"
		case m[1] == "write" && m[4] == "1":
			got = append(got, "print")
		case strings.HasPrefix(m[2]+m[5], dir):
			op := m[1]
			if op == "openat" {
				op = "open"
				if strings.Contains(m[3], "O_CREAT") && strings.Contains(m[3], "O_EXCL") {
					op = "create"
				}
			}
			got = append(got, op+" "+names.Replace(m[2]+m[5]))
		}
	}
	appended := []string{"write DATA", "fsync DATA", "write MANIFEST", "fsync MANIFEST", "open MANIFEST", "open DATA", "print"}
	want := slices.Concat(
		[]string{"mkdirat DAY", "create DATA", "create MANIFEST", "open DAY", "fsync DAY", "open DIR", "fsync DIR"},
		appended, appended)
	if !slices.Equal(got, want) {
		t.Errorf("calls\n%s\nwant\n%s\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), readFile(t, trace))
	}
}
