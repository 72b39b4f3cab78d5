package redisconn

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestReadOnly: a read-only error in any wording closes the connection, so that the client
// opens a new one.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		reply  string
		closed bool
	}{
		{"-READONLY You can't write against a read only replica.\r\n", true},
		{"-ERR READONLY You can't write against a read only replica.\r\n", true},
		{"-ERR this instance is in read-only mode\r\n", true},
		{"-ERR Server is Read Only\r\n", true},
		{"-OOM command not allowed when used memory > 'maxmemory'.\r\n", false},
		{"$8\r\nreadonly\r\n", false}, // data, not an error
	} {
		var connections atomic.Int32
		addr := serve(t, func(conn net.Conn) {
			connections.Add(1)
			replies(map[string]string{"get": row.reply, "ping": "+PONG\r\n"})(conn)
		})
		client, err := Open("redis://"+addr, Passwords{})
		if err != nil {
			t.Fatal(err)
		}
		// In a pipeline go-redis itself does not close the connection after any error.
		send := func(commands ...string) error {
			pipe := client.Pipeline()
			for _, command := range commands {
				pipe.Do(t.Context(), command)
			}
			_, err := pipe.Exec(t.Context())
			return err
		}
		if err := send("ping", "ping"); err != nil {
			t.Fatal(err)
		}
		before := connections.Load()
		_ = send("ping", "get")
		deadline := time.Now().Add(time.Minute)
		for row.closed && connections.Load() == before && time.Now().Before(deadline) {
			_ = send("ping") // fails if the connection is closed meanwhile
		}
		for range 20 {
			_ = send("ping")
		}
		if closed := connections.Load() > before; closed != row.closed {
			t.Errorf("%s: %d connections, before %d", strings.TrimSpace(row.reply), connections.Load(), before)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
}
