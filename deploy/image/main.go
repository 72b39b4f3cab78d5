// Command image builds the image of worker and enqueue with ko and writes it as an OCI layout. It
// needs neither a container engine nor a base image from a registry. The same commit gives the
// same digest.
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
	out := flag.String("out", "../../bin/image", "the `directory` of the OCI layout; it is replaced if it exists")
	arch := flag.String("arch", runtime.GOARCH, "the `architecture` of the image")
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

// build writes the image of a checkout to an OCI layout. It starts a registry on a loopback port,
// because ko can read its base image only from a registry.
func build(ctx context.Context, source, out, arch string) (v1.Hash, error) {
	created, err := commitTime(ctx, source)
	if err != nil {
		return v1.Hash{}, err
	}
	labels, err := labels(ctx, source)
	if err != nil {
		return v1.Hash{}, err
	}
	base, err := base(filepath.Join(source, "deploy/image/etc"), arch, created)
	if err != nil {
		return v1.Hash{}, err
	}
	local := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer local.Close()
	repository := strings.TrimPrefix(local.URL, "http://") + "/terbayar"
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
			fmt.Sprintf("SOURCE_DATE_EPOCH=%d", created.Unix()), fmt.Sprintf("KO_DATA_DATE_EPOCH=%d", created.Unix()))
		if built, err = output(cmd); err != nil {
			return v1.Hash{}, err
		}
	}
	return fetch(ctx, built, out)
}

// Names from the OCI image specification.
const (
	labelPrefix  = "org.opencontainers.image."
	versionLabel = labelPrefix + "version"
	refName      = labelPrefix + "ref.name"
)

// fetch copies the image from the registry to an OCI layout. It drops what ko added in each step:
// base image annotations, which name the local registry, and repeated environment variables.
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
	// "ctr images import" ignores an image without a name.
	named := layout.WithAnnotations(map[string]string{refName: config.Config.Labels[versionLabel]})
	if err := written.AppendImage(image, named); err != nil {
		return v1.Hash{}, err
	}
	return image.Digest()
}

// scratch is the empty image in OCI format; that of go-containerregistry is in Docker format.
var scratch = mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)

// base returns the base image: the user's name and the public CA certificates. It has no shell, no
// package manager and no C library.
func base(etc, arch string, created time.Time) (v1.Image, error) {
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, dir := range []string{"etc/", "etc/ssl/", "etc/ssl/certs/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: created}); err != nil {
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
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file.name, Mode: 0o644, Size: int64(len(file.content)), ModTime: created})
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
		History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "deploy/image"},
	})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, v1.Time{Time: created}
	config.Config.User = "65532:65532"
	config.Config.ExposedPorts = map[string]struct{}{"8080/tcp": {}}
	return mutate.ConfigFile(image, config)
}

// roots returns Mozilla's list of certificate authorities as PEM. It comes from a module in go.mod
// and not from the build machine, so that builds are reproducible.
func roots() []byte {
	var all []byte
	for root := range bundle.Roots() {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})...)
	}
	return all
}

// commitTime returns the time of the last commit. It is the creation time of the image, so that
// builds are reproducible.
func commitTime(ctx context.Context, source string) (time.Time, error) {
	text, err := output(exec.CommandContext(ctx, "git", "-C", source, "log", "-1", "--format=%cI"))
	if err != nil {
		return time.Time{}, err
	}
	created, err := time.Parse(time.RFC3339, text)
	return created.UTC(), err
}

var releaseLine = regexp.MustCompile(`(?m)^const Release = "(.+)"$`)

// labels returns the labels of the image.
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
		commit += "-dirty" // as in .ko.yaml
	}
	code, err := os.ReadFile(filepath.Join(source, "internal/version/version.go"))
	if err != nil {
		return nil, err
	}
	release := releaseLine.FindSubmatch(code)
	if release == nil {
		return nil, errors.New("internal/version/version.go has no constant Release")
	}
	return []string{
		labelPrefix + "title=terbayar",
		labelPrefix + "description=Workers that submit payments to AM Digital Payment and Paydia SNAP",
		versionLabel + "=" + string(release[1]),
		labelPrefix + "revision=" + commit,
	}, nil
}

// output runs a command and returns its trimmed standard output. The error contains its standard
// error.
func output(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, stderr.Bytes())
	}
	return strings.TrimSpace(string(text)), nil
}
