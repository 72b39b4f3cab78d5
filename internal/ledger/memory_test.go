package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
)

// earlier is a payment that was claimed before the one a test is about.
var earlier = payment.Key{Gateway: payment.Paydia, TransactionID: "EARLIER"}

// forgetful is a Redis that can be told to have another lineage, as after a restart
// or a failover; miniredis has none.
func forgetful(t *testing.T) redis.UniversalClient {
	t.Helper()
	return redistest.Server(t, "--enable-debug-command", "yes").Client(t)
}

// comeBack makes Redis one that has restarted and lost nothing.
func comeBack(t fataler, client redis.UniversalClient) {
	if err := client.Do(t.Context(), "DEBUG", "CHANGE-REPL-ID").Err(); err != nil {
		t.Fatal(err)
	}
}

// snapshot notes all that Redis holds. What it returns brings Redis back there,
// as a restart does that loses the last writes.
func snapshot(t fataler, client redis.UniversalClient) (forget func()) {
	ctx := t.Context()
	check := func(errs ...error) {
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := client.Keys(ctx, "*").Result()
	check(err)
	var restore []func(redis.Pipeliner)
	for _, key := range keys {
		switch kind := client.Type(ctx, key).Val(); kind {
		case "hash":
			fields, err := client.HGetAll(ctx, key).Result()
			check(err)
			restore = append(restore, func(p redis.Pipeliner) { p.HSet(ctx, key, fields) })
		case "zset":
			members, err := client.ZRangeWithScores(ctx, key, 0, -1).Result()
			check(err)
			restore = append(restore, func(p redis.Pipeliner) { p.ZAdd(ctx, key, members...) })
		case "stream":
			entries, err := client.XRange(ctx, key, "-", "+").Result()
			check(err)
			for _, e := range entries {
				restore = append(restore, func(p redis.Pipeliner) { p.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: e.ID, Values: e.Values}) })
			}
		case "string":
			value, err := client.Get(ctx, key).Result()
			check(err)
			restore = append(restore, func(p redis.Pipeliner) { p.Set(ctx, key, value, 0) })
		default:
			t.Fatal("a key of type " + kind)
		}
	}
	return func() {
		_, err := client.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.FlushAll(ctx)
			for _, again := range restore {
				again(p)
			}
			return nil
		})
		check(err)
		comeBack(t, client)
	}
}

// touch claims another payment, so that there was one to remember.
func touch(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	for _, r := range l.Create(t.Context(), []ledger.Entry{entry(earlier, "a")}) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if _, verdict, err := l.Claim(t.Context(), earlier, payment.Attempt{At: start}, time.Minute); err != nil || verdict != ledger.Claimed {
		t.Fatal(verdict, err)
	}
}

// tick is what every living worker does each second.
func tick(t fataler, l *ledger.Ledger) []payment.Gateway {
	due, err := l.Due(t.Context(), payment.Gateways())
	if err != nil {
		t.Fatal(err)
	}
	return due
}

// held wants a claim to be refused because Redis has come back.
func held(t *testing.T, l *ledger.Ledger) time.Duration {
	t.Helper()
	_, verdict, err := l.Claim(t.Context(), inv1, payment.Attempt{At: start, Kind: payment.KindSubmit}, 20*time.Second)
	h, ok := errors.AsType[*ledger.Held](err)
	if !ok {
		t.Fatalf("claim: %q, %v; want it held", verdict, err)
	}
	return h.Wait
}

