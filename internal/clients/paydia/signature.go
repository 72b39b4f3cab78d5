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

// Sign is the symmetric signature of every call but the token's: Base64 of
// HMAC-SHA512 under the client secret as text, over
// METHOD:PATH:ACCESS_TOKEN:hash:TIMESTAMP. The path is that on the wire, without
// host and query; the hash is the lower-case hex SHA-256 of exactly the bytes
// that are sent (gateways.md 2.4).
func Sign(clientSecret secret.Text, method, path string, token secret.Text, body []byte, timestamp string) string {
	hash := sha256.Sum256(body)
	mac := hmac.New(sha512.New, []byte(clientSecret.Reveal()))
	mac.Write([]byte(strings.Join([]string{
		method, path, token.Reveal(), hex.EncodeToString(hash[:]), timestamp,
	}, ":")))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// SignToken is the asymmetric signature of the token request: Base64 of
// RSA-PKCS1v1.5-SHA256 over CLIENT_ID|TIMESTAMP (gateways.md 2.2).
func SignToken(key *rsa.PrivateKey, clientID, timestamp string) (string, error) {
	hash := sha256.Sum256([]byte(clientID + "|" + timestamp))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, hash[:])
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(signature), nil
}

// parseKey reads the RSA private key. The errors of crypto/x509 are left out:
// they may tell of the key.
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
