package redisconn

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestReadOnly: whatever words a node has for it, who hears that it is a replica looks for
// the primary with a new connection.
func TestReadOnly(t *testing.T) {
	for _, row := range []struct {
		refusal string
		dropped bool
	}{
		{"-READONLY You can't write against a read only replica.\r\n", true},
		{"-ERR READONLY You can't write against a read only replica.\r\n", true},
		{"-ERR this instance is in read-only mode\r\n", true},
		{"-ERR Server is Read Only\r\n", true},
		{"-OOM command not allowed when used memory > 'maxmemory'.\r\n", false},
		{"$8\r\nreadonly\r\n", false}, // somebody's data
	} {
		var connections atomic.Int32
		addr := serve(t, func(conn net.Conn) {
			connections.Add(1)
			answering(map[string]string{"get": row.refusal, "ping": "+PONG\r\n"})(conn)
		})
		client, err := Open("redis://"+addr, Passwords{})
		if err != nil {
			t.Fatal(err)
		}
		// In a pipeline go-redis keeps the connection, however the refusal begins.
		ask := func(commands ...string) error {
			pipe := client.Pipeline()
			for _, command := range commands {
				pipe.Do(t.Context(), command)
			}
			_, err := pipe.Exec(t.Context())
			return err
		}
		if err := ask("ping", "ping"); err != nil {
			t.Fatal(err)
		}
		before := connections.Load()
		_ = ask("ping", "get") // its error is what the node said
		deadline := time.Now().Add(5 * time.Second)
		for row.dropped && connections.Load() == before && time.Now().Before(deadline) {
			_ = ask("ping") // the connection may break under it
		}
		for range 20 {
			_ = ask("ping")
		}
		if dropped := connections.Load() > before; dropped != row.dropped {
			t.Errorf("%s: %d connections after %d", strings.TrimSpace(row.refusal), connections.Load(), before)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
}
