package redisconn

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/redistest"
)

func TestParse(t *testing.T) {
	safe := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, row := range []struct {
		url  string
		want redis.UniversalOptions
	}{
		{"redis://127.0.0.1:6379/0", redis.UniversalOptions{Addrs: []string{"127.0.0.1:6379"}}},
		{"redis://localhost", redis.UniversalOptions{Addrs: []string{"localhost:6379"}}},
		{"redis://localhost/", redis.UniversalOptions{Addrs: []string{"localhost:6379"}}},
		{"redis://[::1]:7000/3", redis.UniversalOptions{Addrs: []string{"[::1]:7000"}, DB: 3}},
		{"redis://:p%40ss%2F@h:1/2", redis.UniversalOptions{Addrs: []string{"h:1"}, DB: 2, Password: "p@ss/"}},
		{"redis://u:p@h", redis.UniversalOptions{Addrs: []string{"h:6379"}, Username: "u", Password: "p"}},
		{"rediss://u:p@h", redis.UniversalOptions{Addrs: []string{"h:6379"}, Username: "u", Password: "p", TLSConfig: safe}},
		{
			"redis-sentinel://u:p@a:1,b,[::2]:3/4?master=mymaster&sentinel_username=su&sentinel_password=s%26p&tls=true",
			redis.UniversalOptions{
				Addrs: []string{"a:1", "b:26379", "[::2]:3"}, DB: 4, MasterName: "mymaster", Username: "u", Password: "p",
				SentinelUsername: "su", SentinelPassword: "s&p", TLSConfig: safe,
			},
		},
		{"redis-sentinel://a?master=m", redis.UniversalOptions{Addrs: []string{"a:26379"}, MasterName: "m"}},
		{"redis-cluster://u:p@a:7000,b:7001", redis.UniversalOptions{Addrs: []string{"a:7000", "b:7001"}, Username: "u", Password: "p", IsClusterMode: true}},
		{"redis-cluster://a/0?tls=true", redis.UniversalOptions{Addrs: []string{"a:6379"}, IsClusterMode: true, TLSConfig: safe}},
		{"redis-cluster://a?tls=false", redis.UniversalOptions{Addrs: []string{"a:6379"}, IsClusterMode: true}},
	} {
		got, err := parse(row.url, Passwords{})
		if err != nil {
			t.Errorf("%s: %v", row.url, err)
			continue
		}
		if !got.ContextTimeoutEnabled || got.ReadTimeout != ioTimeout || got.DialTimeout != dialTimeout {
			t.Errorf("%s: without its time-outs", row.url)
		}
		if diff := cmp.Diff(summary(&row.want), summary(got)); diff != "" {
			t.Errorf("%s: %s", row.url, diff)
		}
	}
}

// TestPasswordsBesideTheURL: they are taken as they are, and not along with one in
// the URL.
func TestPasswordsBesideTheURL(t *testing.T) {
	beside := Passwords{Redis: "h%40nter/2", Sentinel: "s?&="}
	got, err := parse("redis-sentinel://u@a?master=m&sentinel_username=su", beside)
	if err != nil {
		t.Fatal(err)
	}
	want := redis.UniversalOptions{
		Addrs: []string{"a:26379"}, MasterName: "m",
		Username: "u", Password: "h%40nter/2", SentinelUsername: "su", SentinelPassword: "s?&=",
	}
	if diff := cmp.Diff(summary(&want), summary(got)); diff != "" {
		t.Error(diff)
	}
	for _, row := range []struct {
		url    string
		beside Passwords
		want   string
	}{
		{"redis://:p@h", Passwords{Redis: "p"}, "a password stands in it, and one beside it"},
		{"redis-sentinel://h?master=m&sentinel_password=p", Passwords{Sentinel: "q"}, "a password stands in it, and one beside it"},
		{"redis://h", Passwords{Sentinel: "q"}, "redis:// has no sentinels"},
	} {
		if err := Validate(row.url, row.beside); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.url, err)
		}
	}
}

// summary is the part of the options that the URL decides.
func summary(o *redis.UniversalOptions) map[string]any {
	return map[string]any{
		"addrs": o.Addrs, "db": o.DB, "user": o.Username, "password": o.Password, "cluster": o.IsClusterMode,
		"master": o.MasterName, "sentinel": o.SentinelUsername + ":" + o.SentinelPassword, "tls": o.TLSConfig != nil,
	}
}

