package main

import (
	"fmt"
	"os"

	"terbayar/internal/intake"
)

// rejects is the file of --rejects: the input that was not accepted, unchanged. Without one, all
// methods do nothing.
type rejects struct {
	file *os.File
	size int64
}

// openRejects creates the file. It is readable by its owner only: it has customers' data. An
// existing file that has any content is never changed.
func openRejects(name string) (*rejects, error) {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600) //nolint:gosec // the user's own choice
	if err != nil {
		return nil, err
	}
	if about, err := file.Stat(); err == nil && about.Mode().IsRegular() && about.Size() > 0 {
		_ = file.Close()
		return nil, fmt.Errorf("%s already exists and is not empty: choose a new name", name)
	}
	return &rejects{file: file}, nil
}

// write writes the lines of a batch that were not accepted, and what has no answer because it is
// no payment.
func (r *rejects) write(b batch, answers []intake.Answer) error {
	if r == nil {
		return nil
	}
	var text []byte
	for _, line := range b.raw {
		if !line.skipped {
			accepted := isAccepted(answers[0].Result)
			answers = answers[1:]
			if accepted {
				continue
			}
		}
		text = append(text, line.text...)
	}
	if len(text) == 0 {
		return nil
	}
	n, err := r.file.Write(text)
	r.size += int64(n)
	return err
}

// written reports whether anything was written.
func (r *rejects) written() bool { return r != nil && r.size > 0 }

// sync makes what was written durable. Pipes and terminals cannot be synced.
func (r *rejects) sync() error {
	if !r.written() {
		return nil
	}
	if about, err := r.file.Stat(); err != nil || !about.Mode().IsRegular() {
		return err
	}
	return r.file.Sync()
}

func (r *rejects) close() {
	if r != nil {
		_ = r.file.Close() // sync reported the errors
	}
}
