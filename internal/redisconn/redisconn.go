// Package redisconn creates Redis clients for REDIS_URL, with workarounds for asynq and
// go-redis, and checks whether a Redis is fit to keep payments.
package redisconn

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// The limits of a client. The pool is larger than what fifty submits, asynq's loops, the
// polls and the web pages use at once: waiting for a connection uses up the claim's lease,
// and an unused connection costs nothing.
const (
	dialTimeout = 3 * time.Second
	ioTimeout   = 3 * time.Second
	poolSize    = 128
	// When a node is lost, its connections do not report it, and each costs a timeout when
	// it is used. So idle connections are closed soon.
	idleTime = 3 * time.Second
)

// Open returns a client for a URL in one of the forms below. It does not connect yet. The
// client has workarounds for asynq and go-redis, see ackHook, dequeueHook and
// clusterPipelines.
//
//	redis://[user:password@]host[:6379][/db]
//	rediss://...                                (the same over TLS)
//	redis-sentinel://[user:password@]host1[:26379],host2[:26379][/db]?master=NAME
//	    [&sentinel_username=U][&sentinel_password=P][&tls=true]
//	redis-cluster://[user:password@]host1[:6379],host2[:6379][?tls=true]
//
// User, password and all other parts may be percent-encoded. The error contains no part of the
// URL except its scheme and the names of its parameters.
func Open(rawURL string, separate Passwords) (redis.UniversalClient, error) {
	options, err := parse(rawURL, separate)
	if err != nil {
		return nil, fmt.Errorf("redisconn: %w", err)
	}
	client := connect(options)
	client.AddHook(ackHook{ackTimeout})
	client.AddHook(dequeueHook{})
	return client, nil
}

// OpenDurable returns the client of a durable.Writer for the same URL. It has its own
// connections, because WAIT blocks a connection. It does not retry commands, because a
// script must not be sent again without its WAIT.
func OpenDurable(rawURL string, separate Passwords) (redis.UniversalClient, error) {
	options, err := parse(rawURL, separate)
	if err != nil {
		return nil, fmt.Errorf("redisconn: %w", err)
	}
	options.MaxRetries = -1
	options.ReadTimeout = ioTimeout + 2*MaxWaitTimeout // for WAIT, then WAITAOF
	return connect(options), nil
}

// MaxWaitTimeout is an upper limit for the timeouts of WAIT and WAITAOF.
const MaxWaitTimeout = ioTimeout

// clusterReload is the interval at which the client reads which node of a Cluster has which
// slots. By itself go-redis does so once a minute, and when a node redirects it. A dead
// primary does not redirect, so go-redis would take up to a minute to notice a failover.
const clusterReload = time.Second

func connect(o *redis.UniversalOptions) redis.UniversalClient {
	watched := &connections{open: make(map[*watchedConn]struct{})}
	o.Dialer = watched.dialer(o)
	if !o.IsClusterMode {
		return redis.NewUniversalClient(o)
	}
	cluster := o.Cluster()
	cluster.ClusterStateReloadInterval = clusterReload
	client := redis.NewClusterClient(cluster)
	client.AddHook(clusterPipelines{client})
	return client
}

// Passwords are passwords that are not in the URL, from REDIS_PASSWORD and
// REDIS_SENTINEL_PASSWORD. They are not percent-encoded.
type Passwords struct{ Redis, Sentinel string }

// Validate checks the arguments of Open.
func Validate(rawURL string, separate Passwords) error {
	_, err := parse(rawURL, separate)
	return err
}

var authority = regexp.MustCompile(`^([a-z-]+)://([^/?#]*)(.*)$`)

