package web

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynqmon"
	"github.com/redis/go-redis/v9"
	"golang.org/x/crypto/bcrypt"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/tasks"
)

const monitoringPath = "/monitoring"

// monitoring is asynqmon, for reading only: a click on "cancel" or "run" there
// would re-run a payment's task behind the ledger's back.
func monitoring(client redis.UniversalClient, l *ledger.Ledger) http.Handler {
	ui := asynqmon.New(asynqmon.Options{
		RootPath:         monitoringPath,
		RedisConnOpt:     sharedClient{client},
		ReadOnly:         true,
		PayloadFormatter: asynqmon.PayloadFormatterFunc(formatter(l)),
		// No task of ours writes a result.
		ResultFormatter: asynqmon.ResultFormatterFunc(func(string, []byte) string { return "" }),
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// asynqmon sends no such headers itself.
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline' https://fonts.googleapis.com; "+
			"font-src 'self' https://fonts.gstatic.com; script-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		ui.ServeHTTP(w, r)
	})
}

// sharedClient lets asynqmon use the worker's own connections. asynqmon is never
// closed: closing it would close them.
type sharedClient struct{ client redis.UniversalClient }

func (s sharedClient) MakeRedisClient() any { return s.client }

// attemptTimeout bounds the look into the ledger for one row of the web UI.
const attemptTimeout = 500 * time.Millisecond

// formatter shows a payload as gateway, transaction id, amount and attempt, and
// nothing else: what the task of somebody else carries stays hidden.
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

// Users are the people who may see the web UI: bcrypt hashes by name.
type Users map[string][]byte

// guard lets in who is known or, when nobody is, callers on this very machine.
func (u Users) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case len(u) == 0 && !local(r):
			http.Error(w, "the web UI answers loopback callers only; MONITORING_USERS opens it to others", http.StatusForbidden)
		case len(u) > 0 && !u.known(r):
			w.Header().Set("WWW-Authenticate", `Basic realm="terbayar", charset="UTF-8"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// nobody is compared with when a name is unknown, so that the time an answer
// takes does not tell names apart.
var nobody = sync.OnceValue(func() []byte {
	hash, err := bcrypt.GenerateFromPassword([]byte(rand.Text()), bcrypt.DefaultCost)
	if err != nil {
		panic(err) // only for a password that is too long or a cost out of range
	}
	return hash
})

func (u Users) known(r *http.Request) bool {
	name, password, ok := r.BasicAuth()
	if !ok {
		return false
	}
	hash, ok := u[name]
	if !ok {
		hash = nobody()
	}
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil && ok
}

// local reports whether a request comes from this machine and was meant for it:
// not handed on by a proxy, and not brought here by a foreign page whose name
// was made to resolve to loopback.
func local(r *http.Request) bool {
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	return loopback(r.RemoteAddr) && loopback(r.Host)
}

func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
