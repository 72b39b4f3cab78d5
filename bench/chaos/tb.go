package main

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

// tb is what the test environment uses in place of testing.TB.
type tb struct {
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

// fatalError is the panic by which Fatal ends the function that try has called.
type fatalError struct{ error }

func newTB(ctx context.Context, quiet bool) (*tb, error) {
	dir, err := os.MkdirTemp("", "terbayar-chaos-")
	return &tb{ctx: ctx, dir: dir, quiet: quiet, begun: time.Now()}, err
}

// try calls a function and returns the error of its Fatal.
func (*tb) try(f func()) (err error) {
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

// close calls the clean-up functions, the last one first, removes the folder if it is not
// needed any more, and returns the errors of the run.
func (t *tb) close(remove bool) error {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		if err := t.try(t.cleanups[i]); err != nil {
			t.Error(err)
		}
	}
	if remove && !t.Failed() {
		_ = os.RemoveAll(t.dir) // a temporary directory
	} else {
		log.Printf("the logs and the files of Redis are in %s", t.dir)
	}
	return errors.Join(t.errors...)
}

func (*tb) Helper()                    {}
func (t *tb) Context() context.Context { return t.ctx }

func (t *tb) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *tb) TempDir() string {
	t.mu.Lock()
	t.folders++
	dir := filepath.Join(t.dir, fmt.Sprint(t.folders))
	t.mu.Unlock()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (t *tb) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.errors) > 0
}

// Logf logs what is being done, unless --quiet.
func (t *tb) Logf(format string, args ...any) {
	if !t.quiet {
		log.Printf("%6.1fs "+format, append([]any{time.Since(t.begun).Seconds()}, args...)...)
	}
}

func (t *tb) Error(args ...any) { t.Errorf("%s", fmt.Sprint(args...)) }

func (t *tb) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errors = append(t.errors, fmt.Errorf(format, args...))
}

func (*tb) Fatal(args ...any)                  { panic(fatalError{errors.New(fmt.Sprint(args...))}) }
func (*tb) Fatalf(format string, args ...any)  { panic(fatalError{fmt.Errorf(format, args...)}) }
func (t *tb) Skipf(format string, args ...any) { t.Fatalf(format, args...) }
