package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"terbayar/internal/durable"
	"terbayar/internal/redistest"
	"terbayar/internal/secret"
	"terbayar/internal/testenv"
)

// interrupter presses Ctrl-C before the first command to Redis.
type interrupter struct{ press func() }

func (i interrupter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (i interrupter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { i.press(); return next(ctx, cmd) }
}

func (i interrupter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { i.press(); return next(ctx, cmds) }
}

// create submits the input, and presses Ctrl-C before the first command to Redis if interrupt is
// true.
func create(t *testing.T, command createCmd, in io.Reader, interrupt bool) (answers, notes string, err error) {
	t.Helper()
	ctx, press := context.WithCancel(t.Context())
	defer press()
	client := redistest.Mini(t)
	if interrupt {
		client.AddHook(interrupter{press})
	}
	var all cli
	all.Events.Stream = "events"
	all.Payload.Keys = secret.NewKey()
	all.Redis.URL, all.Redis.Durability = secret.NewText("redis://"+client.(*redis.Client).Options().Addr), durable.None
	var out, noted strings.Builder
	command.File = "-"
	err = command.run(ctx, &all, client, in, &out, &noted)
	return out.String(), noted.String(), err
}

// TestInterruptedInFlight: a payment in flight to Redis at Ctrl-C is still answered.
func TestInterruptedInFlight(t *testing.T) {
	in, more := io.Pipe()
	go func() { _, _ = more.Write(append(testenv.PaydiaOrder("ORD-1"), '\n')) }() // the input stays open
	answers, notes, err := create(t, createCmd{}, in, true)
	const want = "interrupted: 1 answered (1 enqueued), nothing submitted from line 2 on"
	if !strings.Contains(answers, `"transaction_id":"ORD-1","result":"enqueued"`) || strings.Count(answers, "\n") != 1 || notes != "" ||
		!errors.Is(err, errInterrupted) || !strings.Contains(err.Error(), want) || exitCode(err) != exitRefused {
		t.Errorf("%s%s%v", answers, notes, err)
	}
}

// paydia returns an input line with a payment to Paydia.
func paydia(id string) string { return string(testenv.PaydiaOrder(id)) + "\n" }

// TestRejects: the file of --rejects has what was not accepted, as it was.
func TestRejects(t *testing.T) {
	wrong := strings.Replace(paydia("WRONG"), `"title"`, `"Title"`, 1)
	other := strings.Replace(paydia("A"), "10000.00", "20000.00", 1)
	gz := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	crlf := func(line string) string { return strings.TrimSuffix(line, "\n") + "\r\n" }
	long := strings.Repeat("x", 3<<20) + "\n"
	for name, c := range map[string]struct{ in, want string }{
		"nothing":           {"", ""},
		"all accepted":      {paydia("A") + paydia("B"), ""},
		"some":              {paydia("A") + wrong + "\n" + paydia("B") + other + paydia("A"), wrong + other},
		"compressed":        {gz(paydia("A")+wrong) + gz(wrong), wrong + wrong},
		"CRLF and a mark":   {"\ufeff" + crlf(wrong) + crlf(paydia("A")) + crlf(wrong), "\ufeff" + crlf(wrong) + crlf(wrong)},
		"no line break":     {paydia("A") + strings.TrimSuffix(wrong, "\n"), strings.TrimSuffix(wrong, "\n")},
		"over lines":        {paydia("A") + "{\n\n\"x\":1}\n" + paydia("B"), "{\n\n\"x\":1}\n"},
		"broken over lines": {"{\n\"x\"\n\n\"y\":1}\n" + paydia("A") + wrong, "{\n\"x\"\n\n\"y\":1}\n" + wrong},
		"cut off":           {"{\"x\":\n" + paydia("A"), "{\"x\":\n"},
		"array":             {paydia("A") + "[\n" + paydia("B") + "]\n", "[\n" + paydia("B") + "]\n"},
		"too long":          {paydia("A") + long + paydia("B") + wrong, long + wrong},
		"two batches":       {strings.Repeat(paydia("A")+wrong, 200), strings.Repeat(wrong, 200)},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "rejects")
			answers, notes, err := create(t, createCmd{Rejects: file}, strings.NewReader(c.in), false)
			if got, readErr := os.ReadFile(file); readErr != nil || string(got) != c.want {
				t.Errorf("%v: %q, want %q\n%s%s%v", readErr, got, c.want, answers, notes, err)
			}
			if (c.want != "") != errors.Is(err, errRefused) || (c.want != "") != (err != nil && strings.Contains(err.Error(), file)) {
				t.Error(err)
			}
			if about, err := os.Stat(file); err != nil || about.Mode() != 0o600 {
				t.Errorf("%v: it has customers' data", about.Mode())
			}
		})
	}
}

