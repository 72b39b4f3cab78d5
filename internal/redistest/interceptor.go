package redistest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// Interceptor is a proxy between one program and Redis. At one command it calls a function:
// before Redis receives the command, or before the program receives the answer.
type Interceptor struct {
	Addr string
	Done chan struct{} // closed when the function has returned

	target       string
	match        func(command []string) bool
	beforeAnswer bool
	act          func()

	mu    sync.RWMutex // write-locked while act runs: no connection transfers anything
	state sync.Mutex
	acted bool
}

// NewInterceptor starts an interceptor in front of the Redis at target. At the first command
// that matches it calls act, and transfers nothing meanwhile. With beforeAnswer Redis receives
// the command before act, and the program receives the answer after it; without beforeAnswer
// the connection is closed after act. A script call that fails with NOSCRIPT does not count.
func NewInterceptor(t TB, target string, beforeAnswer bool, match func(command []string) bool, act func()) *Interceptor {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p := &Interceptor{
		Addr: l.Addr().String(), Done: make(chan struct{}),
		target: target, match: match, beforeAnswer: beforeAnswer, act: act,
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
	return p
}

// URL is the REDIS_URL of the interceptor.
func (p *Interceptor) URL() string { return "redis://" + p.Addr + "/0" }

// claim returns true once: that caller calls act.
func (p *Interceptor) claim() bool {
	p.state.Lock()
	defer p.state.Unlock()
	first := !p.acted
	p.acted = true
	return first
}

func (p *Interceptor) run() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.act()
	close(p.Done)
}

func (p *Interceptor) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	var matched sync.Mutex
	waiting := false // for the answer to the command that matched
	go func() {
		defer client.Close()
		buf := make([]byte, 256<<10)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			matched.Lock()
			isAnswer := waiting
			waiting = false
			matched.Unlock()
			if isAnswer && !bytes.HasPrefix(buf[:n], []byte("-NOSCRIPT")) && p.claim() {
				p.run()
			}
			if !p.pass(client, buf[:n]) {
				return
			}
		}
	}()
	in := bufio.NewReader(client)
	for {
		command, raw, err := readCommand(in)
		if err != nil {
			return
		}
		if p.match(command) {
			if !p.beforeAnswer && p.claim() {
				p.run()
				return
			}
			// A client sends nothing else on a connection until it has its answer.
			matched.Lock()
			waiting = p.beforeAnswer
			matched.Unlock()
		}
		if !p.pass(server, raw) {
			return
		}
	}
}

func (p *Interceptor) pass(to net.Conn, chunk []byte) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, err := to.Write(chunk)
	return err == nil
}

// readCommand reads one command, an array of bulk strings, and returns its bytes too.
func readCommand(in *bufio.Reader) (command []string, raw []byte, err error) {
	n, line, err := readLength(in, '*')
	if err != nil {
		return nil, nil, err
	}
	raw = line
	for range n {
		size, line, err := readLength(in, '$')
		if err != nil {
			return nil, nil, err
		}
		argument := make([]byte, size+2)
		if _, err := io.ReadFull(in, argument); err != nil {
			return nil, nil, err
		}
		raw = append(append(raw, line...), argument...)
		command = append(command, string(argument[:size]))
	}
	return command, raw, nil
}

func readLength(in *bufio.Reader, kind byte) (n int, line []byte, err error) {
	if line, err = in.ReadBytes('\n'); err != nil {
		return 0, nil, err
	}
	if len(line) < 3 || line[0] != kind {
		return 0, nil, fmt.Errorf("redistest: %q is not a command", line)
	}
	n, err = strconv.Atoi(string(line[1 : len(line)-2]))
	return n, line, err
}
