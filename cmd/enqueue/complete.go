package main

import (
	"io"
	"os"

	"github.com/alecthomas/kong"
	"github.com/posener/complete"
	"github.com/willabides/kongplete"
)

// completionsCmd prints what makes the user's shell complete command lines.
type completionsCmd struct{}

// BeforeApply is called by kong.
func (c *completionsCmd) BeforeApply(ctx *kong.Context) error {
	return (&kongplete.InstallCompletions{}).BeforeApply(ctx)
}

// completions answers a shell that asks for the completions of a command line, which is then in
// the variable COMP_LINE. It reports whether there is one.
func completions(out io.Writer) (bool, error) {
	if os.Getenv("COMP_LINE") == "" {
		return false, nil
	}
	parser, err := kong.New(&cli{}, kong.Name("enqueue"), kong.Writers(out, io.Discard))
	if err != nil {
		return false, err
	}
	done := false
	kongplete.Complete(parser,
		kongplete.WithPredictor("file", complete.PredictFiles("*")),
		kongplete.WithExitFunc(func(int) { done = true }),
		kongplete.WithErrorHandler(func(wrong error) { err = wrong }),
	)
	return done, err
}
