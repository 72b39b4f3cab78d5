// Package redisconn opens the connection to Redis that REDIS_URL names.
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

// The client's limits. The pool is above what fifty submits, asynq's own loops,
// the polls and the web pages want at once: waiting for a connection costs the
// claim's lease, an idle one costs nothing.
const (
	dialTimeout = 3 * time.Second
	ioTimeout   = 3 * time.Second
	poolSize    = 128
	// When a node is lost, connections die in silence, and each that is used costs
	// its timeout.
	idleTime = 3 * time.Second
)

// Open makes a client for a URL in one of these forms; it does not connect yet.
// The client mends two habits of asynq's: see ackHook and brakeHook.
//
//	redis://[user:password@]host[:6379][/db]
//	rediss://...                                (the same over TLS)
//	redis-sentinel://[user:password@]host1[:26379],host2[:26379][/db]?master=NAME
//	    [&sentinel_username=U][&sentinel_password=P][&tls=true]
//	redis-cluster://[user:password@]host1[:6379],host2[:6379][?tls=true]
//
// User, password and everything else may be percent-encoded. The error holds no
// part of the URL but its scheme and the names of its parameters.
func Open(rawURL string, beside Passwords) (redis.UniversalClient, error) {
	options, err := parse(rawURL, beside)
	if err != nil {
		return nil, fmt.Errorf("redisconn: %w", err)
	}
	client := connect(options)
	client.AddHook(ackHook{})
	client.AddHook(brakeHook{})
	return client, nil
}

// OpenDurable makes the client of a durable.Writer for the same URL. Its connections
// are blocked while Redis waits for replicas, so they are none of the others', and no
// command goes a second time by itself: a script and its WAIT belong together.
func OpenDurable(rawURL string, beside Passwords) (redis.UniversalClient, error) {
	options, err := parse(rawURL, beside)
	if err != nil {
		return nil, fmt.Errorf("redisconn: %w", err)
	}
	options.MaxRetries = -1
	options.ReadTimeout = ioTimeout + 2*MaxWaitTimeout // for WAIT and WAITAOF, one after the other
	return connect(options), nil
}

// MaxWaitTimeout is more than Redis may be asked to wait for replicas.
const MaxWaitTimeout = ioTimeout

// clusterReload is how often a Cluster in use is asked who holds what. go-redis
// does so once a minute, and when it is sent elsewhere; a primary that is dead
// sends nobody elsewhere, so it would take a minute to notice a failover.
const clusterReload = time.Second

func connect(o *redis.UniversalOptions) redis.UniversalClient {
	redis.SetLogger(debugLog{})
	watched := &connections{open: make(map[*watchedConn]struct{})}
	o.Dialer = watched.dialer(o)
	if !o.IsClusterMode {
		return redis.NewUniversalClient(o)
	}
	cluster := o.Cluster()
	cluster.ClusterStateReloadInterval = clusterReload
	return redis.NewClusterClient(cluster)
}

// Passwords are those that do not stand in the URL. They are taken as they are,
// never decoded: what keeps secrets hands them out like that.
type Passwords struct{ Redis, Sentinel string }

// Validate checks what Open takes, without opening anything.
func Validate(rawURL string, beside Passwords) error {
	_, err := parse(rawURL, beside)
	return err
}

var authority = regexp.MustCompile(`^([a-z-]+)://([^/?#]*)(.*)$`)

func parse(rawURL string, beside Passwords) (*redis.UniversalOptions, error) {
	// net/url refuses several hosts, so they are taken out first.
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
		ContextTimeoutEnabled: true, // a caller's deadline cuts these shorter
		PoolSize:              poolSize,
		ConnMaxIdleTime:       idleTime,
		// Only Redis Enterprise knows it: elsewhere a refused command per connection.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	o.Username = u.User.Username()
	o.Password, _ = u.User.Password()

	secure, port, parameters := false, "6379", []string{}
	switch scheme {
	case "redis", "rediss":
		secure = scheme == "rediss"
		if strings.Contains(hosts, ",") {
			return nil, fmt.Errorf("%s:// takes one host (several: redis-sentinel:// or redis-cluster://)", scheme)
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
			return nil, fmt.Errorf("parameter %q is unknown to %s:// or stands twice", name, scheme)
		}
	}
	if query.Has("tls") {
		if secure, err = strconv.ParseBool(query.Get("tls")); err != nil {
			return nil, errors.New("parameter tls is neither true nor false")
		}
	}
	if o.Password != "" && beside.Redis != "" || o.SentinelPassword != "" && beside.Sentinel != "" {
		return nil, errors.New("a password stands in it, and one beside it: which one counts?")
	}
	if beside.Sentinel != "" && o.MasterName == "" {
		return nil, fmt.Errorf("%s:// has no sentinels to give a password to", scheme)
	}
	o.Password = cmp.Or(o.Password, beside.Redis)
	o.SentinelPassword = cmp.Or(o.SentinelPassword, beside.Sentinel)
	if secure {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		if o.DB, err = strconv.Atoi(db); err != nil || o.DB < 0 {
			return nil, errors.New("the path is not the number of a database")
		}
		if o.DB != 0 && o.IsClusterMode {
			return nil, errors.New("a cluster has database 0 only")
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
		// Not repeated: an unescaped @ or / leaves part of a password here.
		return "", errors.New("a host is missing or malformed")
	}
	return net.JoinHostPort(strings.Trim(m[1], "[]"), cmp.Or(m[2], defaultPort)), nil
}

// debugLog sends go-redis's own log, of things it has already dealt with or
// returns as errors too, to the default logger at debug level.
type debugLog struct{}

func (debugLog) Printf(ctx context.Context, format string, args ...any) {
	slog.DebugContext(ctx, "redis: "+fmt.Sprintf(format, args...))
}
