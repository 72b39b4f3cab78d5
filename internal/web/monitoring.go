package web

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/hibiken/asynqmon"
	"github.com/redis/go-redis/v9"
	"golang.org/x/crypto/bcrypt"

	"terbayar/internal/ledger"
	"terbayar/internal/loopback"
	"terbayar/internal/payment"
	"terbayar/internal/tasks"
)

const monitoringPath = "/monitoring"

// monitoring returns asynqmon, read-only: its buttons "cancel" and "run" would run a
// payment's task again without the ledger knowing.
func monitoring(client redis.UniversalClient, l *ledger.Ledger) http.Handler {
	ui := asynqmon.New(asynqmon.Options{
		RootPath:         monitoringPath,
		RedisConnOpt:     sharedClient{client},
		ReadOnly:         true,
		PayloadFormatter: asynqmon.PayloadFormatterFunc(formatter(l)),
		// Terbayar's tasks write no result.
		ResultFormatter: asynqmon.ResultFormatterFunc(func(string, []byte) string { return "" }),
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// asynqmon does not set these headers itself.
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline' https://fonts.googleapis.com; "+
			"font-src 'self' https://fonts.gstatic.com; script-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		ui.ServeHTTP(w, r)
	})
}

// sharedClient lets asynqmon use the worker's own Redis connections. asynqmon is never
// closed, because that would close them.
type sharedClient struct{ client redis.UniversalClient }

func (s sharedClient) MakeRedisClient() any { return s.client }

// attemptTimeout bounds the read from the ledger for one row of the web UI.
const attemptTimeout = 500 * time.Millisecond

// formatter returns a function that shows a payload as gateway, transaction id, amount and
// attempt, and hides the payload of any other task in the same Redis.
func formatter(l *ledger.Ledger) func(taskType string, payload []byte) string {
	return func(taskType string, payload []byte) string {
		p, err := tasks.Decode(payload)
		if err != nil {
			return "(not shown)"
		}
		shown := struct {
			Gateway       payment.Gateway `json:"gateway"`
			TransactionID string          `json:"transaction_id,omitempty"`
			Amount        payment.Rupiah  `json:"amount,omitempty"`
			Attempt       *int            `json:"attempt,omitempty"`
		}{Gateway: p.Gateway, TransactionID: p.TransactionID, Amount: p.Amount}
		if taskType == tasks.TypeSubmit {
			ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
			defer cancel()
			if n, err := l.AttemptCount(ctx, p.Key()); err == nil {
				shown.Attempt = &n
			}
		}
		text, err := json.Marshal(shown)
		if err != nil {
			return "(not shown)"
		}
		return string(text)
	}
}

// Users may see the web UI: bcrypt hashes of their passwords by name.
type Users map[string][]byte

// protect requires the password of one of the users. Without users, only loopback callers
// are allowed.
func (u Users) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case len(u) == 0 && !loopback.Is(r):
			http.Error(w, "the web UI answers loopback callers only; set MONITORING_USERS to open it to others", http.StatusForbidden)
		case len(u) > 0 && !u.authenticated(r):
			w.Header().Set("WWW-Authenticate", `Basic realm="terbayar", charset="UTF-8"`)
			http.Error(w, "unauthorized", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// unknownUser is the hash that is compared when a name is unknown, so that the time of the
// answer does not reveal which names exist.
var unknownUser = sync.OnceValue(func() []byte {
	hash, err := bcrypt.GenerateFromPassword([]byte(rand.Text()), bcrypt.DefaultCost)
	if err != nil {
		panic(err) // only if the password is too long or the cost out of range
	}
	return hash
})

func (u Users) authenticated(r *http.Request) bool {
	name, password, ok := r.BasicAuth()
	if !ok {
		return false
	}
	hash, ok := u[name]
	if !ok {
		hash = unknownUser()
	}
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil && ok
}
