package webhooks

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Schedule is the times between the tries of one delivery. After the last of them there is one
// more try, and then the delivery is given up.
type Schedule []time.Duration

// The limits of a schedule.
const (
	maxTries = 50
	maxPause = 7 * 24 * time.Hour
)

// UnmarshalText implements encoding.TextUnmarshaler: durations separated by commas.
func (s *Schedule) UnmarshalText(text []byte) error {
	*s = nil
	for word := range strings.SplitSeq(string(text), ",") {
		pause, err := time.ParseDuration(strings.TrimSpace(word))
		if err != nil || pause < time.Millisecond || pause > maxPause {
			return fmt.Errorf("%q is not a duration from 1ms to 168h", word)
		}
		*s = append(*s, pause)
	}
	if len(*s) >= maxTries {
		return errors.New("has too many tries (want at most 50)")
	}
	return nil
}

// Tries returns the number of tries.
func (s Schedule) Tries() int { return len(s) + 1 }

// Total returns the time from the first to the last try, without jitter.
func (s Schedule) Total() (total time.Duration) {
	for _, pause := range s {
		total += pause
	}
	return total
}

// next returns the time until the next try, after a number of tries that have failed; false if
// there is no next try. The pause is up to a tenth longer: receivers that were down together
// are not tried together. random is from 0 to 1.
func (s Schedule) next(failed int, asked time.Duration, random float64) (time.Duration, bool) {
	if failed > len(s) {
		return 0, false
	}
	pause := s[failed-1]
	return max(pause+time.Duration(random*float64(pause)/10), asked), true
}
