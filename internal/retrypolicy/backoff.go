package retrypolicy

import (
	"fmt"
	"time"

	"github.com/sethvargo/go-retry"
)

// BackoffType is how the delays of a Backoff grow: backoff.type in the policy file.
type BackoffType string

// The backoff types.
const (
	Constant    BackoffType = "constant"    // base, base, base, ...
	Exponential BackoffType = "exponential" // base times 1, 2, 4, 8, ...
	Fibonacci   BackoffType = "fibonacci"   // base times 1, 2, 3, 5, ...
)

var backoffTypes = []BackoffType{Constant, Exponential, Fibonacci}

// Backoff is the delay between attempts. The zero Backoff has no delay.
type Backoff struct {
	Type   BackoffType
	Base   time.Duration // the first delay
	Cap    time.Duration // the longest delay, before jitter
	Jitter uint64        // each delay varies at random by +/- this many percent, 0 to 100
}

// Delay returns the delay after the nth attempt, n counting from 1.
func (b Backoff) Delay(n int) time.Duration {
	var delays retry.Backoff
	switch b.Type {
	case Constant:
		delays = retry.NewConstant(b.Base)
	case Exponential:
		delays = retry.NewExponential(b.Base)
	case Fibonacci:
		delays = retry.NewFibonacci(b.Base)
	default:
		return 0
	}
	delays = retry.WithJitterPercent(b.Jitter, retry.WithCappedDuration(b.Cap, delays))
	var d time.Duration
	for range n {
		d, _ = delays.Next()
	}
	return d
}

// String returns the backoff as "worker policies" prints it, e.g. "exponential 5s..10m
// +/-10%".
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
