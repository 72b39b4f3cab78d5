package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"time"

	"terbayar/internal/testenv"
)

// proxyMain is "bench proxy": it makes Redis far away. What a client sends is forwarded after
// a delay, what Redis answers at once: for the client both together are a longer round trip.
// Chunks are delayed independently, so throughput is not limited.
func proxyMain(args []string) error {
	flags := flag.NewFlagSet("proxy", flag.ExitOnError)
	to := flags.String("to", "", "address of Redis")
	delay := flags.Duration("delay", 0, "what a round trip takes longer")
	_ = flags.Parse(args) // it exits
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go relay(client, *to, *delay)
		}
	}()
	return serve(listener.Addr().String())
}

func relay(client net.Conn, to string, delay time.Duration) {
	defer client.Close()
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", to)
	if err != nil {
		return
	}
	go func() {
		defer server.Close()
		_ = forward(server, client, delay) // the connection has ended
	}()
	_, _ = io.Copy(client, server) // the connection has ended
}

// forward copies with a delay.
func forward(to io.Writer, from io.Reader, delay time.Duration) error {
	type chunk struct {
		due  time.Time
		text []byte
	}
	chunks := make(chan chunk, 1024)
	failed := make(chan error, 1)
	go func() {
		var err error
		for c := range chunks { // to its end, so that the reader never blocks
			time.Sleep(time.Until(c.due))
			if err == nil {
				_, err = to.Write(c.text)
			}
		}
		failed <- err
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			chunks <- chunk{time.Now().Add(delay), append([]byte(nil), buf[:n]...)}
		}
		if err != nil {
			close(chunks)
			return errors.Join(err, <-failed)
		}
	}
}

// startProxy starts a proxy in front of Redis and returns its address.
func startProxy(t testenv.TB, to string, delay time.Duration) string {
	t.Helper()
	_, addr := startChild(t, "proxy", "-to", to, "-delay", delay.String())
	return addr
}
