package redisconn

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// ErrUnfit says that a Redis answered and must not be trusted with payments.
var ErrUnfit = errors.New("redis is not fit to keep payments")

// Check asks a Redis - in a Cluster every primary - whether it is fit to keep
// payments. It is not, ErrUnfit, when it is older than 6.2, whose ZRANGE BYSCORE
// asynq needs, or when it may evict keys. Any other error is a Redis that cannot
// be reached or used right now. The warnings are sentences for the operator: what
// is risky, and what the Redis would not tell (miniredis, and managed ones that
// forbid INFO) and is taken on trust.
func Check(ctx context.Context, client redis.UniversalClient) (warnings []string, err error) {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		warnings, err = inspectPrimaries(ctx, cluster)
	} else {
		warnings, err = inspect(ctx, client)
	}
	if err == nil {
		err = probe(ctx, client)
	}
	if err != nil {
		return warnings, fmt.Errorf("redisconn: check: %w", err)
	}
	return warnings, nil
}

// inspectPrimaries inspects every primary of a Cluster, and says which one is
// meant.
func inspectPrimaries(ctx context.Context, cluster *redis.ClusterClient) ([]string, error) {
	var mu sync.Mutex
	var warnings []string
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, primary *redis.Client) error {
		found, err := inspect(ctx, primary)
		mu.Lock()
		defer mu.Unlock()
		for _, w := range found {
			warnings = append(warnings, primary.Options().Addr+": "+w)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", primary.Options().Addr, err)
		}
		return nil
	})
	slices.Sort(warnings)
	return warnings, err
}

// probe uses what 6.2 brought, on a key that whoever may use asynq may read. It
// judges a Redis that does not tell its version, and shows that one that does is
// ready: while it loads its data it answers INFO and nothing else.
func probe(ctx context.Context, client redis.UniversalClient) error {
	err := client.ZRangeArgs(ctx, redis.ZRangeArgs{Key: "asynq:probe", Start: "-inf", Stop: "+inf", ByScore: true}).Err()
	var refusal redis.Error
	if errors.As(err, &refusal) && strings.HasPrefix(refusal.Error(), "ERR ") { // before 6.2: "ERR syntax error"
		return fmt.Errorf("%w: it does not know ZRANGE BYSCORE, so it is older than 6.2", ErrUnfit)
	}
	return err
}

// headroom is the share of maxmemory, in percent, above which a warning is due.
const headroom = 80

// inspect judges one Redis by what it tells of itself.
func inspect(ctx context.Context, node redis.Cmdable) (warnings []string, err error) {
	text, err := node.Info(ctx).Result()
	if err != nil && !errors.As(err, new(redis.Error)) { // a refusal only means that it tells nothing
		return nil, err
	}
	info := fields(text)
	var untold []string
	told := func(name string) (string, bool) {
		value, ok := info[name]
		if !ok {
			untold = append(untold, name)
		}
		return value, ok
	}
	if v, ok := told("redis_version"); ok && older(v) {
		return nil, fmt.Errorf("%w: its version is %s, and 6.2 is the least", ErrUnfit, v)
	}
	if policy, ok := told("maxmemory_policy"); ok && policy != "noeviction" {
		return nil, fmt.Errorf("%w: its maxmemory-policy is %s and must be noeviction, or it drops payments when memory runs out", ErrUnfit, policy)
	}
	if untold != nil {
		warnings = append(warnings, "INFO does not tell "+strings.Join(untold, ", ")+
			": see to it that the version is 6.2 or later and maxmemory-policy noeviction")
	}
	if used, most := number(info["used_memory"]), number(info["maxmemory"]); most > 0 && used > most/100*headroom {
		warnings = append(warnings, fmt.Sprintf(
			"%d %% of maxmemory is in use: when it is full, nothing can be recorded any more", used*100/most))
	}
	return warnings, nil
}

// fields reads the lines of an INFO, "name:value".
func fields(info string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			all[name] = value
		}
	}
	return all
}

// number reads a count of bytes; 0 when there is none.
func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

var majorMinor = regexp.MustCompile(`^(\d+)\.(\d+)`)

// older reports whether a version is one before 6.2. One that cannot be read is
// left to the probe.
func older(version string) bool {
	m := majorMinor.FindStringSubmatch(version)
	if m == nil {
		return false
	}
	major, minor := number(m[1]), number(m[2])
	return major < 6 || major == 6 && minor < 2
}
