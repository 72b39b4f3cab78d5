// Package config defines the settings of the programs: flags that each have an environment
// variable, checked before the program does anything (docs/interface.md, "Settings"). A
// program embeds the groups that it needs:
//
//	var cli struct {
//		Redis  config.Redis  `embed:""`
//		Worker config.Worker `embed:""`
//	}
//	kctx, err := config.Parse("worker", "...", &cli, os.Args[1:], os.Stdout)
//
// Every error is one line that names the variable and contains no secret.
package config

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"terbayar/internal/secret"
	"terbayar/internal/version"
)

// ErrHelp says that help or the version was requested and has been printed: exit code 0.
var ErrHelp = errors.New("config: help was requested")

// Error is a wrong setting or wrong usage: exit code 2. Its text is one line that names the
// variable and can be printed unchanged.
type Error struct{ text string }

func (e *Error) Error() string { return e.text }

// Wrong returns the Error of a setting that is found to be wrong when it is used, for
// example a policy file that cannot be parsed. The cause must not contain a secret.
func Wrong(variable string, cause error) error { return wrong(variable, "%v", cause) }

// RefusedLogin returns the Error of a Redis that refuses the user or the password.
func RefusedLogin(cause error) error {
	return wrong("REDIS_URL", "redis refuses the login given here or in REDIS_PASSWORD: %v", cause)
}

// Invalid returns the Error of a setting that the cause itself names.
func Invalid(cause error) error { return &Error{strings.ReplaceAll(cause.Error(), "\n", " ")} }

func wrong(variable, format string, args ...any) error {
	return &Error{variable + ": " + strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")}
}

// Parse reads the arguments and the environment into cli, a pointer to a struct with kong's
// tags, and validates every group embedded in it. Help and the version (--version) are
// written to out. The error is ErrHelp or an *Error; any other error is a mistake in the
// tags of cli.
func Parse(name, description string, cli any, args []string, out io.Writer) (*kong.Context, error) {
	printed := false // help or the version
	parser, err := kong.New(cli,
		kong.Name(name),
		kong.Description(description),
		kong.Writers(out, out),
		kong.Exit(func(int) { printed = true }), // kong calls it only after --help and --version
		kong.Embed(&struct {
			Version kong.VersionFlag `help:"Print the version."`
		}{}),
		kong.Vars{"version": name + " " + version.String()},
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(duration)),
	)
	if err != nil {
		return nil, fmt.Errorf("config: tags of %s: %w", name, err)
	}
	flags := settings(parser)
	cleanErr := cleanEnvironment(flags)
	kctx, err := parser.Parse(args)
	if cleanErr == nil && !printed {
		cleanErr = cleanValues(flags) // reported before a parse error, which it may have caused
	}
	switch {
	case printed:
		return nil, ErrHelp
	case cleanErr != nil:
		return nil, cleanErr
	case err != nil:
		return nil, translate(parser, err)
	default:
		return kctx, nil
	}
}

func duration(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration (want e.g. 15s, 2m)", text)
	}
	target.SetInt(int64(d))
	return nil
}

var flagError = regexp.MustCompile(`(?s)^--([a-z0-9-]+): (.*)$`)

// translate turns kong's error into an *Error. kong names the flag, not the variable, and
// quotes the variable's whole value at the end.
func translate(parser *kong.Kong, err error) error {
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	m := flagError.FindStringSubmatch(err.Error())
	if m == nil {
		return &Error{strings.ReplaceAll(err.Error(), "\n", " ")}
	}
	flag, text := m[1], m[2]
	variable := "--" + flag
	_ = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok && f.Name == flag && len(f.Envs) > 0 {
			variable = fmt.Sprintf("%s (--%s)", f.Envs[0], flag)
			text, _, _ = strings.Cut(text, " (from envar "+f.Envs[0]+"=")
			if f.Target.Type() == reflect.TypeFor[secret.Text]() { // kong quotes the argument after the flag
				text = "needs a value; write one that begins with - as --" + flag + "=VALUE"
			}
		}
		return next(nil)
	})
	return wrong(variable, "%s", text)
}
