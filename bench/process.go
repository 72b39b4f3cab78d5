package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"terbayar/internal/testenv"
)

// children are the programs that bench runs as processes of its own executable.
var children = map[string]func(args []string) error{
	"gateway":      gatewayMain,
	"proxy":        proxyMain,
	"bare":         bareMain,
	"bare-enqueue": bareEnqueueMain,
}

// serve prints a line, which says that a child is ready, and returns when the standard input
// ends: it ends with its parent, even if that is killed.
func serve(ready string) error {
	fmt.Println(ready)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// process is a program that was started.
type process struct {
	t       testenv.TB
	cmd     *exec.Cmd
	stdout  string // a file
	stderr  string // a file
	started time.Time
	ended   chan struct{}
	endedAt time.Time // valid when ended is closed
}

// start starts a program, and kills it when the measure ends. Its environment has PATH and
// the given variables. Its output goes to files, so that this process does no work for it.
func start(t testenv.TB, program string, args []string, environment ...string) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{t: t, stdout: filepath.Join(dir, "stdout"), stderr: filepath.Join(dir, "stderr"), ended: make(chan struct{})}
	p.cmd = exec.CommandContext(t.Context(), program, args...)
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, environment...)
	var err error
	if p.cmd.Stdout, err = os.Create(p.stdout); err != nil {
		t.Fatal(err)
	}
	if p.cmd.Stderr, err = os.Create(p.stderr); err != nil {
		t.Fatal(err)
	}
	if _, err := p.cmd.StdinPipe(); err != nil { // it stays open until this process ends
		t.Fatal(err)
	}
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState has the exit code
		p.endedAt = time.Now()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
	})
	return p
}

// startChild starts one of the children and waits until it is ready. It returns the line that
// the child has printed.
func startChild(t testenv.TB, name string, args ...string) (*process, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, self, append([]string{name}, args...))
	p.awaitOutput(p.stdout, "\n")
	return p, strings.TrimSpace(p.output(p.stdout))
}

func (p *process) output(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// awaitOutput waits until the program has written a text.
func (p *process) awaitOutput(file, text string) {
	p.t.Helper()
	await(p.t, fmt.Sprintf("%s has written %q", p.cmd, text), func() bool {
		if p.hasEnded() {
			p.fail("has ended")
		}
		return strings.Contains(p.output(file), text)
	})
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *process) fail(what string) {
	p.t.Helper()
	log := p.output(p.stderr)
	p.t.Fatalf("%s %s\n%s", p.cmd, what, log[max(0, len(log)-2000):])
}

// run waits for the end of a program. It returns how long the program took, from its start
// on, and its largest memory in bytes.
func (p *process) run() (took time.Duration, memory float64) {
	p.t.Helper()
	await(p.t, p.cmd.String()+" has ended", func() bool {
		memory = max(memory, p.memory())
		return p.hasEnded()
	})
	if !p.cmd.ProcessState.Success() {
		p.fail(p.cmd.ProcessState.String())
	}
	return p.endedAt.Sub(p.started), memory
}

// stop sends SIGTERM and waits for the end of the program.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	await(p.t, p.cmd.String()+" has ended", p.hasEnded)
}

// memory returns VmHWM, the largest resident memory so far, in bytes; 0 after the end of the
// program. (The ru_maxrss that the system reports at the end of a child begins with the
// memory of its parent.)
func (p *process) memory() float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	_, rest, _ := bytes.Cut(text, []byte("VmHWM:"))
	if fields := bytes.Fields(rest); len(fields) > 0 {
		kilobytes, err := strconv.ParseFloat(string(fields[0]), 64)
		if err != nil {
			p.t.Fatal(err)
		}
		return 1024 * kilobytes
	}
	return 0
}

// clockTick is the unit of the CPU times in /proc. It is 10 ms on Linux, whatever the kernel's
// own timer.
const clockTick = 10 * time.Millisecond

// cpu returns the CPU time of the process so far, in seconds.
func (p *process) cpu() float64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	// "PID (NAME) STATE ...": utime and stime are fields 14 and 15, and NAME may contain anything.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	total := 0.0
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseFloat(string(field), 64)
		if err != nil {
			p.t.Fatal(err)
		}
		total += ticks * clockTick.Seconds()
	}
	return total
}
