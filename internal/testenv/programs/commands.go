package programs

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"terbayar/internal/payment"
)

// The functions below recognise commands that a worker sends to Redis, for
// redistest.Interceptor.

// IsClaim returns a function that recognises the claim of a payment: a script call with the
// payment's record as a key and an attempt without a code as an argument.
func IsClaim(key payment.Key) func(command []string) bool {
	return func(command []string) bool {
		return hasRecord(command, key) && slices.ContainsFunc(command, func(argument string) bool {
			var attempt struct {
				Kind payment.Kind
				Code string
			}
			return json.Unmarshal([]byte(argument), &attempt) == nil && attempt.Kind == payment.KindSubmit && attempt.Code == ""
		})
	}
}

// IsSave returns a function that recognises the save of a payment: a script call with the
// payment's record and the set of the unknown outcomes as keys.
func IsSave(key payment.Key) func(command []string) bool {
	return func(command []string) bool {
		return hasRecord(command, key) &&
			slices.ContainsFunc(command, func(argument string) bool { return strings.HasSuffix(argument, ":unknown:"+string(key.Gateway)) })
	}
}

// IsDrop returns a function that recognises the replacement of a payment's record by its
// tombstone: a script call with the record and a hash of tombstones as keys.
func IsDrop(key payment.Key) func(command []string) bool {
	return func(command []string) bool {
		return hasRecord(command, key) &&
			slices.ContainsFunc(command, func(argument string) bool { return strings.Contains(argument, ":tombstones:"+string(key.Gateway)) })
	}
}

func hasRecord(command []string, key payment.Key) bool {
	return slices.ContainsFunc(command, func(argument string) bool { return strings.HasSuffix(argument, ":payment:"+key.String()) })
}

// IsTaskDone returns a function that recognises the acknowledgement of a payment's task by
// asynq: a script call with the task and the counter of processed tasks as keys.
func IsTaskDone(key payment.Key) func(command []string) bool {
	queue := "asynq:{" + string(key.Gateway) + "}:"
	return func(command []string) bool {
		return slices.Contains(command, queue+"t:"+string(key.Gateway)+":"+url.PathEscape(key.TransactionID)) &&
			slices.ContainsFunc(command, func(argument string) bool { return strings.HasPrefix(argument, queue+"processed") })
	}
}
