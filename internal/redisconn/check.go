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

// ErrUnfit means that Redis' version or settings put payments at risk.
var ErrUnfit = errors.New("redis is not fit to keep payments")

// Check checks whether Redis, or every primary of a Cluster, is fit to keep payments. The
// error is ErrUnfit if its version is older than 6.2, because asynq needs ZRANGE BYSCORE, or
// if it may evict keys. Any other error means that Redis cannot be reached or used now. The
// warnings are sentences about risks, and about what could not be checked because INFO does
// not show it (in miniredis and in some managed services).
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

// inspectPrimaries inspects every primary of a Cluster. The warnings and the error begin with
// the address of the primary.
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

// probe sends ZRANGE BYSCORE, which is new in Redis 6.2, for a key that asynq's users may
// read. It detects an old Redis whose INFO does not show the version, and a Redis that is
// loading its data, which answers INFO but no other command.
func probe(ctx context.Context, client redis.UniversalClient) error {
	err := client.ZRangeArgs(ctx, redis.ZRangeArgs{Key: "asynq:probe", Start: "-inf", Stop: "+inf", ByScore: true}).Err()
	var redisErr redis.Error
	if errors.As(err, &redisErr) && strings.HasPrefix(redisErr.Error(), "ERR ") { // before 6.2: "ERR syntax error"
		return fmt.Errorf("%w: it does not support ZRANGE BYSCORE, so it is older than 6.2", ErrUnfit)
	}
	return err
}

// memoryWarning is the share of maxmemory, in percent, above which Check warns.
const memoryWarning = 80

// inspect checks one Redis by its INFO.
func inspect(ctx context.Context, node redis.Cmdable) (warnings []string, err error) {
	text, err := node.Info(ctx).Result()
	if err != nil && !errors.As(err, new(redis.Error)) { // if Redis rejects INFO, all fields are missing
		return nil, err
	}
	info := parseInfo(text)
	var missing []string
	field := func(name string) (string, bool) {
		value, ok := info[name]
		if !ok {
			missing = append(missing, name)
		}
		return value, ok
	}
	if v, ok := field("redis_version"); ok && isTooOld(v) {
		return nil, fmt.Errorf("%w: its version is %s, and must be 6.2 or later", ErrUnfit, v)
	}
	if policy, ok := field("maxmemory_policy"); ok && policy != "noeviction" {
		return nil, fmt.Errorf("%w: its maxmemory-policy is %s and must be noeviction, or it deletes payments when its memory is full", ErrUnfit, policy)
	}
	if missing != nil {
		warnings = append(warnings, "INFO does not show "+strings.Join(missing, ", ")+
			": make sure that the version is 6.2 or later and maxmemory-policy is noeviction")
	}
	if used, limit := number(info["used_memory"]), number(info["maxmemory"]); limit > 0 && used > limit/100*memoryWarning {
		warnings = append(warnings, fmt.Sprintf(
			"%d %% of maxmemory is in use: when it is full, Redis rejects writes and no payment can be recorded", used*100/limit))
	}
	return warnings, nil
}

// parseInfo parses the answer of INFO: lines "name:value".
func parseInfo(info string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			all[name] = value
		}
	}
	return all
}

// number parses a number. It returns 0 if the text is not one.
func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

var majorMinor = regexp.MustCompile(`^(\d+)\.(\d+)`)

// isTooOld reports whether a version is before 6.2. It returns false for a version that it
// cannot parse: probe detects those.
func isTooOld(version string) bool {
	m := majorMinor.FindStringSubmatch(version)
	if m == nil {
		return false
	}
	major, minor := number(m[1]), number(m[2])
	return major < 6 || major == 6 && minor < 2
}
