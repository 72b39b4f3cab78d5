package api

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"terbayar/internal/payment"
)

// Scope is what a key may see and submit. The zero value is everything.
type Scope struct {
	Gateway  payment.Gateway // "": both
	Prefix   string          // of transaction ids
	ReadOnly bool
}

// Includes reports whether a payment is in the scope.
func (s Scope) Includes(key payment.Key) bool {
	return (s.Gateway == "" || s.Gateway == key.Gateway) && strings.HasPrefix(key.TransactionID, s.Prefix)
}

// Key is an API key. Only its SHA-256 is kept.
type Key struct {
	Name string
	Scope

	hash [sha256.Size]byte
	end  time.Time // from then on it is refused; zero: never
}

// tokenPrefix makes keys recognizable, also for programs that search files for secrets.
const tokenPrefix = "tbr_"

// NewKey returns a new random key, and the token that a client sends. The errors name the flags
// of enqueue keys new.
func NewKey(name string, scope Scope, until string) (token string, key Key, err error) {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // it never fails
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(random)
	line := name + ":" + hashOf(token)
	if scope.Gateway != "" {
		line += " gateway=" + string(scope.Gateway)
	}
	if scope.Prefix != "" {
		line += " prefix=" + scope.Prefix
	}
	if until != "" {
		line += " until=" + until
	}
	if scope.ReadOnly {
		line += " read-only"
	}
	if strings.ContainsAny(scope.Prefix, " \t\r\n") {
		return "", Key{}, errors.New("the prefix contains white space")
	}
	key, err = parseKey(line)
	return token, key, err
}

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// String returns the line of API_KEYS_FILE.
func (k Key) String() string {
	line := k.Name + ":" + hex.EncodeToString(k.hash[:])
	if k.Gateway != "" {
		line += " gateway=" + string(k.Gateway)
	}
	if k.Prefix != "" {
		line += " prefix=" + k.Prefix
	}
	if !k.end.IsZero() {
		line += " until=" + k.end.AddDate(0, 0, -1).Format(time.DateOnly)
	}
	if k.ReadOnly {
		line += " read-only"
	}
	return line
}

// maxKeys bounds the time of a comparison, and the number of series of the metrics.
const maxKeys = 1000

// ParseKeys parses API_KEYS: one key a line. Empty lines and lines that begin with # are ignored.
// The errors contain no part of a line.
func ParseKeys(text string) ([]Key, error) {
	var keys []Key
	lines := map[[sha256.Size]byte]int{}
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		number++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		key, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if other, exists := lines[key.hash]; exists {
			return nil, fmt.Errorf("line %d has the same key as line %d", number, other)
		}
		lines[key.hash] = number
		if keys = append(keys, key); len(keys) > maxKeys {
			return nil, fmt.Errorf("more than %d keys", maxKeys)
		}
	}
	return keys, nil
}

var keyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func parseKey(line string) (Key, error) {
	fields := strings.Fields(line)
	name, hash, _ := strings.Cut(fields[0], ":")
	k := Key{Name: name}
	decoded, err := hex.DecodeString(hash)
	switch {
	case !keyName.MatchString(name):
		return Key{}, errors.New("the name must be 1 to 64 letters, digits, periods, hyphens and underscores")
	case strings.HasPrefix(hash, tokenPrefix):
		return Key{}, errors.New("it has the key itself instead of its SHA-256: everyone who can read it has the key. " +
			"Make a new one with enqueue keys new")
	case err != nil || len(decoded) != sha256.Size:
		return Key{}, errors.New("must be name:sha256-hex, as enqueue keys new prints it")
	}
	copy(k.hash[:], decoded)
	given := map[string]bool{}
	for _, field := range fields[1:] {
		option, value, _ := strings.Cut(field, "=")
		if given[option] {
			return Key{}, errors.New("an option is given twice")
		}
		given[option] = true
		switch {
		case option == "gateway":
			if k.Gateway, err = payment.ParseGateway(value); err != nil {
				return Key{}, errors.New("gateway= must be amdigipay or paydia")
			}
		case option == "prefix" && value != "":
			k.Prefix = value
		case option == "until":
			last, err := time.ParseInLocation(time.DateOnly, value, payment.Jakarta)
			if err != nil {
				return Key{}, errors.New("until= must be a date of the form YYYY-MM-DD: the last day, in Jakarta")
			}
			k.end = last.AddDate(0, 0, 1)
		case field == "read-only":
			k.ReadOnly = true
		default:
			return Key{}, errors.New("unknown option (want gateway=, prefix=, until= or read-only)")
		}
	}
	return k, nil
}

// Keys are the keys in force. They may be replaced at any time.
type Keys struct{ current atomic.Pointer[[]Key] }

// NewKeys returns the keys of a program. Without any, only loopback callers are answered, and
// every key that is set later has no effect.
func NewKeys(keys []Key) *Keys {
	k := &Keys{}
	if len(keys) > 0 {
		k.Set(keys)
	}
	return k
}

// Set replaces the keys. Without any, every request is refused.
func (k *Keys) Set(keys []Key) { k.current.Store(&keys) }

// loopbackOnly reports whether there have never been keys.
func (k *Keys) loopbackOnly() bool { return k.current.Load() == nil }

// find returns the key of a token. It compares with all keys, in constant time.
func (k *Keys) find(token string) (found Key, ok bool) {
	sum := sha256.Sum256([]byte(token))
	for _, key := range *k.current.Load() {
		if subtle.ConstantTimeCompare(sum[:], key.hash[:]) == 1 {
			found, ok = key, true
		}
	}
	return found, ok
}

// inForce reports whether a key that was found earlier is still the same, and has not ended.
func (k *Keys) inForce(key Key, now time.Time) bool {
	if k.loopbackOnly() {
		return true
	}
	for _, one := range *k.current.Load() {
		if one == key {
			return !one.ended(now)
		}
	}
	return false
}

func (k Key) ended(now time.Time) bool { return !k.end.IsZero() && !now.Before(k.end) }
