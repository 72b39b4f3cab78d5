package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain is also the process that archives: this test is its executable.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == scanCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

// small are the sizes of a run that takes some seconds.
func small(payments, kills int) options {
	o := newOptions()
	o.payments, o.kills, o.partitions = payments, kills, 2
	o.tried, o.new, o.sample, o.keys, o.idle = payments, 50, 200, 100, 100*time.Millisecond
	return o
}

func (r *retentionRun) result() string {
	var out strings.Builder
	r.write(&out, true)
	return out.String()
}

// TestRun is a whole run, with kills.
func TestRun(t *testing.T) {
	t.Parallel()
	r := newRun(t, small(2000, 1))
	r.all()
	if out := r.result(); len(r.found) > 0 || !strings.Contains(out, "\nOK: no payment is missing") || strings.Contains(out, "WRONG") {
		t.Error(out)
	}
	for _, want := range []string{"2000 / 2000 / 50", "submitted again after restoring records", "found in the archive", "used_memory of Redis a tombstone"} {
		if !strings.Contains(r.table.Render(), want) {
			t.Errorf("no %q in\n%s", want, r.table.Render())
		}
	}
}

// TestFindsErrors damages a ledger and its archive in ways that a run must report.
func TestFindsErrors(t *testing.T) {
	t.Parallel()
	const n = 300
	r := newRun(t, small(n, 0))
	r.make()
	r.archive()
	r.verify()
	if len(r.found) > 0 {
		t.Fatal(r.result())
	}
	expect := func(words ...string) {
		t.Helper()
		out := r.result()
		for _, word := range words {
			if !strings.Contains(out, word) {
				t.Errorf("%q is not reported:\n%s", word, out)
			}
		}
		if strings.Contains(out, "\nOK") {
			t.Error(out)
		}
		r.found = nil
	}

	lost := r.o.key(7)
	for _, bucket := range r.redis.keys("*:tombstones:*", n) {
		r.redis.client.HDel(t.Context(), bucket, lost.TransactionID)
	}
	r.submitAgain("archiving")
	expect("WRONG: after archiving, same content: not duplicate (paid): 1 payments, for example "+lost.String()+": created (queued)",
		"other content: not conflict (paid): 1 payments, for example "+lost.String())

	for i := range r.sampled {
		r.sampled[i] = []byte("{}")
	}
	r.verify()
	expect("WRONG: in the archive: {", `made: {}`)
	r.sampled = nil

	manifests, err := filepath.Glob(filepath.Join(r.dir, "*", "*.manifest"))
	if err != nil || len(manifests) != 1 {
		t.Fatal(manifests, err)
	}
	complete, err := os.ReadFile(manifests[0])
	if err != nil {
		t.Fatal(err)
	}
	withoutLast := complete[:bytes.LastIndexByte(complete[:len(complete)-1], '\n')+1] // a frame is not confirmed
	if err := os.WriteFile(manifests[0], withoutLast, 0o600); err != nil {            //nolint:gosec // G703: the test's own directory
		t.Fatal(err)
	}
	r.verify()
	expect("WRONG: not in the archive: ")
	r.restoreTombstones()
	expect("WRONG: restored as tombstones: the ledger counts", "after restoring tombstones, same content: not duplicate (paid)")
}
