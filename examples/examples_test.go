// Package examples runs the examples as their users do: on a real Redis, with events of real
// workers.
package examples_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv/programs"
	"terbayar/internal/testenv/verify"
)

func TestMain(m *testing.M) { programs.Main(tests{m}) }

type tests struct{ *testing.M }

// Run removes what was built for the tests.
func (t tests) Run() int {
	defer func() { _ = os.RemoveAll(built.dir) }() // a temporary directory
	return t.M.Run()
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

// example is one of the consumers.
type example struct {
	name string
	argv []string
}

// examples builds the consumers. That of Node.js is missing if this machine has no Node.js;
// in CI that fails the test.
func examples(t *testing.T) []example {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Redis servers, workers and consumers; scripts/test --all runs it")
	}
	t.Parallel()
	all := []string{"consumer-go", "consumer-node"}
	if why := missingNode(); why != "" {
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Logf("examples/consumer-node is not tested: %s", why)
		all = all[:1]
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "terbayar-examples-"); built.err == nil {
			built.err = build(built.dir, all)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	found := []example{{all[0], []string{filepath.Join(built.dir, all[0])}}}
	if len(all) > 1 {
		node, err := exec.LookPath("node")
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, example{all[1], []string{node, filepath.Join(built.dir, all[1], "consumer.js")}})
	}
	return found
}

// missingNode says what the example for Node.js lacks.
func missingNode() string {
	version, err := exec.Command("node", "--version").Output()
	var major int
	if _, scanErr := fmt.Sscanf(string(version), "v%d.", &major); err != nil || scanErr != nil || major < 20 {
		return fmt.Sprintf("Node.js 20 or later is not installed (node --version: %q, %v)", version, err)
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return "npm is not installed"
	}
	return ""
}

func build(dir string, names []string) error {
	commands := []*exec.Cmd{exec.Command("go", "build", "-o", dir, "./consumer-go")}
	if len(names) > 1 {
		npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
		npm.Dir = filepath.Join(dir, "consumer-node")
		commands = append(commands, exec.Command("cp", "-r", "consumer-node", dir), exec.Command("rm", "-rf", filepath.Join(npm.Dir, "node_modules")), npm)
	}
	for _, cmd := range commands {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
	}
	return nil
}

// env is an environment with a worker.
type env struct {
	*programs.Env

	streams []string
}

func newEnv(t *testing.T, url string, partitions int) *env {
	t.Helper()
	e := &env{
		Env:     programs.New(t, url, programs.Options{Partitions: partitions}),
		streams: ledger.StreamNames(ledger.DefaultStream, partitions),
	}
	e.Worker()
	return e
}

// submit submits n payments and waits until they have ended.
func (e *env) submit(name string, n int) {
	e.Helper()
	e.awaitEnd(e.submitNow(name, n))
}

func (e *env) submitNow(name string, n int) []verify.Payment {
	e.Helper()
	orders := e.NewOrderSystem()
	if left := orders.Submit(e.Context(), programs.NewPayments(name, n, 24*time.Hour)); left > 0 {
		e.Fatalf("%d payments are not acknowledged", left)
	}
	return orders.Submitted()
}

func (e *env) awaitEnd(payments []verify.Payment) {
	e.Helper()
	if n := e.AwaitEnd(payments, programs.Timeout); n > 0 {
		e.Fatalf("%d payments have not ended", n)
	}
}

// system is an order system: a consumer group with the state that its consumers share.
type system struct {
	example

	env       *env
	group     string
	dir       string
	settings  []string
	consumers []*programs.Process
}

// newSystem returns an order system. The settings are environment variables of its consumers.
func (e *env) newSystem(ex example, settings ...string) *system {
	e.Helper()
	s := &system{example: ex, env: e, dir: e.TempDir()}
	s.settings = append([]string{"STATE_DIR=" + s.dir, "CLAIM_AFTER=1"}, settings...)
	s.setGroup(ex.name)
	return s
}

