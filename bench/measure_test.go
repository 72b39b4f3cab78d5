package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"terbayar/internal/testenv"
	"terbayar/internal/testenv/programs"
)

// TestMain runs the children, too: this test is their executable.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && children[os.Args[1]] != nil {
		main()
		return
	}
	programs.Main(m)
}

// small are sizes for which every measure takes a moment only.
var small = options{payments: 40, lines: 60, backlog: 80, pickUps: 2, idle: 500 * time.Millisecond, poll: time.Second, rounds: 1}

// TestMeasures runs each measure once on both sides. Its figures are not compared, but a
// payment that is lost anywhere makes it wait until its timeout.
func TestMeasures(t *testing.T) {
	for name, m := range map[string]struct {
		figures []figure
		of      func(testenv.TB, side, options) []float64
	}{
		"everysec": {costFigures("", ""), everysec},
		"always":   {rateFigures("", ""), always},
		"distance": {rateFigures("", ""), distance},
		"latency":  {latencyFigures(), latency},
		"enqueue":  {enqueueFigures(small), enqueue},
		"many":     {enqueueManyFigures(small), enqueueMany},
		"pickup":   {pickUpFigures(), pickUp},
		"bytes":    {bytesFigures(), redisBytes},
		"backlog":  {backlogFigures(small), backlog},
	} {
		for _, s := range []side{terbayar{}, bareAsynq{}} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				values := m.of(t, s, small)
				if len(values) != len(m.figures) {
					t.Fatalf("%d values for %d figures", len(values), len(m.figures))
				}
				if !(values[0] > 0) || math.IsInf(values[0], 0) {
					t.Errorf("%s: %v", m.figures[0].name, values[0])
				}
			})
		}
	}
}

// TestCompare: the table has the medians of the rounds, and the median of the rounds' ratios,
// which is not the ratio of the medians.
func TestCompare(t *testing.T) {
	round := 0
	rows, err := compare(3, []figure{{"speed", "%.0f", "2", true}, {"rest", "%.1f", "", false}}, func(_ testenv.TB, s side, _ options) []float64 {
		if s == (terbayar{}) {
			round++
			return []float64{[]float64{0, 100, 900, 200}[round], 1}
		}
		return []float64{[]float64{0, 100, 100, 50}[round], none}
	})(t.Context(), options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []table.Row{{"speed", "200", "100", "4.00", "2"}, {"rest", "1.0", "", "", ""}} {
		for j := range want {
			if rows[i][j] != want[j] {
				t.Errorf("row %d: %v, want %v", i, rows[i], want)
			}
		}
	}
}

func TestChoose(t *testing.T) {
	if all, err := choose(measures(small), ""); err != nil || len(all) != len(names()) {
		t.Error(all, err)
	}
	if some, err := choose(measures(small), "polls,always"); err != nil || len(some) != 2 || some[0].name != "polls" || some[1].name != "always" {
		t.Error(some, err)
	}
	if _, err := choose(measures(small), "always,x"); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Error(err)
	}
}

// TestForward: the chunks are delayed, keep their order, and do not wait for each other.
func TestForward(t *testing.T) {
	const text, delay = "abcdefghijklmnopqrstuvwxyz", 50 * time.Millisecond
	var to bytes.Buffer
	begun := time.Now()
	err := forward(&to, iotest.OneByteReader(strings.NewReader(text)), delay)
	if took := time.Since(begun); took < delay || took > delay*time.Duration(len(text))/2 {
		t.Errorf("it took %s", took)
	}
	if to.String() != text || !errors.Is(err, io.EOF) {
		t.Errorf("%q was forwarded, error %v", &to, err)
	}
}

// TestInterrupt: nothing that a measure has started outlives it when it is interrupted.
func TestInterrupt(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	var started []*process
	err := with(ctx, func(t testenv.TB) {
		e := newEnv(t, 0)
		started = append(started, e.gateway.process, bareAsynq{}.work(e, 1))
		time.AfterFunc(50*time.Millisecond, interrupt)
		e.gateway.await(1)
	})
	if err == nil {
		t.Error("no error")
	}
	for _, p := range started {
		if !p.hasEnded() {
			t.Errorf("%s is still running", p.cmd)
		}
	}
}
