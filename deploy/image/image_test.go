package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"debug/buildinfo"
	"debug/elf"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// The image under test: the OCI layout in $IMAGE, or one that run builds.
var (
	image          v1.Image
	config         *v1.ConfigFile
	imageName      string // in the index of the layout
	root           string // directory of its unpacked root file system
	errNotIsolated error  // why its programs cannot run isolated here; nil if they can
)

func TestMain(m *testing.M) {
	if os.Args[0] == inside {
		err := enter(os.Args[1], os.Args[2:])
		fmt.Fprintln(os.Stderr, "enter the image:", err)
		os.Exit(exitNotEntered)
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "terbayar-image-test-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	from := os.Getenv("IMAGE")
	if from == "" {
		from = filepath.Join(dir, "image")
		if _, err := build(context.Background(), "../..", from, runtime.GOARCH); err != nil {
			return 1, err
		}
	}
	index, err := layout.ImageIndexFromPath(from)
	if err != nil {
		return 1, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return 1, err
	}
	if n := len(manifest.Manifests); n != 1 {
		return 1, fmt.Errorf("%d images in %s, want one", n, from)
	}
	imageName = manifest.Manifests[0].Annotations[refName]
	if image, err = index.Image(manifest.Manifests[0].Digest); err != nil {
		return 1, err
	}
	if config, err = image.ConfigFile(); err != nil {
		return 1, err
	}
	root = filepath.Join(dir, "root")
	if err := unpack(root); err != nil {
		return 1, err
	}
	// The user of the image needs access, and MkdirTemp gives it to root alone.
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(root, 0o755)); err != nil {
		return 1, err
	}
	if errNotIsolated = tryToEnter(); errNotIsolated != nil {
		fmt.Fprintln(os.Stderr, "NOT ISOLATED: the programs run outside the image, as the user of the test:", errNotIsolated)
	}
	return m.Run(), nil
}

// TestName checks that the layout names the image: "ctr images import" ignores one without a name.
func TestName(t *testing.T) {
	if version := config.Config.Labels[versionLabel]; imageName != version || imageName == "" {
		t.Errorf("the name is %q, the version %q", imageName, version)
	}
}

// unpack writes the image's files to a directory. It fails on a file that is not owned by root, that
// others than root can write to, or that has the setuid or setgid bit.
func unpack(dir string) error {
	packed := mutate.Extract(image)
	defer packed.Close()
	r := tar.NewReader(packed)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Mode&0o6022 != 0 || h.Uid != 0 || h.Gid != 0 {
			return fmt.Errorf("%s has mode %o, user %d, group %d", h.Name, h.Mode, h.Uid, h.Gid)
		}
		path := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeReg:
			if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
				err = write(path, r)
			}
			if err == nil {
				err = os.Chmod(path, h.FileInfo().Mode().Perm())
			}
		default:
			err = fmt.Errorf("%s is neither a file nor a directory", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

func write(path string, from io.Reader) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// A program of the image is started in three steps: the test starts itself in a new mount
// namespace; the new process makes the image's files its read-only root and changes to the image's
// user; then it executes the program.
const (
	inside         = "inside-the-image" // argv[0] of the new process
	exitNotEntered = 125
	uid            = 65532
)

// enter executes a program of the image at dir in this process.
func enter(dir string, args []string) error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"private mounts", func() error { return syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, "") }},
		{"bind", func() error { return syscall.Mount(dir, dir, "", syscall.MS_BIND, "") }},
		{"read-only", func() error {
			return syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY|syscall.MS_NOSUID|syscall.MS_NODEV, "")
		}},
		{"chroot", func() error { return syscall.Chroot(dir) }},
		{"chdir", func() error { return syscall.Chdir("/") }},
		{"groups", func() error { return syscall.Setgroups(nil) }},
		{"group", func() error { return syscall.Setgid(uid) }},
		{"user", func() error { return syscall.Setuid(uid) }}, // drops all capabilities
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	program, err := lookPath("/", os.Getenv("PATH"), args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(program, args, os.Environ())
}

// lookPath finds a program below a root by PATH, as a container engine does.
func lookPath(root, path, program string) (string, error) {
	if filepath.IsAbs(program) {
		return filepath.Join(root, program), nil
	}
	for dir := range strings.SplitSeq(path, ":") {
		file := filepath.Join(root, dir, program)
		if info, err := os.Stat(file); err == nil && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s is not on PATH", program)
}

// command returns a command that runs a program of the image, isolated if possible.
func command(ctx context.Context, env []string, args ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{inside, root}, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC}
	if errNotIsolated != nil {
		program, err := lookPath(root, variable("PATH"), args[0])
		if err != nil {
			return nil, err
		}
		cmd = exec.CommandContext(ctx, program, args[1:]...)
	}
	cmd.Env = append(slices.Clone(config.Config.Env), env...)
	return cmd, nil
}

// tryToEnter returns why a program of the image cannot run isolated here, or nil.
func tryToEnter() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root")
	}
	cmd, err := command(context.Background(), nil, "/missing")
	if err != nil {
		return err
	}
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) && strings.Contains(string(out), syscall.ENOENT.Error()) {
		return nil // it failed only to find the program
	}
	return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
}

