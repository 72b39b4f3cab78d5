package clientstest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// Then is what a Server does with the connection after a reply.
type Then int

// The values of Then.
const (
	Keep  Then = iota // read the next request
	Close             // close the connection
	Reset             // close it with a TCP reset
	Hang              // send nothing more until the test ends
)

// Reply is the raw answer of a Server to one request.
type Reply struct {
	Raw  string
	Then Then
}

// JSON returns a complete, well-formed HTTP answer.
func JSON(status int, body string) Reply {
	return Reply{Raw: fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		status, len(body), body)}
}

// Received is a request that a Server has read completely.
type Received struct {
	Method, Path string
	Header       http.Header
	Body         string
}

// Server is a misbehaving gateway. It reads requests from real TCP connections and answers
// each with what the script returns.
type Server struct {
	URL    string
	script func(Received) Reply
	ended  chan struct{}

	listener net.Listener

	mu       sync.Mutex
	conns    []net.Conn
	received []Received
	onHang   func()
}

// Serve starts a server that ends with the test. The script is called from many
// goroutines.
func Serve(t testing.TB, script func(Received) Reply) *Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		URL:    "http://" + listener.Addr().String(),
		script: script, ended: make(chan struct{}), listener: listener,
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, conn)
			s.mu.Unlock()
			serving.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		close(s.ended)
		s.Refuse()
		s.mu.Lock()
		for _, conn := range s.conns {
			_ = conn.Close()
		}
		s.mu.Unlock()
		serving.Wait()
	})
	return s
}

// OnHang sets a function that is called when the server has sent a reply whose Then is Hang.
func (s *Server) OnHang(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onHang = f
}

// Refuse closes the listener: from now on connections are refused.
func (s *Server) Refuse() { _ = s.listener.Close() }

func (s *Server) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		r := Received{Method: req.Method, Path: req.URL.Path, Header: req.Header, Body: string(body)}
		s.mu.Lock()
		s.received = append(s.received, r)
		s.mu.Unlock()

		reply := s.script(r)
		if _, err := io.WriteString(conn, reply.Raw); err != nil {
			return
		}
		switch reply.Then {
		case Keep:
			continue
		case Reset:
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
		case Hang:
			s.mu.Lock()
			onHang := s.onHang
			s.mu.Unlock()
			if onHang != nil {
				onHang()
			}
			<-s.ended
		case Close:
		}
		return
	}
}

// Received returns the requests whose path ends with path, in the order of arrival.
func (s *Server) Received(path string) []Received {
	s.mu.Lock()
	defer s.mu.Unlock()
	var matching []Received
	for _, r := range s.received {
		if strings.HasSuffix(r.Path, path) {
			matching = append(matching, r)
		}
	}
	return matching
}

// Connections returns the number of connections accepted.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// serveCheaply starts a server that answers requests for loginPath with login and all others
// with answer, and returns its URL.
func serveCheaply(b *testing.B, loginPath, login, answer string) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = listener.Close() })
	path, replies := []byte(" "+loginPath+" "), map[bool][]byte{true: []byte(login), false: []byte(answer)}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					isLogin, err := skipRequest(in, path)
					if err != nil {
						return
					}
					if _, err := conn.Write(replies[isLogin]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return "http://" + listener.Addr().String()
}

// skipRequest reads one request and reports whether its first line contains path.
func skipRequest(in *bufio.Reader, path []byte) (found bool, err error) {
	length := 0
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return false, err
		}
		found = found || bytes.Contains(line, path)
		if digits, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, d := range bytes.TrimSpace(digits) {
				length = 10*length + int(d-'0')
			}
		}
		if len(bytes.TrimSpace(line)) == 0 {
			_, err = in.Discard(length)
			return found, err
		}
	}
}
