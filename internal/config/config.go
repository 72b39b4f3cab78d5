// Package config is the settings of the programs: flags, each with an
// environment variable, checked before anything is started (interface.md,
// "Settings"). A program embeds the groups it needs:
//
//	var cli struct {
//		Redis  config.Redis  `embed:""`
//		Worker config.Worker `embed:""`
//	}
//	kctx, err := config.Parse("worker", "...", &cli, os.Args[1:], os.Stdout)
//
// Every error is one line that names the variable and no secret.
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

// ErrHelp says that help, or the version, was asked for and has been printed: exit
// code 0.
var ErrHelp = errors.New("config: help was asked for")

// Error is a wrong setting or wrong usage: exit code 2. Its text is one line
// that names the variable, fit to be printed as it is.
type Error struct{ text string }

func (e *Error) Error() string { return e.text }

// Wrong makes the Error of a setting that turned out to be wrong when it was
// used, e.g. a policy file that cannot be parsed. The cause must hold no secret.
func Wrong(variable string, cause error) error { return wrong(variable, "%v", cause) }

// RefusedLogin makes the Error of a Redis that refuses the user or the password.
func RefusedLogin(cause error) error {
	return wrong("REDIS_URL", "redis refuses the login that stands there, or in REDIS_PASSWORD: %v", cause)
}

// Invalid makes the Error of a setting that the cause itself names.
func Invalid(cause error) error { return &Error{strings.ReplaceAll(cause.Error(), "\n", " ")} }

func wrong(variable, format string, args ...any) error {
	return &Error{variable + ": " + strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")}
}

// Parse reads the arguments and the environment into cli, a pointer to a struct
// with kong's tags, and checks every group embedded in it. Help, and the version
// that every program tells with --version, go to out. The error is ErrHelp, an
// *Error, or, when cli itself is no valid grammar, another.
func Parse(name, description string, cli any, args []string, out io.Writer) (*kong.Context, error) {
	helped := false
	parser, err := kong.New(cli,
		kong.Name(name),
		kong.Description(description),
		kong.Writers(out, out),
		kong.Exit(func(int) { helped = true }), // kong ends the program only after --help and --version
		kong.Embed(&struct {
			Version kong.VersionFlag `help:"Print the version."`
		}{}),
		kong.Vars{"version": name + " " + version.String()},
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(duration)),
	)
	if err != nil {
		return nil, fmt.Errorf("config: grammar of %s: %w", name, err)
	}
	flags := settings(parser)
	unclean := cleanEnvironment(flags)
	kctx, err := parser.Parse(args)
	if unclean == nil && !helped {
		unclean = cleanValues(flags) // before what else is wrong with them: it may be why
	}
	switch {
	case helped:
		return nil, ErrHelp
	case unclean != nil:
		return nil, unclean
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

// translate turns an error of kong's into an *Error: kong names the flag, and
// repeats the variable's whole value at the end.
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
			if f.Target.Type() == reflect.TypeFor[secret.Text]() { // kong repeats what stands behind the flag
				text = "wants a value; one that begins with - is written --" + flag + "=VALUE"
			}
		}
		return next(nil)
	})
	return wrong(variable, "%s", text)
}