// whole is everything the ledger has of a payment.
func whole(t *testing.T, l *ledger.Ledger, client redis.UniversalClient) string {
	t.Helper()
	r, err := l.Read(t.Context(), inv1)
	if err != nil {
		t.Fatal(err)
	}
	census, err := l.Census(t.Context(), inv1.Gateway)
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(census.Counts, func(_ payment.Status, n int64) bool { return n == 0 })
	open, err := client.ZRangeWithScores(t.Context(), "{terbayar:events}:open:amdigipay", 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v\n%+v\n%v %v %v\n%v", r.Payment, r, census.Counts, census.OldestUnknown, open, told(t, client))
}

// TestForgottenClaim: Redis forgets a claim, with or without the payment itself,
// while its request is under way. Nobody else gets the payment, and what the
// gateway answers is recorded.
func TestForgottenClaim(t *testing.T) {
	client := forgetful(t)
	for _, row := range []struct {
		name   string
		before bool // Redis forgets the payment too
		notice func(*testing.T, *ledger.Ledger)
	}{
		{"and the next tick notices", false, func(t *testing.T, l *ledger.Ledger) { tick(t, l) }},
		{"and a claim notices", false, func(t *testing.T, l *ledger.Ledger) { claim(t, l, ledger.Busy) }},
		{"and the record notices", false, nil},
		{"with the payment", true, func(t *testing.T, l *ledger.Ledger) { tick(t, l) }},
		{"with the payment, and the record notices", true, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			client.FlushAll(t.Context())
			comeBack(t, client)
			forget := snapshot(t, client)
			l, c := house(t, client)
			touch(t, l)
			if !row.before {
				forget = snapshot(t, client)
			}
			r := claim(t, l, ledger.Claimed)
			want := whole(t, l, client)
			forget()

			other := ledger.New(client, ledger.DefaultStream, c.now)
			if !row.before {
				if wait := held(t, other); wait != 6*time.Second {
					t.Errorf("held for %s", wait)
				}
			}
			if row.notice != nil {
				row.notice(t, l)
				if diff := cmp.Diff(want, whole(t, l, client)); diff != "" {
					t.Error(diff)
				}
			}
			c.forward(7 * time.Second)
			if row.notice != nil {
				claim(t, other, ledger.Busy)
			}
			move(t, l, r, payment.Paid, time.Time{})
			claim(t, other, ledger.Settled)
			if got := told(t, client); len(got) != 1 || got[0].ID != inv1.String()+":1:paid" {
				t.Errorf("events: %+v", got)
			}
		})
	}
}

// TestForgottenRecord: Redis forgets what came of a payment in the last ten
// seconds, and whose claim it was. All is put back, and the event is told again as
// it was told before.
func TestForgottenRecord(t *testing.T) {
	client := forgetful(t)
	l, c := house(t, client)
	var returned []string
	l.OnReturn = func(forgotten int, hold time.Duration) { returned = append(returned, fmt.Sprint(forgotten, " ", hold)) }
	forgets := func(forget func(), want string) {
		t.Helper()
		forget()
		tick(t, l)
		if diff := cmp.Diff(want, whole(t, l, client)); diff != "" {
			t.Error(diff)
		}
	}
	read := func() *ledger.Record {
		t.Helper()
		r, err := l.Read(t.Context(), inv1)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	look := func(r *ledger.Record, to payment.Status) error { // as a poll records it
		r.Status, r.Due = to, time.Time{}
		return l.SaveAll(t.Context(), []*ledger.Record{r})[0]
	}
	putOff := func(err error, want time.Duration) { // a finding of a Redis that has just come back
		t.Helper()
		if h, ok := errors.AsType[*ledger.Held](err); !ok || h.Wait != want {
			t.Errorf("a finding: %v, want it put off for %s", err, want)
		}
	}
	r := claim(t, l, ledger.Claimed)
	r.Since = c.t
	move(t, l, r, payment.Verifying, c.t)
	forget := snapshot(t, client)
	move(t, l, read(), payment.Queued, c.t) // "resubmit"
	claim(t, l, ledger.Claimed)
	forgets(forget, whole(t, l, client))
	putOff(look(read(), payment.Verifying), 6*time.Second)

	c.forward(7 * time.Second)
	tick(t, l)
	forget = snapshot(t, client)
	r = read()
	move(t, l, r, payment.Queued, c.t) // "retry"
	r = claim(t, l, ledger.Claimed)
	c.forward(5 * time.Second)
	r.GatewayStatus = "2006300"
	move(t, l, r, payment.OnProcessing, c.t.Add(time.Minute))
	stale := read()
	if err := look(read(), payment.Paid); err != nil {
		t.Fatal(err)
	}
	c.forward(5 * time.Second)
	forgets(forget, whole(t, l, client))

	want := whole(t, l, client)
	c.forward(6 * time.Second)
	tick(t, l)
	comeBack(t, client)
	putOff(look(stale, payment.Failed), 6*time.Second)
	c.forward(5 * time.Second)
	putOff(look(stale, payment.Failed), time.Second)
	c.forward(time.Second)
	if err := look(stale, payment.Failed); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("an old finding was recorded: %v", err)
	}
	tick(t, l)
	tick(t, l)
	if diff := cmp.Diff(want, whole(t, l, client)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"1 6s", "1 6s", "0 6s"}, returned); diff != "" {
		t.Error(diff)
	}
}

