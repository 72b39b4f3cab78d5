package programs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Output is what a process has written to stdout or stderr so far.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
	file *os.File // receives a copy, if it is not nil
}

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file != nil {
		_, _ = o.file.Write(b) // no test reads the copy
	}
	return o.text.Write(b)
}

// String returns everything.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Tail returns the last 4000 bytes.
func (o *Output) Tail() string {
	text := o.String()
	return text[max(0, len(text)-4000):]
}

// Has reports whether the output contains a text.
func (o *Output) Has(text string) bool { return strings.Contains(o.String(), text) }

// Lines returns the number of lines.
func (o *Output) Lines() int { return strings.Count(o.String(), "\n") }

// Process is a program that was started.
type Process struct {
	Name           string // "worker-1"
	Stdin          io.WriteCloser
	Stdout, Stderr Output

	env        *Env
	cmd        *exec.Cmd
	ended      chan struct{}
	endedAt    time.Time // valid when ended is closed
	terminated time.Time // when SIGTERM was sent
	killed     bool
}

// Start starts "worker", "enqueue" or the program at a path, and kills it when the test ends.
// Each edit, NAME=value, changes its environment; an empty value removes the variable.
func (e *Env) Start(program string, args []string, edits ...string) *Process {
	e.Helper()
	path := Path(e, program)
	e.mu.Lock()
	p := &Process{Name: fmt.Sprintf("%s-%d", filepath.Base(program), len(e.processes)+1), env: e, ended: make(chan struct{})}
	e.processes = append(e.processes, p)
	e.mu.Unlock()
	p.cmd = exec.Command(path, args...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = e.environ(edits), &p.Stdout, &p.Stderr
	if e.LogDir != "" {
		file, err := os.Create(filepath.Join(e.LogDir, p.Name+".log"))
		if err != nil {
			e.Fatal(err)
		}
		p.Stdout.file, p.Stderr.file = file, file
		e.Cleanup(func() { _ = file.Close() })
	}
	var err error
	if p.Stdin, err = p.cmd.StdinPipe(); err != nil {
		e.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		e.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // ExitCode returns the result
		p.endedAt = time.Now()
	}()
	e.Cleanup(func() {
		p.Kill()
		if p.Stderr.Has("DATA RACE") {
			e.Errorf("%s: %s", p.Name, p.Stderr.String())
		}
		if e.Failed() {
			e.Logf("the end of the log of %s:\n%s", p.Name, p.Stderr.Tail())
		}
	})
	return p
}

// environ returns the environment of a program. Only PATH is inherited from this process.
func (e *Env) environ(edits []string) []string {
	settings := maps.Clone(e.Settings)
	for _, edit := range edits {
		name, value, _ := strings.Cut(edit, "=")
		settings[name] = value
	}
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0", // without it a program with the race detector takes a second longer to end
	}
	for name, value := range settings {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// Kill is kill -9.
func (p *Process) Kill() {
	if !p.HasEnded() {
		p.env.mu.Lock()
		p.killed = true
		p.env.mu.Unlock()
	}
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// HasEnded reports whether the process has ended.
func (p *Process) HasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Signal sends a signal to a process that runs.
func (p *Process) Signal(sig os.Signal) {
	p.env.Helper()
	if sig == syscall.SIGTERM {
		p.env.mu.Lock()
		p.terminated = time.Now()
		p.env.mu.Unlock()
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !p.HasEnded() {
		p.env.Errorf("signal to %s: %v", p.Name, err)
	}
}

// Freeze stops a process until SIGCONT. It returns when all its threads have stopped: one
// that is on a processor continues for a moment after the signal.
func (p *Process) Freeze() {
	p.env.Helper()
	p.Signal(syscall.SIGSTOP)
	p.env.Eventually("every thread has stopped", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		return err == nil && len(threads) > 0 && !slices.ContainsFunc(threads, func(file string) bool {
			text, err := os.ReadFile(file)
			// "PID (NAME) STATE ...", and NAME may contain anything.
			_, state, _ := bytes.Cut(text, []byte(") "))
			return err == nil && !bytes.HasPrefix(state, []byte("T"))
		})
	})
}

// Exit waits for the end of the process and returns its exit code.
func (p *Process) Exit() int {
	p.env.Helper()
	select {
	case <-p.ended:
	case <-time.After(Timeout):
		p.env.Fatalf("%s has not ended within %s\n%s", p.Name, Timeout, p.Stderr.Tail())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Stop sends SIGTERM and fails the test if the exit code is not 0.
func (p *Process) Stop() {
	p.env.Helper()
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		p.env.Errorf("%s ended with exit code %d\n%s", p.Name, code, p.Stderr.Tail())
	}
}

// listensAt finds the address of the HTTP server in the log of worker or enqueue serve.
var listensAt = regexp.MustCompile(`(?:"http"|"serving the HTTP API","addr"):"([^"]+)"`)

// URL returns the URL of the HTTP server of a worker or of enqueue serve, without a path; empty
// if it has not logged it yet.
func (p *Process) URL() string {
	if m := listensAt.FindStringSubmatch(p.Stderr.String()); m != nil {
		return "http://" + m[1]
	}
	return ""
}

// Result is the output and the exit code of a program.
type Result struct {
	Code           int // -1 if it was killed
	Stdout, Stderr string
}

// Run runs a program to its end.
func (e *Env) Run(program string, args []string, stdin string, edits ...string) Result {
	e.Helper()
	return e.run(e.Context(), program, args, stdin, edits...)
}

// run runs a program until its end, the end of the context, or the timeout.
func (e *Env) run(ctx context.Context, program string, args []string, stdin string, edits ...string) Result {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, Path(e, program), args...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = e.environ(edits), strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		if ctx.Err() == nil {
			e.Errorf("%s: %v", program, err)
		}
		return Result{Code: -1}
	}
	if strings.Contains(stderr.String(), "DATA RACE") {
		e.Errorf("%s: %s", program, stderr.String())
	}
	return Result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}
