package testenv

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ProgramTB is the TB of a program that is not a test. Fatal and Skip end the function that
// Try has called; Error marks the run as failed.
type ProgramTB struct {
	//nolint:containedctx // as in testing.TB
	ctx   context.Context
	dir   string
	quiet bool
	begun time.Time

	mu       sync.Mutex
	folders  int
	cleanups []func()
	errors   []error
}

// fatalError is the panic by which Fatal ends the function that Try has called.
type fatalError struct{ error }

// NewProgramTB returns a TB with a temporary directory. With quiet Logf prints nothing.
func NewProgramTB(ctx context.Context, quiet bool) (*ProgramTB, error) {
	dir, err := os.MkdirTemp("", "terbayar-run-")
	return &ProgramTB{ctx: ctx, dir: dir, quiet: quiet, begun: time.Now()}, err
}

// Try calls a function and returns the error of its Fatal.
func (*ProgramTB) Try(f func()) (err error) {
	defer func() {
		switch failure := recover().(type) {
		case nil:
		case fatalError:
			err = failure.error
		default:
			panic(failure)
		}
	}()
	f()
	return nil
}

// Close calls the clean-up functions, the last one first, and returns the errors of the run.
// It keeps the directory if it is asked to, or if there were errors.
func (t *ProgramTB) Close(keep bool) error {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		if err := t.Try(t.cleanups[i]); err != nil {
			t.Error(err)
		}
	}
	if !keep && !t.Failed() {
		_ = os.RemoveAll(t.dir) // a temporary directory
	} else {
		log.Printf("logs and files of Redis are in %s", t.dir)
	}
	return errors.Join(t.errors...)
}

// Dir is the temporary directory.
func (t *ProgramTB) Dir() string { return t.dir }

// Helper does nothing.
func (*ProgramTB) Helper() {}

// Context is the context of the run.
func (t *ProgramTB) Context() context.Context { return t.ctx }

// Cleanup registers a function for Close.
func (t *ProgramTB) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

// TempDir creates a directory in the temporary directory.
func (t *ProgramTB) TempDir() string {
	t.mu.Lock()
	t.folders++
	dir := filepath.Join(t.dir, fmt.Sprint(t.folders))
	t.mu.Unlock()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Failed reports whether there were errors.
func (t *ProgramTB) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.errors) > 0
}

// Logf logs with the time since the start.
func (t *ProgramTB) Logf(format string, args ...any) {
	if !t.quiet {
		log.Printf("%6.1fs "+format, append([]any{time.Since(t.begun).Seconds()}, args...)...)
	}
}

// Error records an error.
func (t *ProgramTB) Error(args ...any) { t.Errorf("%s", fmt.Sprint(args...)) }

// Errorf records an error.
func (t *ProgramTB) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errors = append(t.errors, fmt.Errorf(format, args...))
}

// Fatal ends the function that Try has called.
func (*ProgramTB) Fatal(args ...any) { panic(fatalError{errors.New(fmt.Sprint(args...))}) }

// Fatalf ends the function that Try has called.
func (*ProgramTB) Fatalf(format string, args ...any) { panic(fatalError{fmt.Errorf(format, args...)}) }

// Skipf is Fatalf: a program needs everything that a test may skip without.
func (t *ProgramTB) Skipf(format string, args ...any) { t.Fatalf(format, args...) }
