package failover_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv/programs"
)

// version2 is the last commit whose records are hashes (internal/ledger/version2.go).
const version2 = "3a97e56466b6fcb71540789e14619c8e42ad3ad0"

// buildVersion builds worker and enqueue of a commit.
func buildVersion(t *testing.T, commit string) (worker, enqueue string) {
	t.Helper()
	root, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil || exec.Command("git", "cat-file", "-e", commit).Run() != nil {
		t.Skipf("this checkout does not have the commit %.7s, whose programs the test starts", commit)
	}
	source, built := t.TempDir(), t.TempDir()
	for _, command := range []string{
		"git -C '" + strings.TrimSpace(string(root)) + "' archive " + commit + " | tar -x -C " + source,
		"cd " + source + " && nice go build -o " + built + " ./cmd/worker ./cmd/enqueue",
	} {
		if out, err := exec.Command("bash", "-o", "pipefail", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	return filepath.Join(built, "worker"), filepath.Join(built, "enqueue")
}

// TestUpgrade: workers and enqueue of version 2 and of this version run side by side on one
// ledger, with payments in every state, and workers of both are killed. Each order is submitted
// by both versions of enqueue.
func TestUpgrade(t *testing.T) {
	slow(t)
	oldWorker, oldEnqueue := buildVersion(t, version2)
	e := newEnv(t, redistest.Server(t).URL(), func(cfg *gatewaysim.Config) {
		// The outcome of every fourth AM payment is unknown at first.
		cfg.Faults = append([]gatewaysim.FaultRule{{Fault: gatewaysim.FaultLostAfter, Operation: gatewaysim.AMCreate, Probability: 0.25}}, cfg.Faults...)
	})
	all := invoices(240)
	before := e.NewOrderSystem()
	before.Program = oldEnqueue
	old := []*programs.Process{e.WorkerAt(oldWorker), e.WorkerAt(oldWorker)}
	before.Submit(t.Context(), all[:40]) // more than the old workers have sent when the new ones start
	e.awaitLoad(10)

	after := e.NewOrderSystem()
	var submitting sync.WaitGroup
	submitting.Go(func() { before.SubmitSlowly(t.Context(), all[40:120], 300*time.Millisecond) })
	submitting.Go(func() { after.SubmitSlowly(t.Context(), all[120:], 300*time.Millisecond) })
	e.Worker()
	killed := e.Worker()
	e.awaitSends()
	old[0].Kill() // with requests in flight
	killed.Kill()
	e.Worker()
	e.awaitSends()
	old[1].Stop()
	submitting.Wait()
	e.requireClean(before, after)

	// What either version has created is a duplicate for this one. Version 2 cannot read the
	// records of this version, and must not answer anything else than failed.
	for _, row := range [][2]string{{"enqueue", "duplicate"}, {oldEnqueue, "failed"}} { // the first one rewrites the rest
		program, want := row[0], row[1]
		r := e.Run(program, []string{"create"}, programs.Input(all))
		if got := strings.Count(r.Stdout, `"result":"`+want+`"`); got != len(all) {
			t.Errorf("%s: %d of %d are %s: %s", program, got, len(all), want, r.Stdout)
		}
	}
	for _, key := range append(before.Acknowledged(), after.Acknowledged()...) {
		r := e.read(key)
		if kind := e.Redis.Type(t.Context(), "{terbayar:events}:payment:"+key.String()).Val(); r.Status != payment.Paid && r.Status != payment.NeedsReview || kind != "string" {
			t.Errorf("%s: %s, a %s", key, r.Status, kind)
		}
	}
}
