package archive_test

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"terbayar/internal/archive"
)

// TestFullDisk runs itself again in a mount namespace of its own, where it mounts a small tmpfs.
func TestFullDisk(t *testing.T) {
	const inside = "ARCHIVE_TEST_FULL_DISK"
	if dir := os.Getenv(inside); dir != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
			t.Skipf("cannot mount a tmpfs: %v", err)
		}
		fillDisk(t, dir)
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v") //nolint:gosec // the test itself
	cmd.Env = append(os.Environ(), inside+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	switch {
	case len(out) == 0 && errors.Is(err, os.ErrPermission):
		t.Skipf("cannot create a mount namespace: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skip(string(out))
	}
	t.Logf("%s", out)
}

func fillDisk(t *testing.T, dir string) {
	w := newWriter(t, dir, "w")
	filler, err := os.Create(filepath.Join(dir, "filler")) //nolint:gosec // a file of the test
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	var want []string
	failures, unconfirmed := 0, 0
	// A frame has 3 pages, and each round leaves one page more. The first ten rounds begin
	// without a file, the others with one that has a confirmed frame.
	for _, confirmed := range []bool{false, true} {
		for pages := range 10 {
			if err := filler.Truncate(0); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if confirmed {
				want = append(want, `{"small":true}`)
				mustAppend(t, w, want[len(want)-1])
			}
			size := fill(t, filler)
			if err := filler.Truncate(size - int64(pages*os.Getpagesize())); err != nil {
				t.Fatal(err)
			}
			random := make([]byte, 5*os.Getpagesize()/2)
			_, _ = rand.Read(random)
			line := hex.EncodeToString(random)
			for range 3 { // retries
				files := len(dataFiles(t, dir, today))
				if _, err := w.Append(bytesOf(line)); err == nil {
					want = append(want, line)
					break
				} else if !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				failures++
				if n := len(dataFiles(t, dir, today)); n > files {
					t.Fatalf("%d files, %d before the failure", n, files)
				}
			}
			got, errs := collect(archive.Read(dir, today))
			slices.Sort(got)
			if len(errs) > 0 || !slices.Equal(got, slices.Sorted(slices.Values(want))) {
				t.Fatalf("%d pages: %d lines, want %d, errors %v", pages, len(got), len(want), errs)
			}
		}
	}
	for _, r := range reports(t, dir) {
		if r.Frames == 0 || len(r.Problems) > 0 {
			t.Errorf("%+v", r)
		}
		if r.Unconfirmed > 0 {
			unconfirmed++
		}
	}
	t.Logf("%d failures, %d files with unconfirmed bytes", failures, unconfirmed)
	if failures < 10 || unconfirmed < 3 || len(want) < 15 {
		t.Errorf("%d failures, %d files with unconfirmed bytes, %d lines: the test does not test", failures, unconfirmed, len(want))
	}
}

// fill writes to the file until the disk is full, and returns the size of the file.
func fill(t *testing.T, file *os.File) int64 {
	t.Helper()
	size, page := int64(0), make([]byte, os.Getpagesize())
	for {
		n, err := file.WriteAt(page, size)
		size += int64(n)
		if errors.Is(err, syscall.ENOSPC) {
			return size
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