func TestWrongURLs(t *testing.T) {
	for _, row := range []struct{ url, want string }{
		{"", "not a URL such as redis://host:6379/0"},
		{"hunter2", "not a URL"},
		{"http://:hunter2@h", "unknown scheme (want redis, rediss, redis-sentinel or redis-cluster)"},
		{"redis://", "a host is missing or malformed"},
		{"redis://:hunter2@", "a host is missing or malformed"},
		{"redis://:hunter2@h:port", "a host is missing or malformed"},
		{"redis://:hunter2@h:1:2", "a host is missing or malformed"},
		{"redis://:hunter2/@h", "the path is not the number of a database"},
		{"redis://:hunt%er2@h", "not a well-formed URL"},
		{"redis://:hunter2@h/zero", "the path is not the number of a database"},
		{"redis://:hunter2@h/-1", "the path is not the number of a database"},
		{"redis://:hunter2@h,i", "redis:// takes one host"},
		{"redis://:hunter2@h?tls=true", `parameter "tls" is unknown to redis://`},
		{"redis://:hunter2@h#x", "a parameter is malformed"},
		{"redis://:hunter2@h?a=%zz", "a parameter is malformed"},
		{"redis-sentinel://:hunter2@h", "redis-sentinel:// needs the parameter master"},
		{"redis-sentinel://:hunter2@h?master=m&sentinel_pasword=hunter2", `parameter "sentinel_pasword" is unknown`},
		{"redis-sentinel://:hunter2@h,?master=m", "a host is missing or malformed"},
		{"redis-cluster://:hunter2@h/1", "a cluster has database 0 only"},
		{"redis-cluster://:hunter2@h?tls=hunter2", "parameter tls is neither true nor false"},
	} {
		_, err := Open(row.url, Passwords{})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", row.url, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells a secret: %v", row.url, err)
		}
		if Validate(row.url, Passwords{}) == nil {
			t.Errorf("%s is valid", row.url)
		}
	}
}

func TestOpen(t *testing.T) {
	client, err := Open(redistest.Server(t).URL(), Passwords{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if warnings, err := Check(t.Context(), client); err != nil || warnings != nil {
		t.Errorf("%q, %v", warnings, err)
	}
}

func TestOpenWithPassword(t *testing.T) {
	mini := miniredis.RunT(t)
	mini.RequireUserAuth("worker", "hunter2")
	for url, want := range map[string]bool{
		"redis://worker:hunter2@" + mini.Addr() + "/1": true,
		"redis://worker:hunter3@" + mini.Addr() + "/1": false,
		"redis://" + mini.Addr() + "/1":                false,
	} {
		client, err := Open(url, Passwords{})
		if err != nil {
			t.Fatal(err)
		}
		err = client.Set(t.Context(), "k", "v", 0).Err()
		if (err == nil) != want {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter") {
			t.Errorf("the error tells a secret: %v", err)
		}
		client.Close()
	}
	if got := mini.DB(1).Keys(); !cmp.Equal(got, []string{"k"}, cmpopts.EquateEmpty()) {
		t.Errorf("database 1 has %v", got)
	}
}

// A caller's deadline cuts go-redis's own time-outs short.
func TestContextDeadlineCounts(t *testing.T) {
	client, err := Open("redis://"+serve(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }), Passwords{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := Check(ctx, client); err == nil {
		t.Error("no error")
	}
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("took %s", d)
	}
}

// serve listens until the test ends and calls the handler for each connection.
func serve(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// answering is a Redis that gives commands these answers, hangs up where one is
// empty, and knows no other command.
func answering(answers map[string]string) func(net.Conn) {
	return func(conn net.Conn) {
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			command := strings.ToLower(lines.Text())
			answer, ok := answers[command]
			switch {
			case ok && answer == "":
				return
			case command == "hello" || command == "client" || command == "config":
				answer = "-ERR unknown command\r\n"
			case !ok: // lengths and arguments
				continue
			}
			if _, err := io.WriteString(conn, answer); err != nil {
				return
			}
		}
	}
}

func TestLogGoesToSlogAtDebug(t *testing.T) {
	var out bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(before)
	debugLog{}.Printf(t.Context(), "pool: %d", 3)
	if got := out.String(); !strings.Contains(got, `level=DEBUG msg="redis: pool: 3"`) {
		t.Error(got)
	}
}
