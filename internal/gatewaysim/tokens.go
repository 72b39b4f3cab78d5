package gatewaysim

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
)

// token is an issued access token.
type token struct {
	expires time.Time
	revoked bool
}

// issueToken returns a new access token: a JWT, as at both vendors, with its expiry in exp.
func (s *Sim) issueToken(gateway Gateway, now time.Time, lifetime time.Duration) string {
	part := base64.RawURLEncoding.EncodeToString
	text := part([]byte(`{"typ":"JWT","alg":"HS256"}`)) + "." +
		part(fmt.Appendf(nil, `{"iss":%q,"iat":%d,"exp":%d,"jti":%q}`,
			gateway, now.Unix(), now.Add(lifetime).Unix(), rand.Text())) + "." +
		part([]byte(rand.Text()))
	s.tokens[gateway][text] = &token{expires: now.Add(lifetime)}
	return text
}

// checkBearer returns the token in the Authorization header, and whether it is valid. An
// expired or revoked token is no violation: the caller cannot detect it beforehand.
func (s *Sim) checkBearer(x *exchange, gateway Gateway) (string, bool) {
	text, ok := strings.CutPrefix(x.header("Authorization"), "Bearer ")
	if !ok {
		x.violation("header Authorization is missing or not of the form Bearer <token>")
		return "", false
	}
	t := s.tokens[gateway][text]
	if t == nil {
		x.violation("header Authorization has a token that was never issued")
		return text, false
	}
	return text, !t.revoked && x.now.Before(t.expires)
}

// revokeTokens invalidates every token of a gateway, as when its session store restarts.
func (s *Sim) revokeTokens(gateway Gateway) {
	for _, t := range s.tokens[gateway] {
		t.revoked = true
	}
}

// NewKeyPair returns a new RSA-2048 key pair for the signature of Paydia's access-token: the
// private key as PKCS#8 PEM for the caller, the public key for PaydiaConfig.PublicKey.
func NewKeyPair() (privatePEM []byte, public *rsa.PublicKey, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, fmt.Errorf("gatewaysim: generate a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("gatewaysim: encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), &key.PublicKey, nil
}