// TestPutBackOverNothingTold: what was told to somebody is not taken back by an older
// claim that comes late.
func TestPutBackOverNothingTold(t *testing.T) {
	client := forgetful(t)
	l, c := house(t, client)
	r := claim(t, l, ledger.Claimed)
	r.Since = c.t
	move(t, l, r, payment.Verifying, c.t)
	forget := snapshot(t, client)
	r, err := l.Read(t.Context(), inv1)
	if err != nil {
		t.Fatal(err)
	}
	move(t, l, r, payment.Queued, c.t)
	claim(t, l, ledger.Claimed)

	forget()
	other := ledger.New(client, ledger.DefaultStream, c.now)
	tick(t, other)
	if r, err = other.Read(t.Context(), inv1); err != nil {
		t.Fatal(err)
	}
	c.forward(7 * time.Second)
	move(t, other, r, payment.Paid, time.Time{})
	want := whole(t, other, client)
	tick(t, l)
	if diff := cmp.Diff(want, whole(t, other, client)); diff != "" {
		t.Error(diff)
	}
}

// TestTwoHistories: a worker was away for longer than the vigil, and what it had
// claimed was claimed again. It is fenced off, although both count the same revision.
func TestTwoHistories(t *testing.T) {
	client := forgetful(t)
	l, c := house(t, client)
	forget := snapshot(t, client)
	r := claim(t, l, ledger.Claimed)
	forget()
	other := ledger.New(client, ledger.DefaultStream, c.now)
	tick(t, other)
	c.forward(7 * time.Second)
	again := claim(t, other, ledger.Claimed)
	r.Status = payment.Rejected
	if err := l.Save(t.Context(), r); !errors.Is(err, ledger.ErrFenced) {
		t.Errorf("saved over another claim: %v", err)
	}
	move(t, other, again, payment.Paid, time.Time{})
}

// TestVigil: who has to wait when Redis comes back, and who has not.
func TestVigil(t *testing.T) {
	client := forgetful(t)
	l, c := house(t, client)
	another := func() *ledger.Ledger { return ledger.New(client, ledger.DefaultStream, c.now) }
	waits := func(l *ledger.Ledger, want time.Duration) {
		t.Helper()
		if wait := held(t, l); wait != want {
			t.Errorf("waits for %s, want %s", wait, want)
		}
	}
	move(t, l, claim(t, l, ledger.Claimed), payment.Queued, c.t) // the very first claim waits for nobody
	waits(another(), 6*time.Second)                              // the second worker cannot know that
	c.forward(6 * time.Second)
	move(t, l, claim(t, another(), ledger.Claimed), payment.Queued, c.t)

	comeBack(t, client)
	if due := tick(t, l); len(due) != 1 { // the gateways may be asked meanwhile
		t.Errorf("%v is due", due)
	}
	waits(l, 6*time.Second)
	c.forward(4 * time.Second)
	waits(l, 2*time.Second)
	waits(another(), 2*time.Second) // for what is left of it
	comeBack(t, client)
	waits(l, 6*time.Second)
	c.forward(6 * time.Second)
	comeBack(t, client) // just when it is over
	waits(another(), 6*time.Second)
	waits(l, 6*time.Second)
	c.forward(6 * time.Second)
	move(t, l, claim(t, l, ledger.Claimed), payment.Queued, c.t)
	claim(t, another(), ledger.Claimed)
}

