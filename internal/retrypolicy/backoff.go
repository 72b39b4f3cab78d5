package retrypolicy

import (
	"fmt"
	"time"

	"github.com/sethvargo/go-retry"
)

// Progression names how the times to wait grow.
type Progression string

// The progressions, by their names in the policy file (backoff.type).
const (
	Constant    Progression = "constant"    // base, base, base, ...
	Exponential Progression = "exponential" // base times 1, 2, 4, 8, ...
	Fibonacci   Progression = "fibonacci"   // base times 1, 2, 3, 5, ...
)

var progressions = []Progression{Constant, Exponential, Fibonacci}

// Backoff is how long to wait before doing something again. The zero Backoff
// does not wait at all.
type Backoff struct {
	Type   Progression
	Base   time.Duration // the first time to wait
	Cap    time.Duration // the longest time to wait, before jitter
	Jitter uint64        // each time is spread by +/- this many percent, 0 to 100
}

// Delay is the time to wait after the nth attempt, n counting from 1.
func (b Backoff) Delay(n int) time.Duration {
	var times retry.Backoff
	switch b.Type {
	case Constant:
		times = retry.NewConstant(b.Base)
	case Exponential:
		times = retry.NewExponential(b.Base)
	case Fibonacci:
		times = retry.NewFibonacci(b.Base)
	default:
		return 0
	}
	times = retry.WithJitterPercent(b.Jitter, retry.WithCappedDuration(b.Cap, times))
	var d time.Duration
	for range n {
		d, _ = times.Next()
	}
	return d
}

// String is the backoff as "worker policies" shows it, e.g. "exponential
// 5s..10m +/-10%".
func (b Backoff) String() string {
	if b.Type == "" {
		return "at once"
	}
	s := fmt.Sprintf("%s %s", b.Type, short(b.Base))
	if b.Type != Constant {
		s += ".." + short(b.Cap)
	}
	if b.Jitter > 0 {
		s += fmt.Sprintf(" +/-%d%%", b.Jitter)
	}
	return s
}
