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

// token is an access token that was given out.
type token struct {
	expires time.Time
	void    bool
}

// issueToken gives out an access token: a JWT, as both vendors do, whose exp is
// the end of its life.
func (s *Sim) issueToken(gateway Gateway, now time.Time, lifetime time.Duration) string {
	part := base64.RawURLEncoding.EncodeToString
	text := part([]byte(`{"typ":"JWT","alg":"HS256"}`)) + "." +
		part(fmt.Appendf(nil, `{"iss":%q,"iat":%d,"exp":%d,"jti":%q}`,
			gateway, now.Unix(), now.Add(lifetime).Unix(), rand.Text())) + "." +
		part([]byte(rand.Text()))
	s.tokens[gateway][text] = &token{expires: now.Add(lifetime)}
	return text
}

// bearer checks the Authorization header and returns the token in it; false when
// it is not one that works. An expired or voided token is no violation: the
// caller cannot know.
func (s *Sim) bearer(x *exchange, gateway Gateway) (string, bool) {
	text, ok := strings.CutPrefix(x.header("Authorization"), "Bearer ")
	if !ok {
		x.violation("header Authorization is missing or not of the form Bearer <token>")
		return "", false
	}
	t := s.tokens[gateway][text]
	if t == nil {
		x.violation("header Authorization carries a token that was never given out")
		return text, false
	}
	return text, !t.void && x.now.Before(t.expires)
}

// voidTokens makes every token of a gateway useless, as a restart of its session
// store would.
func (s *Sim) voidTokens(gateway Gateway) {
	for _, t := range s.tokens[gateway] {
		t.void = true
	}
}

// NewKeyPair makes an RSA-2048 key for Paydia's access-token signature: the
// private half as PKCS#8 PEM for the caller, the public half for
// PaydiaConfig.PublicKey.
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
