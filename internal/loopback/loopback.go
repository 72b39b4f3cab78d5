// Package loopback recognizes HTTP requests that come from this machine.
package loopback

import (
	"net"
	"net/http"
	"strings"
)

// Is reports whether a request comes from this machine and was meant for it: it was not
// forwarded by a proxy, and not sent by a page of another site whose name resolves to loopback
// (DNS rebinding).
func Is(r *http.Request) bool {
	for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	return isLoopback(r.RemoteAddr) && isLoopback(r.Host)
}

func isLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