// TestRejectsInterrupted: after Ctrl-C the file has what was refused before it.
func TestRejectsInterrupted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rejects")
	in, more := io.Pipe()
	go func() { _, _ = more.Write([]byte("wrong\n" + paydia("A"))) }() // the input stays open
	answers, _, err := create(t, createCmd{Rejects: file}, in, true)
	got, readErr := os.ReadFile(file)
	if readErr != nil || string(got) != "wrong\n" || !errors.Is(err, errInterrupted) || !strings.Contains(err.Error(), file) {
		t.Errorf("%q, %v, %v\n%s", got, readErr, err, answers)
	}
}

// TestRejectsExists: a file with content is not changed, and nothing is submitted.
func TestRejectsExists(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rejects")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	answers, _, err := create(t, createCmd{Rejects: file}, strings.NewReader("wrong\n"), false)
	if got, _ := os.ReadFile(file); string(got) != "mine" || answers != "" || exitCode(err) != exitUsage {
		t.Errorf("%q, %s%v", got, answers, err)
	}
	if err := os.Truncate(file, 0); err != nil {
		t.Fatal(err)
	}
	_, _, err = create(t, createCmd{Rejects: file}, strings.NewReader("wrong\n"), false)
	if got, _ := os.ReadFile(file); string(got) != "wrong\n" {
		t.Errorf("%q, %v: an empty file can be used", got, err)
	}
}

// TestDryRun: --dry-run needs no Redis and no key.
func TestDryRun(t *testing.T) {
	t.Setenv("REDIS_URL", "redis://127.0.0.1:1/0")
	t.Setenv("PAYLOAD_KEYS", "")
	os.Unsetenv("PAYLOAD_KEYS")
	dryRun := func(in string) (answers string, err error) {
		var out, notes strings.Builder
		err = run(t.Context(), []string{"create", "--dry-run", "--paydia-merchant-id=M"}, strings.NewReader(in), &out, &notes)
		if strings.Contains(out.String()+notes.String(), "eyJ") {
			t.Error("contains the customer's token")
		}
		return out.String(), err
	}
	good := `{"line":1,"gateway":"paydia","transaction_id":"A","result":"valid"}` + "\n"
	if answers, err := dryRun(paydia("A")); err != nil || answers != good {
		t.Errorf("%s%v", answers, err)
	}
	answers, err := dryRun(paydia("A") + strings.NewReplacer("10000.00", "1", `"title"`, `"Title"`).Replace(paydia("B")))
	for _, field := range []string{"payment.Title", "payment.title", "payment.amount.value"} {
		if !strings.Contains(answers, `"result":"invalid"`) || !strings.Contains(answers, `{"field":"`+field+`"`) || exitCode(err) != exitRefused {
			t.Errorf("%s: %s%v", field, answers, err)
		}
	}
}

// TestDamagedGzip: the error says how far the program got.
func TestDamagedGzip(t *testing.T) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, paydia("A"))
	_ = w.Flush()
	_, _ = io.WriteString(w, paydia("B")) // not flushed
	answers, _, err := create(t, createCmd{}, &b, false)
	const want = "read standard input: line 2: the gzip data is damaged or cut off: unexpected EOF; 1 answered (1 enqueued), nothing submitted from line 2 on"
	if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Count(answers, "\n") != 1 {
		t.Errorf("%s%v", answers, err)
	}
}

// TestCompletion: the program completes commands, flags and the names of files.
func TestCompletion(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("payments.ndjson", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"enqueue cr":                 "create",
		"enqueue create --dr":        "--dry-run",
		"enqueue create --rejects p": "payments.ndjson",
		"enqueue create p":           "payments.ndjson",
	} {
		t.Setenv("COMP_LINE", line)
		t.Setenv("COMP_POINT", strconv.Itoa(len(line)))
		var out strings.Builder
		if err := run(t.Context(), nil, strings.NewReader(""), &out, io.Discard); err != nil || strings.TrimSpace(out.String()) != want {
			t.Errorf("%s: %q, %v", line, out.String(), err)
		}
	}
}