// TestOldDeeds: what was done long ago is not brought back, but a claim is for as long
// as its request may be under way; and however long Redis was away.
func TestOldDeeds(t *testing.T) {
	client := forgetful(t)
	for _, row := range []struct {
		lease, age time.Duration
		alive      bool // Redis was, at that age
		want       ledger.Verdict
	}{
		{20 * time.Second, 19 * time.Second, true, ledger.Busy},
		{5 * time.Second, 9 * time.Second, true, ledger.Lapsed},
		{20 * time.Second, 21 * time.Second, true, ledger.Claimed},
		{20 * time.Second, time.Minute, false, ledger.Lapsed},
	} {
		client.FlushAll(t.Context())
		comeBack(t, client)
		l, c := house(t, client)
		forget := snapshot(t, client)
		if _, verdict, err := l.Claim(t.Context(), inv1, payment.Attempt{At: start}, row.lease); err != nil || verdict != ledger.Claimed {
			t.Fatal(verdict, err)
		}
		c.forward(row.age)
		if row.alive {
			tick(t, l)
		}
		forget()
		tick(t, l)
		if row.want == ledger.Claimed { // of what was forgotten for good nobody knows
			c.forward(6 * time.Second)
		}
		claim(t, l, row.want)
	}
}

// TestManyDeeds: thousands are put back in a few round trips.
func TestManyDeeds(t *testing.T) {
	client := forgetful(t)
	l, _ := house(t, client)
	const n = 2500
	entries := make([]ledger.Entry, n)
	for i := range entries {
		entries[i] = entry(payment.Key{Gateway: payment.Paydia, TransactionID: fmt.Sprint(i)}, "a")
	}
	for _, r := range l.Create(t.Context(), entries) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	forget := snapshot(t, client)
	for _, e := range entries {
		r, verdict, err := l.Claim(t.Context(), e.Key, payment.Attempt{At: start}, time.Minute)
		if err != nil || verdict != ledger.Claimed {
			t.Fatal(verdict, err)
		}
		move(t, l, r, payment.Rejected, time.Time{})
	}
	forget()
	client.ScriptFlush(t.Context())
	calls := redistest.Count(client)
	tick(t, l)
	// Look (twice), and three pipelines each of claims and saves; the first of both,
	// and look itself, has to bring its script.
	if calls.N() > 20 {
		t.Errorf("%d round trips to put back %d payments", calls.N(), n)
	}
	census, err := l.Census(t.Context(), payment.Paydia)
	if err != nil || census.Counts[payment.Rejected] != n {
		t.Errorf("%v, %v", census, err)
	}
}

