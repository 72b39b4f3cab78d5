package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
)

// screen shows a progress bar on standard error if it is a terminal, unless the payments are typed
// there. Answers and messages that appear on the same terminal are printed above the bar.
type screen struct {
	mu         sync.Mutex
	notes      io.Writer
	bar        *progressbar.ProgressBar // nil: none
	size       int64                    // of the input; -1: unknown
	hasAnswers bool                     // standard output is a terminal, too
	start      time.Time
	drawn      time.Time // when the bar was last drawn; zero: never
}

const (
	barDelay    = 500 * time.Millisecond // a shorter run has no bar
	barInterval = 100 * time.Millisecond
)

func newScreen(in io.Reader, out, notes io.Writer) *screen {
	s := &screen{notes: notes, size: -1, start: time.Now()}
	if !isTerminal(notes) || os.Getenv("TERM") == "dumb" || isTerminal(in) {
		return s
	}
	s.hasAnswers = isTerminal(out)
	if file, ok := in.(*os.File); ok {
		if about, err := file.Stat(); err == nil && about.Mode().IsRegular() && about.Size() > 0 {
			s.size = about.Size()
		}
	}
	s.bar = progressbar.NewOptions64(s.size,
		progressbar.OptionSetWriter(notes),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionSetElapsedTime(true),
		progressbar.OptionSetSpinnerChangeInterval(0), // otherwise a goroutine draws between the answers
	)
	s.bar.StartWithoutRender()
	return s
}

// isTerminal reports whether a reader or writer is a terminal.
func isTerminal(file any) bool {
	f, ok := file.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// log returns the arguments of telemetry.NewLogger.
func (s *screen) log() (w io.Writer, level, format string) {
	if s.bar == nil {
		return os.Stderr, "warn", "auto"
	}
	return s, "warn", "text"
}

// Write writes a message above the bar.
func (s *screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	return s.notes.Write(text)
}

// print calls a function that prints answers.
func (s *screen) print(answers func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hasAnswers {
		s.clear()
	}
	return answers()
}

// update draws the bar again.
func (s *screen) update(read int64, counts *summary) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.bar == nil || now.Sub(s.start) < barDelay || !s.hasAnswers && now.Sub(s.drawn) < barInterval {
		return
	}
	if s.size >= 0 { // less than all, until end: the library does not draw a full bar again
		read = min(read, s.size-1)
	}
	s.drawn = now
	s.bar.Describe(s.rate(counts)) // draws
	_ = s.bar.Set64(read)          // an error of the terminal is no reason to stop
	// The terminal shows Ctrl-C as ^C at the cursor: behind the bar it would begin a new line.
	_, _ = io.WriteString(s.notes, "\r")
}

// rate says how many payments were answered, and how fast.
func (s *screen) rate(counts *summary) string {
	rate := float64(counts.answered()) / time.Since(s.start).Seconds()
	return fmt.Sprintf("%.0f/s, %d accepted, %d refused", rate, counts.accepted(), counts.answered()-counts.accepted())
}

// end replaces the bar by a line that sums up.
func (s *screen) end(counts *summary) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drawn.IsZero() {
		return
	}
	s.clear()
	s.drawn = time.Time{}
	note(s.notes, fmt.Sprintf("%d payments in %s: %s", counts.answered(), time.Since(s.start).Round(time.Second/10), s.rate(counts)))
}

// clear removes the bar from the terminal.
func (s *screen) clear() {
	if !s.drawn.IsZero() {
		_ = s.bar.Clear()
	}
}