func (s *system) setGroup(name string) {
	s.group = name
	s.settings = append(s.settings, "GROUP="+name)
}

// start starts a consumer.
func (s *system) start(settings ...string) *programs.Process {
	s.env.Helper()
	settings = append(slices.Clone(s.settings), settings...)
	settings = append(settings, fmt.Sprintf("CONSUMER=%d", len(s.consumers)))
	p := s.env.Start(s.argv[0], s.argv[1:], settings...)
	s.consumers = append(s.consumers, p)
	return p
}

// awaitAll waits until every event has had its effect and nothing is pending, and fails if
// an effect was reported twice.
func (s *system) awaitAll() {
	s.env.Helper()
	want := s.env.changes()
	s.env.Eventually(fmt.Sprintf("%s has processed all events: %d", s.name, len(want)), func() bool {
		for _, p := range s.consumers {
			if p.HasEnded() && p.Stderr.Has("rror") { // of Node.js
				s.env.Fatalf("%s: %s", p.Name, p.Stderr.Tail())
			}
		}
		return len(s.done()) >= len(want) && s.unread() == 0
	})
	if got := s.done(); !slices.Equal(got, want) {
		s.env.Errorf("%s: effects %q, want %q", s.name, got, want)
	}
	printed := map[string]int{}
	for _, p := range s.consumers {
		for line := range strings.Lines(p.Stdout.String()) {
			if strings.Contains(line, "on_processing") {
				continue // has its event's id as its key
			}
			if printed[line]++; printed[line] > 1 {
				s.env.Errorf("%s: printed twice: %s", s.name, line)
			}
		}
	}
}

// changes returns what the events in the streams may cause once, sorted.
func (e *env) changes() []string {
	e.Helper()
	all := map[string]bool{}
	for _, event := range e.Stream() {
		all[change(event.ID, event.Source, event.Subject, event.Type)] = true
	}
	return slices.Sorted(maps.Keys(all))
}

func change(id, source, subject, kind string) string {
	if status := strings.TrimPrefix(kind, "terbayar.payment."); status == "on_processing" || status == "needs_review" {
		return id
	}
	return strings.Join([]string{source, subject, kind}, " ")
}

// done returns what was processed, sorted.
func (s *system) done() (all []string) {
	s.env.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "done", "*.json"))
	if err != nil {
		s.env.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			s.env.Fatal(err)
		}
		var e struct{ ID, Source, Subject, Type string }
		if err := json.Unmarshal(text, &e); err != nil {
			s.env.Fatal(err)
		}
		all = append(all, change(e.ID, e.Source, e.Subject, e.Type))
	}
	slices.Sort(all)
	return all
}

// unread returns the number of events that the group has not acknowledged or not been given;
// -1 if that is not known: the group is missing, or Redis is down.
func (s *system) unread() (n int) {
	ctx := s.env.Context()
	for _, stream := range s.env.streams {
		groups, err := s.env.Redis.XInfoGroups(ctx, stream).Result()
		i := slices.IndexFunc(groups, func(g redis.XInfoGroup) bool { return g.Name == s.group })
		if err != nil || i < 0 {
			return -1
		}
		later, err := s.env.Redis.XRange(ctx, stream, "("+groups[i].LastDeliveredID, "+").Result()
		if err != nil {
			return -1
		}
		n += int(groups[i].Pending) + len(later)
	}
	return n
}

