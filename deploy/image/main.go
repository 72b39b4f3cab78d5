// Command image builds the image of worker and enqueue with ko, without a
// container engine and without a base image from anywhere: an OCI layout. The
// same commit gives the same digest.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

func main() {
	source := flag.String("source", "../..", "the `checkout`")
	out := flag.String("out", "../../bin/image", "the `directory` to write, an OCI layout; what is there is replaced")
	arch := flag.String("arch", runtime.GOARCH, "the `architecture` that the image is for")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	digest, err := build(ctx, *source, *out, *arch)
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

// build writes the image of a checkout to an OCI layout. A registry of its own, on
// a loopback port, stands between the steps, since ko takes its base from there.
func build(ctx context.Context, source, out, arch string) (v1.Hash, error) {
	made, err := commitTime(ctx, source)
	if err != nil {
		return v1.Hash{}, err
	}
	labels, err := labels(ctx, source)
	if err != nil {
		return v1.Hash{}, err
	}
	base, err := base(filepath.Join(source, "deploy/image/etc"), arch, made)
	if err != nil {
		return v1.Hash{}, err
	}
	shelf := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer shelf.Close()
	repository := strings.TrimPrefix(shelf.URL, "http://") + "/terbayar"
	ref, err := name.ParseReference(repository + ":base")
	if err != nil {
		return v1.Hash{}, err
	}
	if err := remote.Write(ref, base, remote.WithContext(ctx)); err != nil {
		return v1.Hash{}, err
	}

	tools, err := os.MkdirTemp("", "terbayar-image-")
	if err != nil {
		return v1.Hash{}, err
	}
	defer os.RemoveAll(tools)
	ko := filepath.Join(tools, "ko")
	if _, err := output(exec.CommandContext(ctx, "go", "build", "-o", ko, "github.com/google/ko")); err != nil {
		return v1.Hash{}, err
	}
	built := ref.Name()
	for _, program := range []string{"enqueue", "worker"} {
		cmd := exec.CommandContext(ctx, ko, "build", "./cmd/"+program, "--bare", "--tags="+program, "--platform=linux/"+arch, "--sbom=none")
		for _, label := range labels {
			cmd.Args = append(cmd.Args, "--image-label="+label)
		}
		cmd.Dir = source
		cmd.Env = append(os.Environ(), "KO_DOCKER_REPO="+repository, "KO_DEFAULTBASEIMAGE="+built,
			fmt.Sprintf("SOURCE_DATE_EPOCH=%d", made.Unix()), fmt.Sprintf("KO_DATA_DATE_EPOCH=%d", made.Unix()))
		if built, err = output(cmd); err != nil {
			return v1.Hash{}, err
		}
	}
	return fetch(ctx, built, out)
}

// fetch takes the image from the registry to an OCI layout, less what ko wrote down
// of the steps: the names of the bases, which were that registry's, and environment
// variables once a step.
func fetch(ctx context.Context, from, out string) (v1.Hash, error) {
	ref, err := name.ParseReference(from)
	if err != nil {
		return v1.Hash{}, err
	}
	built, err := remote.Image(ref, remote.WithContext(ctx))
	if err != nil {
		return v1.Hash{}, err
	}
	layers, err := built.Layers()
	if err != nil {
		return v1.Hash{}, err
	}
	config, err := built.ConfigFile()
	if err != nil {
		return v1.Hash{}, err
	}
	config = config.DeepCopy()
	config.Config.Env = []string{"PATH=/ko-app"}
	image, err := mutate.AppendLayers(scratch, layers...)
	if err != nil {
		return v1.Hash{}, err
	}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return v1.Hash{}, err
	}
	if err := os.RemoveAll(out); err != nil {
		return v1.Hash{}, err
	}
	written, err := layout.Write(out, empty.Index)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := written.AppendImage(image); err != nil {
		return v1.Hash{}, err
	}
	return image.Digest()
}

// scratch is the empty image in the OCI's format; that of go-containerregistry is
// in Docker's.
var scratch = mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)

// base is the image under the programs: the user's name and the certificates of
// those whom the world trusts. No shell, no package manager, no C library.
func base(etc, arch string, made time.Time) (v1.Image, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, dir := range []string{"etc/", "etc/ssl/", "etc/ssl/certs/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: made}); err != nil {
			return nil, err
		}
	}
	group, groupErr := os.ReadFile(filepath.Join(etc, "group"))
	passwd, passwdErr := os.ReadFile(filepath.Join(etc, "passwd"))
	if err := errors.Join(groupErr, passwdErr); err != nil {
		return nil, err
	}
	for _, file := range []struct {
		name    string
		content []byte
	}{{"etc/group", group}, {"etc/passwd", passwd}, {"etc/ssl/certs/ca-certificates.crt", roots()}} {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file.name, Mode: 0o644, Size: int64(len(file.content)), ModTime: made})
		if err == nil {
			_, err = w.Write(file.content)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(packed.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image, err := mutate.Append(scratch, mutate.Addendum{
		Layer: layer, MediaType: types.OCILayer,
		History: v1.History{Created: v1.Time{Time: made}, CreatedBy: "deploy/image"},
	})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: made}
	config.Config.User = "65532:65532"
	config.Config.ExposedPorts = map[string]struct{}{"8080/tcp": {}}
	return mutate.ConfigFile(image, config)
}

// roots is Mozilla's list of certificate authorities as PEM, from the module that
// go.mod names: not from the machine that builds, so that it is always the same.
func roots() []byte {
	var all []byte
	for root := range bundle.Roots() {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})...)
	}
	return all
}

// commitTime is when the image is said to have been made: building it again must
// not change it.
func commitTime(ctx context.Context, source string) (time.Time, error) {
	text, err := output(exec.CommandContext(ctx, "git", "-C", source, "log", "-1", "--format=%cI"))
	if err != nil {
		return time.Time{}, err
	}
	made, err := time.Parse(time.RFC3339, text)
	return made.UTC(), err
}

var releaseLine = regexp.MustCompile(`(?m)^const Release = "(.+)"$`)

// labels say what the image is, in the words of the OCI's image specification.
func labels(ctx context.Context, source string) ([]string, error) {
	commit, err := output(exec.CommandContext(ctx, "git", "-C", source, "rev-parse", "--short", "HEAD"))
	if err != nil {
		return nil, err
	}
	changed, err := output(exec.CommandContext(ctx, "git", "-C", source, "status", "--porcelain"))
	if err != nil {
		return nil, err
	}
	if changed != "" {
		commit += "-dirty" // as .ko.yaml has it
	}
	code, err := os.ReadFile(filepath.Join(source, "internal/version/version.go"))
	if err != nil {
		return nil, err
	}
	release := releaseLine.FindSubmatch(code)
	if release == nil {
		return nil, errors.New("internal/version names no Release")
	}
	const prefix = "org.opencontainers.image."
	return []string{
		prefix + "title=terbayar",
		prefix + "description=Workers that submit payments to AM Digital Payment and Paydia SNAP",
		prefix + "version=" + string(release[1]),
		prefix + "revision=" + commit,
	}, nil
}

// output is what a command prints, without the end of its line. What it says
// beside that is only shown when it fails.
func output(cmd *exec.Cmd) (string, error) {
	var said bytes.Buffer
	cmd.Stderr = &said
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, said.Bytes())
	}
	return strings.TrimSpace(string(text)), nil
}