func parse(rawURL string, separate Passwords) (*redis.UniversalOptions, error) {
	// net/url rejects several hosts, so they are cut out first.
	m := authority.FindStringSubmatch(rawURL)
	if m == nil {
		return nil, errors.New("not a URL such as redis://host:6379/0")
	}
	scheme, login, hosts := m[1], "", m[2]
	if at := strings.LastIndexByte(hosts, '@'); at >= 0 {
		login, hosts = hosts[:at+1], hosts[at+1:]
	}
	u, err := url.Parse(scheme + "://" + login + "hosts" + m[3])
	if err != nil {
		return nil, errors.New("not a well-formed URL (special characters in user or password are written %XX)")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return nil, errors.New("a parameter is malformed")
	}
	o := &redis.UniversalOptions{
		DialTimeout: dialTimeout, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout,
		ContextTimeoutEnabled: true, // an earlier deadline of the caller's context applies
		PoolSize:              poolSize,
		ConnMaxIdleTime:       idleTime,
		// Only Redis Enterprise has it; other servers reject the command on every connection.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	o.Username = u.User.Username()
	o.Password, _ = u.User.Password()

	secure, port, parameters := false, "6379", []string{}
	switch scheme {
	case "redis", "rediss":
		secure = scheme == "rediss"
		if strings.Contains(hosts, ",") {
			return nil, fmt.Errorf("%s:// has one host only (for several use redis-sentinel:// or redis-cluster://)", scheme)
		}
	case "redis-sentinel":
		port, parameters = "26379", []string{"master", "sentinel_username", "sentinel_password", "tls"}
		if o.MasterName = query.Get("master"); o.MasterName == "" {
			return nil, errors.New("redis-sentinel:// needs the parameter master")
		}
		o.SentinelUsername, o.SentinelPassword = query.Get("sentinel_username"), query.Get("sentinel_password")
	case "redis-cluster":
		parameters, o.IsClusterMode = []string{"tls"}, true
	default:
		return nil, errors.New("unknown scheme (want redis, rediss, redis-sentinel or redis-cluster)")
	}
	for name, values := range query {
		if !slices.Contains(parameters, name) || len(values) > 1 {
			return nil, fmt.Errorf("parameter %q is unknown for %s:// or set twice", name, scheme)
		}
	}
	if query.Has("tls") {
		if secure, err = strconv.ParseBool(query.Get("tls")); err != nil {
			return nil, errors.New("parameter tls must be true or false")
		}
	}
	if o.Password != "" && separate.Redis != "" || o.SentinelPassword != "" && separate.Sentinel != "" {
		return nil, errors.New("the password is set in the URL and separately: set only one")
	}
	if separate.Sentinel != "" && o.MasterName == "" {
		return nil, fmt.Errorf("%s:// has no sentinels to give a password to", scheme)
	}
	o.Password = cmp.Or(o.Password, separate.Redis)
	o.SentinelPassword = cmp.Or(o.SentinelPassword, separate.Sentinel)
	if secure {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		if o.DB, err = strconv.Atoi(db); err != nil || o.DB < 0 {
			return nil, errors.New("the path must be the number of a database")
		}
		if o.DB != 0 && o.IsClusterMode {
			return nil, errors.New("a Cluster has database 0 only")
		}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		addr, err := address(host, port)
		if err != nil {
			return nil, err
		}
		o.Addrs = append(o.Addrs, addr)
	}
	return o, nil
}

var hostPort = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?$`)

func address(host, defaultPort string) (string, error) {
	m := hostPort.FindStringSubmatch(host)
	if m == nil {
		// The error does not contain the host: after an unescaped @ or / it has part of a password.
		return "", errors.New("a host is missing or malformed")
	}
	return net.JoinHostPort(strings.Trim(m[1], "[]"), cmp.Or(m[2], defaultPort)), nil
}

// debugLog writes go-redis's own log to the default logger at debug level. go-redis handles
// what it logs, or returns it as an error too.
type debugLog struct{}

// The logger is global, and go-redis reads it without a lock: set it before any client exists.
func init() { redis.SetLogger(debugLog{}) }

func (debugLog) Printf(ctx context.Context, format string, args ...any) {
	slog.DebugContext(ctx, "redis: "+fmt.Sprintf(format, args...))
}