// TestKill kills a consumer at two moments: when Redis has given it events, and when it has
// processed the first one and not acknowledged it. Another consumer takes over.
func TestKill(t *testing.T) {
	all := examples(t)
	server := redistest.Server(t)
	e := newEnv(t, server.URL(), 1)
	e.limitAccess(e.Redis)
	e.submit("INV", 20)
	var systems []*system
	for _, moment := range []struct {
		command      string
		beforeAnswer bool
		done         int
	}{{"XREADGROUP", true, 0}, {"XACK", false, 1}} {
		for _, ex := range all {
			s := e.newSystem(ex, limited...)
			s.setGroup(ex.name + "-" + moment.command)
			started := make(chan *programs.Process, 1)
			killed := redistest.NewInterceptor(t, server.Addr, moment.beforeAnswer,
				func(command []string) bool { return strings.EqualFold(command[0], moment.command) },
				func() { (<-started).Kill() })
			started <- s.start("REDIS_ADDRS=" + killed.Addr)
			<-killed.Done
			if done, unread := len(s.done()), s.unread(); done != moment.done || unread < 20 {
				t.Errorf("%s: %d events are processed, %d are unread", s.group, done, unread)
			}
			s.start("REDIS_ADDRS=" + server.Addr)
			systems = append(systems, s)
		}
	}
	for _, s := range systems {
		s.awaitAll()
		s.consumers[1].Stop()
	}
}

// TestGroupLost promotes a replica that does not have the groups. Events that are written
// before the consumers have created them again are processed.
func TestGroupLost(t *testing.T) {
	all := examples(t)
	g := redistest.NewReplicated(t, 1)
	e := newEnv(t, g.URL(), 1)
	e.submit("BEFORE", 10)
	for _, n := range g.Nodes { // access rules are not replicated
		e.limitAccess(n.Client(t))
	}
	primary := g.Nodes[0]
	primary.Proxy.Hold(g.Nodes[1].Proxy)
	var systems []*system
	for _, ex := range all {
		s := e.newSystem(ex, append(limited, "REDIS_ADDRS="+g.Sentinel.Addr, "REDIS_MASTER="+redistest.SentinelMaster)...)
		s.start()
		systems = append(systems, s)
	}
	for _, s := range systems {
		s.awaitAll()
		e.Eventually("the position is stored", func() bool {
			files, err := filepath.Glob(filepath.Join(s.dir, "position*"))
			return err == nil && len(files) == 1
		})
		s.consumers[0].Freeze()
	}
	primary.Kill()
	g.AwaitPromotion(t, primary)
	g.Rejoin(t, primary)
	e.submit("AFTER", 10)
	for _, s := range systems {
		if n := s.unread(); n != -1 {
			t.Fatalf("%s: the group was not lost, %d events are unread", s.name, n)
		}
	}
	for _, s := range systems {
		s.consumers[0].Signal(syscall.SIGCONT)
	}
	for _, s := range systems {
		s.awaitAll()
		s.consumers[0].Stop()
		if log := s.consumers[0].Stderr.String(); strings.Count(log, "created at") != 2 || strings.Count(log, "created at 0\n") != 1 {
			t.Errorf("%s: %s", s.name, log)
		}
	}
}

// limited are the settings of consumers that log in as the user of docs/consuming.md.
var limited = []string{"REDIS_USERNAME=orders", "REDIS_PASSWORD=SECRET"}

// limitAccess creates the user of docs/consuming.md, who can read events and nothing else.
func (e *env) limitAccess(nodes ...redis.UniversalClient) {
	e.Helper()
	doc, err := os.ReadFile("../docs/consuming.md")
	if err != nil {
		e.Fatal(err)
	}
	rule := regexp.MustCompile(`(?m)^ACL SETUSER orders .*$`).FindString(string(doc))
	if rule == "" {
		e.Fatal("docs/consuming.md has no ACL SETUSER")
	}
	var words []any
	for word := range strings.FieldsSeq(rule) {
		words = append(words, word)
	}
	for _, node := range nodes {
		if err := node.Do(e.Context(), words...).Err(); err != nil {
			e.Fatalf("%s: %v", rule, err)
		}
	}
}

