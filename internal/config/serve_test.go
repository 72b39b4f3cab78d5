package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestServeSettings: the settings of limits and callbacks; no error contains a secret.
func TestServeSettings(t *testing.T) {
	const one, two = "0123456789abcdef01234567", "ABCDEFGHIJKLMNOPQRSTUVWX-_"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(one+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		env     map[string]string
		want    string // "secrets networks limit"
		failure string // the variable in the error
	}{
		{nil, "[] [] 0/0s", ""},
		{map[string]string{"CALLBACK_SECRET": one + "," + two}, "[" + one + " " + two + "] [] 0/0s", ""},
		{map[string]string{"CALLBACK_SECRET_FILE": file}, "[" + one + "] [] 0/0s", ""},
		{map[string]string{"SERVE_TRUSTED_PROXIES": "10.1.2.3/8, 192.0.2.1,::ffff:198.51.100.0/120,fd00::/8"}, "[] [10.0.0.0/8 192.0.2.1/32 198.51.100.0/24 fd00::/8] 0/0s", ""},
		{map[string]string{"SERVE_RATE_LIMIT": "300/m"}, "[] [] 300/1m0s", ""},

		{map[string]string{"CALLBACK_SECRET": one[:23]}, "", "CALLBACK_SECRET"},
		{map[string]string{"CALLBACK_SECRET": one + "/x"}, "", "CALLBACK_SECRET"},
		{map[string]string{"CALLBACK_SECRET": one + ","}, "", "CALLBACK_SECRET"},
		{map[string]string{"CALLBACK_SECRET": one + "," + one}, "", "CALLBACK_SECRET"},
		{map[string]string{"CALLBACK_SECRET": one, "CALLBACK_SECRET_FILE": file}, "", "CALLBACK_SECRET"},
		{map[string]string{"CALLBACK_SECRET_FILE": file + one}, "", "CALLBACK_SECRET_FILE"},
		{map[string]string{"SERVE_TRUSTED_PROXIES": "10.0.0.0/8,proxy"}, "", "SERVE_TRUSTED_PROXIES"},
		{map[string]string{"SERVE_RATE_LIMIT": "10"}, "", "SERVE_RATE_LIMIT"},
	} {
		for _, name := range []string{"CALLBACK_SECRET", "CALLBACK_SECRET_FILE", "SERVE_TRUSTED_PROXIES", "SERVE_RATE_LIMIT"} {
			t.Setenv(name, c.env[name])
		}
		var cli struct {
			Serve `embed:""`
		}
		_, err := Parse("enqueue", "Serves.", &cli, nil, io.Discard)
		if c.failure != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.failure) || strings.Contains(err.Error(), one) {
				t.Errorf("%v: %v", c.env, err)
			}
			continue
		}
		secrets, secretsErr := cli.CallbackSecrets()
		if err != nil || secretsErr != nil {
			t.Errorf("%v: %v, %v", c.env, err, secretsErr)
			continue
		}
		got := fmt.Sprintf("%v %v %d/%s", secrets, cli.TrustedProxies, cli.RateLimit.Requests, cli.RateLimit.Per)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Error(diff)
		}
	}
}
