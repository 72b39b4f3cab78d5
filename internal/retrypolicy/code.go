package retrypolicy

import "fmt"

// The codes of answers without a code of the gateway's own, and of requests without an
// answer (docs/interface.md, "Retry policy file"). Every other code is Paydia's seven
// digits.
const (
	CodeRefused    = "error:true"      // AM rejected the request: {"error":true} under HTTP 200
	CodeUnsent     = "net:unsent"      // failed before the first byte of the request was sent
	CodeUnknown    = "net:unknown"     // timeout, reset or any other failure after the first byte
	CodeUnreadable = "body:unreadable" // an answer arrived that is malformed for this gateway

	// No key of PAYLOAD_KEYS decrypts the customer token, so nothing was sent. Only
	// payments at Paydia have a customer token.
	CodeUndecryptable = "token:undecryptable"
)

// HTTPCode returns the code of an answer that carries no code but its HTTP status.
func HTTPCode(status int) string { return fmt.Sprintf("http:%03d", status) }
