package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/gatewaysim"
)

func TestDefaults(t *testing.T) {
	s, _, err := parse(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.config()
	if err != nil {
		t.Fatal(err)
	}
	got.Faults, got.Refusals = nil, nil // the flags give empty lists instead of nil
	if diff := cmp.Diff(gatewaysim.DefaultConfig(), got, cmp.Comparer(func(a, b *rsa.PublicKey) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestVariables(t *testing.T) {
	t.Setenv("GATEWAYSIM_SEED", "42")
	t.Setenv("GATEWAYSIM_AM_DUPLICATES", "second")
	t.Setenv("GATEWAYSIM_PAYDIA_NOT_FOUND_AS_07", "true")
	t.Setenv("GATEWAYSIM_FAULTS", `[{"fault":"slow","delay":"2s"},{"fault":"busy","count":1}]`)
	s, _, err := parse(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.config()
	if err != nil {
		t.Fatal(err)
	}
	if c.Seed != 42 || c.AM.Duplicates != gatewaysim.DuplicateSecond || !c.Paydia.NotFoundAs07 || len(c.Faults) != 2 {
		t.Errorf("%+v", c)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, row := range []struct{ args, want string }{
		{"--nonsense", "unknown flag"},
		{"--am-duplicates=third", "am-duplicates"},
		{`--faults=[{"fault":"x"}]`, "unknown fault"},
		{`--faults={`, "--faults"},
		{"--fault-rate=2", "fault-rate"},
	} {
		err := run(t.Context(), []string{row.args}, io.Discard)
		var stderr bytes.Buffer
		if code := exitCode(err, &stderr); code != 2 || !strings.Contains(stderr.String(), row.want) {
			t.Errorf("%s: exit code %d, %s", row.args, code, stderr.String())
		}
	}
	if code := exitCode(errors.New("x"), io.Discard); code != 1 {
		t.Errorf("exit code %d", code)
	}
}

func TestHelpDocumentsEveryFault(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, f := range gatewaysim.Faults() {
		if !strings.Contains(out.String(), "  "+string(f)+" ") {
			t.Errorf("--help does not contain %s", f)
		}
	}
}

// TestRun: the private key is printed in one line, and no temporary file remains.
func TestRun(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	env := start(t)
	if block, _ := pem.Decode([]byte(strings.ReplaceAll(env["PAYDIA_PRIVATE_KEY"], `\n`, "\n"))); block == nil {
		t.Errorf("PAYDIA_PRIVATE_KEY is not a key: %q", env["PAYDIA_PRIVATE_KEY"])
	}
	if files, err := os.ReadDir(tmp); err != nil || len(files) > 0 {
		t.Errorf("temporary files: %v %v", files, err)
	}
}

// TestKeyDir: with a directory for the key, a second start uses the same key.
func TestKeyDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	var keys [2]string
	for i := range keys {
		env := start(t, "--paydia-key-dir="+dir)
		file := filepath.Join(dir, "paydia-private-key.pem")
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 || env["PAYDIA_PRIVATE_KEY_FILE"] != file || env["PAYDIA_PRIVATE_KEY"] != "" {
			t.Fatalf("key file %q: %v %v", env["PAYDIA_PRIVATE_KEY_FILE"], info, err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = string(text)
	}
	if keys[0] != keys[1] {
		t.Error("the second start has another key")
	}
}

// start runs the program, logs in to AM with the printed settings, stops the program, and
// returns the settings.
func start(t *testing.T, args ...string) (env map[string]string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, append(args, "--addr=127.0.0.1:0"), writer)
		_ = writer.Close()
	}()

	env = map[string]string{}
	for lines := bufio.NewScanner(reader); lines.Scan(); {
		if name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "="); ok {
			env[name] = strings.Trim(value, "'")
			if name == "PAYDIA_MERCHANT_ID" { // the last one
				break
			}
		}
	}
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	for _, name := range []string{
		"AMDIGIPAY_BASE_URL", "AMDIGIPAY_USERNAME", "AMDIGIPAY_PASSWORD", "PAYDIA_BASE_URL", "PAYDIA_CLIENT_ID",
		"PAYDIA_CLIENT_SECRET", "PAYDIA_MERCHANT_ID",
	} {
		if env[name] == "" {
			t.Errorf("%s is not printed", name)
		}
	}
	resp, err := http.Post(env["AMDIGIPAY_BASE_URL"]+"/login", "application/x-www-form-urlencoded",
		strings.NewReader("username="+env["AMDIGIPAY_USERNAME"]+"&password="+env["AMDIGIPAY_PASSWORD"]))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("login: %s", resp.Status)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return env
}