// TestPartitions: two consumers share the events of three streams of a Cluster while they are
// written, and one is stopped meanwhile.
func TestPartitions(t *testing.T) {
	all := examples(t)
	cluster := redistest.NewCluster(t)
	e := newEnv(t, cluster.URL(), 3)
	var systems []*system
	for _, p := range cluster.Primaries {
		e.limitAccess(p.Client(t))
	}
	for _, ex := range all {
		s := e.newSystem(ex, append(limited, "REDIS_CLUSTER=yes", "REDIS_ADDRS="+cluster.Primaries[0].Addr+","+cluster.Primaries[1].Addr)...)
		s.start()
		s.start()
		systems = append(systems, s)
	}
	payments := e.submitNow("INV", 40)
	for _, s := range systems {
		e.Eventually(s.name+" has processed some events", func() bool { return len(s.done()) > 5 })
		s.consumers[0].Stop()
		for _, stream := range e.streams {
			pending, err := e.Redis.XPendingExt(t.Context(), &redis.XPendingExtArgs{
				Stream: stream, Group: s.group, Start: "-", End: "+", Count: 1, Consumer: "0",
			}).Result()
			if err != nil || len(pending) > 0 {
				t.Errorf("%s: the stopped consumer has pending events: %v, %v", s.name, pending, err)
			}
		}
	}
	e.awaitEnd(payments)
	for _, s := range systems {
		s.awaitAll()
		s.consumers[1].Stop()
	}
}

// TestPoison: entries that cannot be processed are parked, and the events around them are
// processed. SIGTERM ends a consumer while Redis is down.
func TestPoison(t *testing.T) {
	all := examples(t)
	server := redistest.Server(t)
	e := newEnv(t, server.URL(), 1)
	e.submit("BEFORE", 2)
	want := e.changes()
	for _, values := range [][]string{{"event", "not JSON"}, {"event", "{}"}, {"other", "program"}} {
		if err := e.Redis.XAdd(t.Context(), &redis.XAddArgs{Stream: ledger.DefaultStream, Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	var systems []*system
	for _, ex := range all {
		s := e.newSystem(ex, "REDIS_ADDRS="+server.Addr, "CLAIM_AFTER=0")
		s.start()
		systems = append(systems, s)
	}
	for _, s := range systems {
		e.Eventually(s.name+" has parked three entries", func() bool { return s.unread() == 0 && len(s.parked()) == 3 })
		if got := s.parked(); !slices.Equal(got, []string{"", "not JSON", "{}"}) {
			t.Errorf("%s has parked %q", s.name, got)
		}
		if got := s.done(); !slices.Equal(got, want) {
			t.Errorf("%s: effects %q, want %q", s.name, got, want)
		}
	}
	logged := func(s *system) int { return strings.Count(s.consumers[0].Stderr.String(), "terbayar:events: ") }
	before := map[*system]int{}
	server.Kill()
	for _, s := range systems {
		before[s] = logged(s)
	}
	for _, s := range systems {
		e.Eventually(s.name+" has tried again", func() bool { return logged(s) > before[s]+2 })
		s.consumers[0].Signal(syscall.SIGTERM)
		if code := s.consumers[0].Exit(); code != 0 {
			t.Errorf("%s: exit code %d", s.name, code)
		}
	}
}

// parked returns the contents of what was parked, sorted.
func (s *system) parked() (all []string) {
	s.env.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "parked", "*"))
	if err != nil {
		s.env.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			s.env.Fatal(err)
		}
		all = append(all, string(text))
	}
	slices.Sort(all)
	return all
}

// TestStreamNames: the consumers read the streams that the ledger writes, also with a hash tag
// in the name.
func TestStreamNames(t *testing.T) {
	all := examples(t)
	server := redistest.Server(t)
	e := &env{Env: programs.New(t, server.URL(), programs.Options{Partitions: 3})}
	for _, ex := range all {
		for _, name := range []string{"other", "pay:{terbayar:events}"} {
			e.streams = ledger.StreamNames(name, 3)
			s := e.newSystem(ex, "REDIS_ADDRS="+server.Addr, "EVENTS_STREAM="+name)
			p := s.start()
			e.Eventually(fmt.Sprintf("%s has created its group in %q", ex.name, e.streams), func() bool { return s.unread() == 0 })
			p.Stop()
		}
	}
}