// variable returns an environment variable of the image.
func variable(name string) string {
	for _, v := range config.Config.Env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// programs returns the paths of enqueue and worker in the unpacked image.
func programs(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, program := range []string{"enqueue", "worker"} {
		file, err := lookPath(root, variable("PATH"), program)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// TestFiles checks that the image contains only the needed files, and no shell.
func TestFiles(t *testing.T) {
	want := append(programs(t),
		filepath.Join(root, "etc/group"), filepath.Join(root, "etc/passwd"), filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	slices.Sort(want)
	var got []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			got = append(got, path)
		}
		return err
	})
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("files:\n%s\nwant\n%s\n%v", strings.Join(got, "\n"), strings.Join(want, "\n"), err)
	}
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || !strings.Contains(string(passwd), fmt.Sprintf("terbayar:x:%d:%[1]d:", uid)) {
		t.Errorf("passwd: %s %v", passwd, err)
	}
}

func TestConfig(t *testing.T) {
	c := config.Config
	if want := fmt.Sprintf("%d:%[1]d", uid); c.User != want {
		t.Errorf("user %q, want %s", c.User, want)
	}
	if len(c.Entrypoint) != 1 || filepath.Base(c.Entrypoint[0]) != "worker" || len(c.Cmd) != 0 {
		t.Errorf("entrypoint %q %q, want worker", c.Entrypoint, c.Cmd)
	}
	if _, ok := c.ExposedPorts["8080/tcp"]; !ok {
		t.Errorf("ports %v, want 8080/tcp", c.ExposedPorts)
	}
	if len(c.Env) != 1 || variable("PATH") == "" {
		t.Errorf("environment %q, want PATH alone", c.Env)
	}
	version := runProgram(t, 0, nil, "worker", "--version")
	for _, label := range []string{"title", "description", "version", "revision"} {
		value := c.Labels["org.opencontainers.image."+label]
		if value == "" {
			t.Errorf("no label %s", label)
		}
		if (label == "version" || label == "revision") && !slices.Contains(strings.FieldsFunc(version, func(r rune) bool { return strings.ContainsRune(" (),\n", r) }), value) {
			t.Errorf("label %s: %s, but the program prints %s", label, value, version)
		}
	}
}

// TestStatic checks that the programs are statically linked and built with the expected flags.
func TestStatic(t *testing.T) {
	for _, path := range programs(t) {
		f, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("%s has %s: it is not static", path, p.Type)
			}
		}
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		settings := map[string]string{}
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		for key, want := range map[string]string{
			"CGO_ENABLED": "0", "-trimpath": "true", "-tags": "timetzdata", "GOOS": "linux", "GOARCH": config.Architecture,
		} {
			if settings[key] != want {
				t.Errorf("%s: %s is %q, want %q", path, key, settings[key], want)
			}
		}
	}
}

// TestCertificates checks the file of CA certificates that Go programs read first.
func TestCertificates(t *testing.T) {
	rest, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if c.IsCA && time.Now().Before(c.NotAfter) {
			names[c.Subject.CommonName] = true
		}
	}
	if len(names) < 100 || !names["ISRG Root X1"] || !names["DigiCert Global Root G2"] {
		t.Errorf("%d authorities, Let's Encrypt's %t, DigiCert's %t", len(names), names["ISRG Root X1"], names["DigiCert Global Root G2"])
	}
}

// runProgram runs a program of the image and returns its standard output.
func runProgram(t *testing.T, exit int, env []string, args ...string) string {
	t.Helper()
	cmd, err := command(t.Context(), env, args...)
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	printed, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != exit || (err != nil && code == -1) {
		t.Fatalf("%v: exit code %d, %v, want %d\n%s%s", args, code, err, exit, printed, stderr.Bytes())
	}
	return string(printed)
}

func TestPrograms(t *testing.T) {
	entrypoint := config.Config.Entrypoint[0]
	for _, row := range []struct {
		args []string
		exit int
		want string
	}{
		{[]string{entrypoint, "--version"}, 0, "worker "},
		{[]string{"worker", "--version"}, 0, runtime.Version()},
		{[]string{"worker", "policies"}, 0, "net:unknown"},
		{[]string{"worker", "check", "--redis-url=redis://127.0.0.1:1"}, 1, "FAIL  redis"},
		{[]string{"enqueue", "--version"}, 0, "enqueue "},
		{[]string{"enqueue", "--help"}, 0, "enqueue <command>"},
		{[]string{"worker", "run", "--log-level=loud"}, 2, ""},
	} {
		if out := runProgram(t, row.exit, nil, row.args...); !strings.Contains(out, row.want) {
			t.Errorf("%v: %q, want %q in it", row.args, out, row.want)
		}
	}
}

// TestRun checks that the worker runs with a read-only root, as the image's user, and has the time
// zones.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd, err := command(ctx, []string{"TZ=Asia/Jakarta"}, "worker", "--redis-url=redis://127.0.0.1:1", "--worker-http-addr=127.0.0.1:0", "--log-format=json")
	if err != nil {
		t.Fatal(err)
	}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var logged string
	for part := make([]byte, 4096); err == nil && !strings.Contains(logged, "waiting for redis"); {
		var n int
		n, err = log.Read(part)
		logged += string(part[:n])
	}
	for _, want := range []string{`"worker starts"`, `+07:00`, config.Config.Labels["org.opencontainers.image.revision"], "waiting for redis"} {
		if !strings.Contains(logged, want) {
			t.Errorf("no %s in its log:\n%s", want, logged)
		}
	}
	if errNotIsolated == nil {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil {
			t.Error(err)
		}
		for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("no %q in\n%s", want, status)
			}
		}
		path := fmt.Sprintf("/proc/%d/root/etc/new", cmd.Process.Pid)
		if err := os.WriteFile(path, nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("write into its root: %v, want %v", err, syscall.EROFS)
		}
	}
	// As process 1 of its namespace it receives SIGTERM only because it handles it.
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, log); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}
