package redisconn

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/redistest"
)

// Replies of Redis to INFO and to the probe.
const (
	empty   = "*0\r\n"
	fit     = "redis_version:7.0.15\r\nused_memory:1048576\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\nmaster_replid:abc\r\nconnected_slaves:0\r\n"
	unknown = "-ERR unknown command\r\n"
)

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }

func TestCheck(t *testing.T) {
	t.Parallel()
	const notShown = "INFO does not show redis_version, maxmemory_policy: " +
		"make sure that the version is 6.2 or later and maxmemory-policy is noeviction"
	for _, row := range []struct {
		name, info, probe string
		warnings          []string
		unfit             string
	}{
		{"fit", bulk(fit), empty, nil, ""},
		{"6.2", bulk(strings.Replace(fit, "7.0.15", "6.2.0", 1)), empty, nil, ""},
		{"10", bulk(strings.Replace(fit, "7.0.15", "10.1.0", 1)), empty, nil, ""},
		{"unreadable version", bulk(strings.Replace(fit, "7.0.15", "unstable", 1)), empty, nil, ""},
		{"6.0", bulk(strings.Replace(fit, "7.0.15", "6.0.16", 1)), "-ERR syntax error\r\n", nil, "its version is 6.0.16, and must be 6.2 or later"},
		{"5", bulk(strings.Replace(fit, "7.0.15", "5.0.14", 1)), "-ERR syntax error\r\n", nil, "its version is 5.0.14, and must be 6.2 or later"},
		{
			"evicting", bulk(strings.Replace(fit, "noeviction", "allkeys-lru", 1)), empty, nil,
			"its maxmemory-policy is allkeys-lru and must be noeviction, or it deletes payments when its memory is full",
		},
		{"memory free", bulk(strings.Replace(fit, "maxmemory:0", "maxmemory:10485760", 1)), empty, nil, ""},
		{
			"memory almost full", bulk(strings.Replace(fit, "maxmemory:0", "maxmemory:1200000", 1)), empty,
			[]string{"87 % of maxmemory is in use: when it is full, Redis rejects writes and no payment can be recorded"},
			"",
		},
		{"INFO empty", bulk("# Server\r\n"), empty, []string{notShown}, ""},
		{"INFO forbidden", "-NOPERM this user has no permissions\r\n", empty, []string{notShown}, ""},
		{"INFO unknown", unknown, empty, []string{notShown}, ""},
		{"INFO unknown and too old", unknown, "-ERR syntax error\r\n", []string{notShown}, "it does not support ZRANGE BYSCORE, so it is older than 6.2"},
		{
			"INFO without maxmemory_policy", bulk(strings.Replace(fit, "maxmemory_policy:noeviction\r\n", "", 1)), empty,
			[]string{strings.Replace(notShown, "redis_version, maxmemory_policy", "maxmemory_policy", 1)},
			"",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			warnings, err := Check(t.Context(), fakeRedis(t, row.info, row.probe))
			if diff := cmp.Diff(row.warnings, warnings); diff != "" {
				t.Error(diff)
			}
			want := ""
			if row.unfit != "" {
				want = "redisconn: check: redis is not fit to keep payments: " + row.unfit
			}
			if text := fmt.Sprint(err); errors.Is(err, ErrUnfit) != (want != "") || err != nil && text != want {
				t.Errorf("%s, want %s", text, want)
			}
		})
	}
}

// TestCheckTransientErrors: an error that may go away is not ErrUnfit.
func TestCheckTransientErrors(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, info, probe string }{
		{"loading", bulk(fit), "-LOADING Redis is loading the dataset in memory\r\n"},
		{"no password", "-NOAUTH Authentication required.\r\n", "-NOAUTH Authentication required.\r\n"},
		{"closes the connection", "", ""},
		{"closes the connection after INFO", bulk(fit), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := Check(t.Context(), fakeRedis(t, row.info, row.probe)); err == nil || errors.Is(err, ErrUnfit) {
				t.Error(err)
			}
		})
	}
}

// fakeRedis returns a client of a fake Redis with these replies to INFO and the probe.
func fakeRedis(t *testing.T, info, probe string) redis.UniversalClient {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Addr: serve(t, replies(map[string]string{"info": info, "zrange": probe})), Protocol: 2, DisableIdentity: true, MaxRetries: -1,
	})
	t.Cleanup(func() { client.Close() })
	return client
}

func TestCheckMiniredis(t *testing.T) {
	t.Parallel()
	warnings, err := Check(t.Context(), redistest.Mini(t))
	if err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "INFO does not show") {
		t.Errorf("%q, %v", warnings, err)
	}
}

func TestCheckRedisServer(t *testing.T) {
	t.Parallel()
	client := redistest.Server(t).Client(t)
	set := func(name, value string) {
		t.Helper()
		if err := client.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if warnings, err := Check(t.Context(), client); err != nil || warnings != nil {
		t.Errorf("%q, %v", warnings, err)
	}
	set("maxmemory", "1200000") // a fresh server needs about one MB
	if warnings, err := Check(t.Context(), client); err != nil || len(warnings) != 1 {
		t.Errorf("%q, %v", warnings, err)
	}
	set("maxmemory-policy", "volatile-lru")
	if _, err := Check(t.Context(), client); !errors.Is(err, ErrUnfit) {
		t.Error(err)
	}
}
