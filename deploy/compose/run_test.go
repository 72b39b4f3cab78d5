package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// TestRun runs the services of compose.yaml as processes on this machine and submits
// payments.ndjson: both payments must be paid. It uses the command line of redis and the
// environments of worker and gatewaysim, with service addresses and mounted files replaced.
func TestRun(t *testing.T) {
	redisServer := program(t, "redis-server")
	p := load(t)
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "./cmd/worker", "./cmd/enqueue", "./cmd/gatewaysim")
	build.Dir = repo
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	local := addresses(t, "redis:6379", "gatewaysim:8090", "worker:8080", "prometheus:9090")

	redis := service(t, p, "redis").Command
	_, redisPort, _ := net.SplitHostPort(local["redis:6379"])
	start(t, nil, redisServer, append(redis[1:], "--port", redisPort, "--bind", "127.0.0.1", "--dir", dir)...)

	simulator := environment(p, service(t, p, "gatewaysim"), local)
	start(t, append(simulator, "GATEWAYSIM_ADDR="+local["gatewaysim:8090"]), filepath.Join(dir, "gatewaysim"))
	within(t, "gatewaysim answers", func() error { return get("http://"+local["gatewaysim:8090"]+"/admin/summary", nil) })

	env := append(environment(p, service(t, p, "worker"), local), "WORKER_HTTP_ADDR="+local["worker:8080"])
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, args[0]), args[1:]...)
		cmd.Env = env
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
		}
		return string(out), err
	}
	check, err := run("worker", "check")
	if err != nil || strings.Count(check, "\nok ") < 6 || strings.Contains(check, "\noff") {
		t.Fatalf("worker check: %v\n%s", err, check)
	}
	t.Logf("worker check:\n%s", check)
	worker := start(t, env, filepath.Join(dir, "worker"))
	within(t, "the worker is ready", func() error { return get("http://"+local["worker:8080"]+"/readyz", nil) })
	if err := get("http://dev:dev@"+local["worker:8080"]+"/monitoring/", nil); err != nil {
		t.Error(err)
	}

	out, err := run("enqueue", "create", "payments.ndjson")
	if err != nil || strings.Count(out, `"result":"enqueued"`) != 2 {
		t.Fatalf("enqueue create: %v\n%s", err, out)
	}
	for _, id := range [][2]string{{"amdigipay", "INV-1"}, {"paydia", "ORD-1"}} {
		within(t, id[1]+" is paid", func() error {
			out, err := run("enqueue", "status", id[0], id[1], "--json")
			if err == nil && !strings.Contains(out, `"status":"paid"`) {
				err = fmt.Errorf("status: %s", out)
			}
			return err
		})
	}
	t.Run("Prometheus", func(t *testing.T) { runPrometheus(t, local) })

	if err := worker.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := worker.Wait(); err != nil {
		t.Errorf("worker after SIGTERM: %v", err)
	}
}

// runPrometheus runs Prometheus with prometheus.yaml: it must scrape the worker and evaluate every
// alert of the chart, and no alert may be firing.
func runPrometheus(t *testing.T, local map[string]string) {
	prometheus := program(t, "prometheus")
	dir := t.TempDir()
	for from, to := range map[string]string{"prometheus.yaml": "prometheus.yml", "alerts.yaml": "alerts.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, to), []byte(replace(read(t, from), local)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, nil, prometheus, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+local["prometheus:9090"])
	api := "http://" + local["prometheus:9090"] + "/api/v1/"
	within(t, "Prometheus has scraped the worker", func() error {
		var answer struct {
			Data struct{ Result []any }
		}
		query := `query?query=max(terbayar_payments{status="paid",namespace="compose",job="terbayar-worker",pod="worker"})+by+(gateway)==1`
		if err := get(api+query, &answer); err != nil {
			return err
		}
		if len(answer.Data.Result) != 2 {
			return fmt.Errorf("%d gateways with a paid payment", len(answer.Data.Result))
		}
		return nil
	})
	within(t, "Prometheus has evaluated the alerts", func() error {
		var answer struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, State, LastError string }
				}
			}
		}
		if err := get(api+"rules", &answer); err != nil {
			return err
		}
		if len(answer.Data.Groups) != 1 || len(answer.Data.Groups[0].Rules) < 16 {
			return fmt.Errorf("rules: %+v", answer.Data)
		}
		for _, r := range answer.Data.Groups[0].Rules {
			if r.Health != "ok" || r.State != "inactive" {
				return fmt.Errorf("%+v", r)
			}
		}
		return nil
	})
}

// program returns the path of an installed program. In CI a missing program fails the test,
// elsewhere the test is skipped.
func program(t *testing.T, name string) string {
	t.Helper()
	file, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return file
}

// addresses returns a free loopback address for each address of a service.
func addresses(t *testing.T, services ...string) map[string]string {
	t.Helper()
	local := map[string]string{}
	for _, s := range services {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		local[s] = l.Addr().String()
	}
	return local
}

// environment returns the environment of a service with its addresses and mounted files replaced.
func environment(p *types.Project, s types.ServiceConfig, local map[string]string) []string {
	var env []string
	for name, value := range s.Environment {
		text := replace(*value, local)
		for target, source := range mounts(p, s) {
			text = strings.ReplaceAll(text, target, source)
		}
		env = append(env, name+"="+text)
	}
	return env
}

func replace(text string, local map[string]string) string {
	for from, to := range local {
		text = strings.ReplaceAll(text, from, to)
	}
	return text
}

// start starts a program and kills it at the end of the test. If the test fails, it logs the
// program's output.
func start(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), filepath.Base(name)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(env, "PATH="+os.Getenv("PATH")), log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		log.Close()
		if t.Failed() {
			t.Logf("%s:\n%s", cmd, read(t, log.Name()))
		}
	})
	return cmd
}

// get requests a URL and decodes the JSON answer, unless into is nil.
func get(url string, into any) error {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.500s", url, response.Status, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// within waits until do succeeds, for at most a minute.
func within(t *testing.T, what string, do func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s: %v", what, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
