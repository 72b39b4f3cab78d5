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
		return writesSubmit(command, key, func(code string) bool { return code == "" })
	}
}

// IsSave returns a function that recognises the save of a submit's outcome: a script call
// with the payment's record as a key and a record as an argument whose last attempt has a
// code.
func IsSave(key payment.Key) func(command []string) bool {
	return func(command []string) bool {
		return writesSubmit(command, key, func(code string) bool { return code != "" })
	}
}

func writesSubmit(command []string, key payment.Key, has func(code string) bool) bool {
	return slices.ContainsFunc(command, func(argument string) bool { return strings.HasSuffix(argument, ":payment:"+key.String()) }) &&
		slices.ContainsFunc(command, func(argument string) bool {
			// In a record the attempts are the fourth line, separated by tabs.
			if lines := strings.Split(argument, "\n"); len(lines) > 4 {
				argument = lines[3]
			}
			var last struct {
				Kind payment.Kind
				Code string
			}
			argument = argument[strings.LastIndexByte(argument, '\t')+1:]
			return json.Unmarshal([]byte(argument), &last) == nil && last.Kind == payment.KindSubmit && has(last.Code)
		})
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