// TestClaimThatArrived: a claim that Redis wrote down before it went away, and
// whose answer was lost, is its caller's all the same.
func TestClaimThatArrived(t *testing.T) {
	server := redistest.Server(t)
	client := server.Client(t)
	l, c := house(t, client)
	move(t, l, claim(t, l, ledger.Claimed), payment.Queued, c.t)
	client.AddHook(loseOne{done: new(bool), restart: func() {
		server.Kill()
		server.Start(t)
	}})
	claim(t, l, ledger.Claimed)
	if r, err := l.Read(t.Context(), inv1); err != nil || len(r.Attempts) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestSaveThatArrived: the answer to a poll's save is lost while Redis restarts. Tried
// again when the vigil is over it counts, and it is kept in mind.
func TestSaveThatArrived(t *testing.T) {
	client := forgetful(t)
	l, c := house(t, client)
	r := claim(t, l, ledger.Claimed)
	r.Since = c.t
	move(t, l, r, payment.Verifying, c.t)
	r, err := l.Read(t.Context(), inv1)
	if err != nil {
		t.Fatal(err)
	}
	forget := snapshot(t, client)
	r.Status, r.Due = payment.Paid, time.Time{}
	client.AddHook(&resent{between: func() { comeBack(t, client) }})
	save := func() error { return l.SaveAll(t.Context(), []*ledger.Record{r})[0] }
	if err := save(); !errors.As(err, new(*ledger.Held)) {
		t.Fatal(err)
	}
	c.forward(6 * time.Second)
	if err := save(); err != nil {
		t.Fatal(err)
	}
	want := whole(t, l, client)
	if err := save(); !errors.Is(err, ledger.ErrFenced) { // a save of its own
		t.Error(err)
	}
	forget()
	tick(t, l)
	if diff := cmp.Diff(want, whole(t, l, client)); diff != "" {
		t.Error(diff)
	}
}

// resent sends the first pipeline twice, as the client does whose answer was lost.
type resent struct {
	between func()
	done    bool
}

func (*resent) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*resent) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (h *resent) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if h.done || cmds[0].Name() != "evalsha" {
			return err
		}
		h.done = true
		h.between()
		return next(ctx, cmds)
	}
}

// TestLateAnswer: Redis has granted a claim, is replaced by one that knows nothing of
// it, and the answer comes while that one is being reminded. It counts no more.
func TestLateAnswer(t *testing.T) {
	client := forgetful(t)
	slow := redis.NewClient(&redis.Options{Addr: client.(*redis.Client).Options().Addr})
	defer slow.Close()
	l, c := house(t, slow)
	touch(t, l)
	forget := snapshot(t, client)
	late := &lateAnswer{granted: make(chan bool), reminded: make(chan bool)}
	slow.AddHook(late)
	claimed := make(chan error)
	go func() {
		_, verdict, err := l.Claim(context.WithValue(t.Context(), isLate{}, true), inv1, payment.Attempt{At: start}, 20*time.Second)
		if verdict == ledger.Claimed {
			if r, e := l.Read(t.Context(), inv1); e != nil || r.Status != payment.Submitting {
				err = errors.New("claimed, and the ledger does not know it")
			}
		}
		claimed <- err
	}()
	<-late.granted
	forget()
	tick(t, l)
	if err := <-claimed; err != nil && !errors.As(err, new(*ledger.Held)) {
		t.Error(err)
	}
	c.forward(7 * time.Second)
	tick(t, l)
}

// isLate marks the context of the claim that is meant.
type isLate struct{}

// lateAnswer holds a claim's answer back until Redis is being reminded.
type lateAnswer struct {
	granted, reminded       chan bool
	onceGranted, onceRemind sync.Once
}

func (*lateAnswer) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *lateAnswer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if ctx.Value(isLate{}) != nil {
			h.onceGranted.Do(func() {
				close(h.granted)
				<-h.reminded
			})
		}
		return err
	}
}

func (h *lateAnswer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		h.onceRemind.Do(func() {
			close(h.reminded)
			for range 1000 { // time enough for the claim to be believed before the reminding goes on
				runtime.Gosched()
			}
		})
		return next(ctx, cmds)
	}
}

// loseOne loses the answer to one script: Redis restarts, and the client asks once
// more.
type loseOne struct {
	restart func()
	done    *bool
}

func (loseOne) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l loseOne) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() != "evalsha" || *l.done || redis.HasErrorPrefix(err, "NOSCRIPT") {
			return err
		}
		*l.done = true
		l.restart()
		cmd.SetErr(nil)
		return next(ctx, cmd)
	}
}

func (loseOne) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
