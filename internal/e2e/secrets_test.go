package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/testenv/programs"
)

// tokenMark is the beginning of every customer token.
const tokenMark = "eyJjdXN0b21lciI6"

// personalMarks are parts of the personal data of every customer.
var personalMarks = []string{"Nyonya Rahasia", "@customer.example", "+62-811-"}

// secrets returns everything that must not be visible anywhere.
func (e *env) secrets() []string {
	all := []string{e.Settings["AMDIGIPAY_PASSWORD"], e.Settings["PAYDIA_CLIENT_SECRET"], e.Settings["PAYLOAD_KEYS"], tokenMark}
	for line := range strings.Lines(e.Settings["PAYDIA_PRIVATE_KEY"]) {
		if !strings.HasPrefix(line, "-----") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	e.gateway.mu.Lock()
	defer e.gateway.mu.Unlock()
	return slices.AppendSeq(all, maps.Keys(e.gateway.secrets))
}

// noSecrets searches for secrets in everything that an operator can read, and for personal
// data in all of it except the ledger's records of payments that may still be sent.
func (e *env) noSecrets() {
	e.Helper()
	places := map[string]string{"enqueue": e.printed.String()}
	for i, w := range e.Workers() {
		places[fmt.Sprintf("log of worker %d", i)] = w.Stdout.String() + w.Stderr.String()
		maps.Copy(places, e.pages(w))
	}
	for key, content := range e.keys() {
		if strings.HasPrefix(key, "asynq:") {
			places[key] = content
		}
	}
	for key, r := range e.records() {
		if text := fmt.Sprintf("%+v %s", r.Payment, r.Order); r.Status == payment.OnProcessing || r.Status.Final() {
			places[key] = text
		}
	}
	e.find(personalMarks, places)
	for key, r := range e.records() { // their compressed part hides texts
		places["record "+key] = fmt.Sprintf("%+v %s", r.Payment, r.Order)
	}
	maps.Copy(places, e.keys())
	places["append-only file"] = e.appendOnlyFile()
	if !strings.Contains(places["append-only file"], "asynq:{paydia}") {
		e.Error("the append-only file does not contain what was written to Redis")
	}
	e.find(e.secrets(), places)
}

// window is the number of bytes of a long text that is searched for: a part of a secret must
// not be visible either.
const window = 32

// find searches many places for many texts, for all long ones in one run over a place.
func (e *env) find(texts []string, places map[string]string) {
	e.Helper()
	long := map[string]bool{}
	for name, place := range places {
		for _, text := range texts {
			if len(text) >= window {
				long[text[:window]] = true
			} else if i := strings.Index(place, text); i >= 0 {
				e.Errorf("%s shows %q: %.300s", name, text, place[max(0, i-100):])
			}
		}
		for i := 0; i+window <= len(place); i++ {
			if long[place[i:i+window]] {
				e.Errorf("%s shows %q...: %.300s", name, place[i:i+window], place[max(0, i-100):])
			}
		}
	}
}

// pages returns the pages of a worker that runs.
func (e *env) pages(p *programs.Process) map[string]string {
	e.Helper()
	if p.HasEnded() {
		return nil
	}
	paths := []string{
		"/metrics", "/monitoring/", "/monitoring/api/queues", "/monitoring/api/queue_stats",
		"/monitoring/api/servers", "/monitoring/api/scheduler_entries", "/monitoring/api/redis_info",
	}
	queues, err := e.Redis.SMembers(e.Context(), "asynq:queues").Result() // asynq lists only queues that were used
	if err != nil || len(queues) == 0 {
		e.Fatalf("asynq has the queues %v: %v", queues, err)
	}
	for _, queue := range queues {
		for _, list := range []string{"active", "pending", "scheduled", "retry", "archived", "completed"} {
			paths = append(paths, "/monitoring/api/queues/"+queue+"/"+list+"_tasks?size=1000")
		}
	}
	pages := map[string]string{}
	for _, path := range paths {
		status, body := e.page(http.MethodGet, p.URL()+path)
		if status != http.StatusOK {
			e.Errorf("%s: %d %s", path, status, body)
		}
		pages[path] = body
	}
	return pages
}

// records returns every payment in the ledger.
func (e *env) records() map[string]*ledger.Record {
	e.Helper()
	records := map[string]*ledger.Record{}
	for key := range e.keys() {
		_, id, ok := strings.Cut(key, ":payment:")
		gateway, id, _ := strings.Cut(id, ":")
		if !ok {
			continue
		}
		r, err := e.Ledger.Read(e.Context(), payment.Key{Gateway: payment.Gateway(gateway), TransactionID: id})
		if err != nil {
			e.Fatal(err)
		}
		records[key] = r
	}
	return records
}

// keys returns the content of every key in Redis.
func (e *env) keys() map[string]string {
	e.Helper()
	ctx := e.Context()
	all := map[string]string{}
	for scan := e.Redis.Scan(ctx, 0, "*", 1000).Iterator(); scan.Next(ctx); {
		key := scan.Val()
		kind, err := e.Redis.Type(ctx, key).Result()
		if err != nil {
			e.Fatal(err)
		}
		content, err := e.content(ctx, kind, key)
		if err != nil && !errors.Is(err, redis.Nil) { // it may have been deleted meanwhile
			e.Fatal(err)
		}
		all[key] = fmt.Sprint(content)
	}
	if len(all) == 0 {
		e.Error("no keys in Redis")
	}
	return all
}

func (e *env) content(ctx context.Context, kind, key string) (any, error) {
	switch kind {
	case "string":
		return e.Redis.Get(ctx, key).Result()
	case "hash":
		return e.Redis.HGetAll(ctx, key).Result()
	case "list":
		return e.Redis.LRange(ctx, key, 0, -1).Result()
	case "set":
		return e.Redis.SMembers(ctx, key).Result()
	case "zset":
		return e.Redis.ZRange(ctx, key, 0, -1).Result()
	case "stream":
		return e.Redis.XRange(ctx, key, "-", "+").Result()
	case "none":
		return nil, redis.Nil
	default:
		return nil, fmt.Errorf("%s is of the type %s", key, kind)
	}
}

// appendOnlyFile returns everything that was ever written to Redis.
func (e *env) appendOnlyFile() string {
	e.Helper()
	dir, err := e.Redis.ConfigGet(e.Context(), "dir").Result()
	if err != nil {
		e.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir["dir"], "appendonlydir", "*.aof"))
	if err != nil || len(files) == 0 {
		e.Fatalf("no append-only file in %s: %v", dir["dir"], err)
	}
	var all strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			e.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
