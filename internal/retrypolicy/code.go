package retrypolicy

import "fmt"

// A code is what the retry policy is asked about: Paydia's seven digits, or one
// of the codes below where an answer carries none (interface.md, "Retry policy
// file").
const (
	CodeRefused    = "error:true"      // AM refused: {"error":true} under HTTP 200
	CodeUnsent     = "net:unsent"      // failed before a byte of the request went out
	CodeUnknown    = "net:unknown"     // time-out, reset, anything after the first byte
	CodeUnreadable = "body:unreadable" // an answer came, and cannot be read as the gateway's

	// No key of PAYLOAD_KEYS decrypts the customer token, so nothing was sent. Only
	// payments to Paydia have one.
	CodeUndecryptable = "token:undecryptable"
)

// HTTPCode is the code of an answer of which only the HTTP status speaks.
func HTTPCode(status int) string { return fmt.Sprintf("http:%03d", status) }
