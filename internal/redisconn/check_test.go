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

// Answers of Redis servers to INFO and to the probe.
const (
	empty   = "*0\r\n"
	fit     = "redis_version:7.0.15\r\nused_memory:1048576\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\nmaster_replid:abc\r\nconnected_slaves:0\r\n"
	unknown = "-ERR unknown command\r\n"
)

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }

func TestCheckJudges(t *testing.T) {
	const (
		silent = "INFO does not tell redis_version, maxmemory_policy: " +
			"see to it that the version is 6.2 or later and maxmemory-policy noeviction"
	)
	for _, row := range []struct {
		name, info, probe string
		warnings          []string
		unfit             string
	}{
		{"fit", bulk(fit), empty, nil, ""},
		{"6.2", bulk(strings.Replace(fit, "7.0.15", "6.2.0", 1)), empty, nil, ""},
		{"10", bulk(strings.Replace(fit, "7.0.15", "10.1.0", 1)), empty, nil, ""},
		{"odd version", bulk(strings.Replace(fit, "7.0.15", "unstable", 1)), empty, nil, ""},
		{"6.0", bulk(strings.Replace(fit, "7.0.15", "6.0.16", 1)), "-ERR syntax error\r\n", nil, "its version is 6.0.16, and 6.2 is the least"},
		{"5", bulk(strings.Replace(fit, "7.0.15", "5.0.14", 1)), "-ERR syntax error\r\n", nil, "its version is 5.0.14, and 6.2 is the least"},
		{
			"evicting", bulk(strings.Replace(fit, "noeviction", "allkeys-lru", 1)), empty, nil,
			"its maxmemory-policy is allkeys-lru and must be noeviction, or it drops payments when memory runs out",
		},
		{"roomy", bulk(strings.Replace(fit, "maxmemory:0", "maxmemory:10485760", 1)), empty, nil, ""},
		{
			"full", bulk(strings.Replace(fit, "maxmemory:0", "maxmemory:1200000", 1)), empty,
			[]string{"87 % of maxmemory is in use: when it is full, nothing can be recorded any more"},
			"",
		},
		{"silent", bulk("# Server\r\n"), empty, []string{silent}, ""},
		{"INFO forbidden", "-NOPERM this user has no permissions\r\n", empty, []string{silent}, ""},
		{"INFO unknown", unknown, empty, []string{silent}, ""},
		{"silent and old", unknown, "-ERR syntax error\r\n", []string{silent}, "it does not know ZRANGE BYSCORE, so it is older than 6.2"},
		{
			"partly silent", bulk(strings.Replace(fit, "maxmemory_policy:noeviction\r\n", "", 1)), empty,
			[]string{strings.Replace(silent, "redis_version, maxmemory_policy", "maxmemory_policy", 1)},
			"",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			warnings, err := Check(t.Context(), fake(t, row.info, row.probe))
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

// TestCheckOfWhatIsNotReady: what may pass is no judgement.
func TestCheckOfWhatIsNotReady(t *testing.T) {
	for _, row := range []struct{ name, info, probe string }{
		{"loading", bulk(fit), "-LOADING Redis is loading the dataset in memory\r\n"},
		{"no password", "-NOAUTH Authentication required.\r\n", "-NOAUTH Authentication required.\r\n"},
		{"hangs up", "", ""},
		{"hangs up late", bulk(fit), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := Check(t.Context(), fake(t, row.info, row.probe)); err == nil || errors.Is(err, ErrUnfit) {
				t.Error(err)
			}
		})
	}
}

// fake is a client of a Redis that gives INFO and the probe these answers.
func fake(t *testing.T, info, probe string) redis.UniversalClient {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Addr: serve(t, answering(map[string]string{"info": info, "zrange": probe})), Protocol: 2, DisableIdentity: true, MaxRetries: -1,
	})
	t.Cleanup(func() { client.Close() })
	return client
}

func TestCheckOfMiniredis(t *testing.T) {
	warnings, err := Check(t.Context(), redistest.Mini(t))
	if err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "INFO does not tell") {
		t.Errorf("%q, %v", warnings, err)
	}
}

func TestCheckOfRedisServer(t *testing.T) {
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
