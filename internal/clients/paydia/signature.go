package paydia

import (
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"

	"terbayar/internal/secret"
)

// Sign returns the symmetric signature of every call except the token request: Base64 of
// HMAC-SHA512, with the client secret as text for its key, over
// METHOD:PATH:ACCESS_TOKEN:hash:TIMESTAMP. The path is that of the request, without host and
// query. The hash is the lower-case hex SHA-256 of exactly the bytes that are sent
// (docs/gateways.md 2.4).
func Sign(clientSecret secret.Text, method, path string, token secret.Text, body []byte, timestamp string) string {
	hash := sha256.Sum256(body)
	mac := hmac.New(sha512.New, []byte(clientSecret.Reveal()))
	mac.Write([]byte(strings.Join([]string{
		method, path, token.Reveal(), hex.EncodeToString(hash[:]), timestamp,
	}, ":")))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// SignToken returns the asymmetric signature of the token request: Base64 of
// RSA-PKCS1v1.5-SHA256 over CLIENT_ID|TIMESTAMP (docs/gateways.md 2.2).
func SignToken(key *rsa.PrivateKey, clientID, timestamp string) (string, error) {
	hash := sha256.Sum256([]byte(clientID + "|" + timestamp))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, hash[:])
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(signature), nil
}

// parseKey parses the RSA private key. Its errors leave out those of crypto/x509, which may
// contain parts of the key.
func parseKey(text secret.Text) (*rsa.PrivateKey, error) {
	if text.Empty() {
		return nil, errors.New("is missing")
	}
	block, _ := pem.Decode([]byte(text.Reveal()))
	if block == nil {
		return nil, errors.New("is not PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("is neither a PKCS#8 nor a PKCS#1 private key without a password")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("is not an RSA key")
	}
	return key, nil
}
