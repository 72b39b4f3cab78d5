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
	t.Parallel()
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
			t.Errorf("%s: wrong timeouts", row.url)
		}
		if diff := cmp.Diff(summary(&row.want), summary(got)); diff != "" {
			t.Errorf("%s: %s", row.url, diff)
		}
	}
}

// TestSeparatePasswords: they are not percent-decoded, and exclude a password in the URL.
func TestSeparatePasswords(t *testing.T) {
	t.Parallel()
	separate := Passwords{Redis: "h%40nter/2", Sentinel: "s?&="}
	got, err := parse("redis-sentinel://u@a?master=m&sentinel_username=su", separate)
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
		url      string
		separate Passwords
		want     string
	}{
		{"redis://:p@h", Passwords{Redis: "p"}, "the password is set in the URL and separately"},
		{"redis-sentinel://h?master=m&sentinel_password=p", Passwords{Sentinel: "q"}, "the password is set in the URL and separately"},
		{"redis://h", Passwords{Sentinel: "q"}, "redis:// has no sentinels"},
	} {
		if err := Validate(row.url, row.separate); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.url, err)
		}
	}
}

// summary returns the options that the URL sets.
func summary(o *redis.UniversalOptions) map[string]any {
	return map[string]any{
		"addrs": o.Addrs, "db": o.DB, "user": o.Username, "password": o.Password, "cluster": o.IsClusterMode,
		"master": o.MasterName, "sentinel": o.SentinelUsername + ":" + o.SentinelPassword, "tls": o.TLSConfig != nil,
	}
}

func TestWrongURLs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ url, want string }{
		{"", "not a URL such as redis://host:6379/0"},
		{"hunter2", "not a URL"},
		{"http://:hunter2@h", "unknown scheme (want redis, rediss, redis-sentinel or redis-cluster)"},
		{"redis://", "a host is missing or malformed"},
		{"redis://:hunter2@", "a host is missing or malformed"},
		{"redis://:hunter2@h:port", "a host is missing or malformed"},
		{"redis://:hunter2@h:1:2", "a host is missing or malformed"},
		{"redis://:hunter2/@h", "the path must be the number of a database"},
		{"redis://:hunt%er2@h", "not a well-formed URL"},
		{"redis://:hunter2@h/zero", "the path must be the number of a database"},
		{"redis://:hunter2@h/-1", "the path must be the number of a database"},
		{"redis://:hunter2@h,i", "redis:// has one host only"},
		{"redis://:hunter2@h?tls=true", `parameter "tls" is unknown for redis://`},
		{"redis://:hunter2@h#x", "a parameter is malformed"},
		{"redis://:hunter2@h?a=%zz", "a parameter is malformed"},
		{"redis-sentinel://:hunter2@h", "redis-sentinel:// needs the parameter master"},
		{"redis-sentinel://:hunter2@h?master=m&sentinel_pasword=hunter2", `parameter "sentinel_pasword" is unknown`},
		{"redis-sentinel://:hunter2@h,?master=m", "a host is missing or malformed"},
		{"redis-cluster://:hunter2@h/1", "a Cluster has database 0 only"},
		{"redis-cluster://:hunter2@h?tls=hunter2", "parameter tls must be true or false"},
	} {
		_, err := Open(row.url, Passwords{})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", row.url, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error contains a secret: %v", row.url, err)
		}
		if Validate(row.url, Passwords{}) == nil {
			t.Errorf("Validate accepts %s", row.url)
		}
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
			t.Errorf("the error contains a secret: %v", err)
		}
		client.Close()
	}
	if got := mini.DB(1).Keys(); !cmp.Equal(got, []string{"k"}, cmpopts.EquateEmpty()) {
		t.Errorf("database 1 has %v", got)
	}
}

// TestContextDeadline: the deadline of the caller's context applies before the client's own
// timeouts.
func TestContextDeadline(t *testing.T) {
	t.Parallel()
	options, err := parse("redis://"+serve(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }), Passwords{})
	if err != nil {
		t.Fatal(err)
	}
	options.ReadTimeout = time.Hour
	client := connect(options)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Check(ctx, client); err == nil { // go test ends it if it waits for an hour
		t.Error("no error")
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

// replies returns a handler for serve: a fake Redis with these replies to these commands. It
// closes the connection if the reply is empty, answers the commands that set up a connection
// with an error, and ignores all others.
func replies(byCommand map[string]string) func(net.Conn) {
	return func(conn net.Conn) {
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			command := strings.ToLower(lines.Text())
			reply, ok := byCommand[command]
			switch {
			case ok && reply == "":
				return
			case command == "hello" || command == "client" || command == "config":
				reply = "-ERR unknown command\r\n"
			case !ok: // lengths and arguments
				continue
			}
			if _, err := io.WriteString(conn, reply); err != nil {
				return
			}
		}
	}
}

func TestDebugLog(t *testing.T) {
	var out bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(before)
	debugLog{}.Printf(t.Context(), "pool: %d", 3)
	if got := out.String(); !strings.Contains(got, `level=DEBUG msg="redis: pool: 3"`) {
		t.Error(got)
	}
}
