package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNoKey says that no key of PAYLOAD_KEYS decrypts a ciphertext, or that there are no
// keys.
var ErrNoKey = errors.New("no key of PAYLOAD_KEYS decrypts it")

// A ciphertext begins with its format version. v2 contains the key id, so that errors can
// name the missing key: "v2.<key id>.<base64>". v1 does not: "v1.<base64>"; it is still
// decrypted, but no longer written.
const (
	prefixV2 = "v2."
	prefixV1 = "v1."
)

// keyID returns the first 8 bytes of the key's SHA-256, in hex. The key is 256 random bits,
// so its hash does not help to guess it.
func keyID(raw []byte) string {
	hash := sha256.Sum256(raw)
	return hex.EncodeToString(hash[:8])
}

// KeyID returns the id of the key that made a ciphertext; "" for a v1 ciphertext.
func KeyID(ciphertext string) string {
	rest, ok := strings.CutPrefix(ciphertext, prefixV2)
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, ".")
	return id
}

// Cipher encrypts secrets at rest with AES-256-GCM and a random nonce. It encrypts with
// the first key and decrypts with any, so a key is rotated by putting the new one first.
type Cipher struct {
	keys []cipher.AEAD
	ids  []string // of the keys
}

// KeyIDs returns the ids of the keys, in the order of PAYLOAD_KEYS.
func (c *Cipher) KeyIDs() []string { return slices.Clone(c.ids) }

// NewCipher parses PAYLOAD_KEYS: base64 of 32 random bytes, several separated by commas.
// From an empty string it makes a Cipher without keys, which only returns ErrNoKey.
func NewCipher(keys Text) (*Cipher, error) {
	c := &Cipher{}
	if strings.TrimSpace(keys.Reveal()) == "" {
		return c, nil
	}
	for i, field := range strings.Split(keys.Reveal(), ",") {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(field))
		if err != nil || len(raw) != 32 {
			// The message must not contain the key.
			return nil, fmt.Errorf("key %d is not base64 of 32 bytes (openssl rand -base64 32)", i+1)
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		c.keys, c.ids = append(c.keys, aead), append(c.ids, keyID(raw))
	}
	return c, nil
}

// NewKey returns a random key in the form of PAYLOAD_KEYS.
func NewKey() Text {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the program instead
	return NewText(base64.StdEncoding.EncodeToString(key))
}

// CanEncrypt reports whether there is a key.
func (c *Cipher) CanEncrypt() bool { return len(c.keys) > 0 }

// Encrypt encrypts a secret for one owner, e.g. the payment's key. The owner is
// authenticated: a ciphertext that is copied to another owner's record does not decrypt.
func (c *Cipher) Encrypt(t Text, owner string) (string, error) {
	if !c.CanEncrypt() {
		return "", fmt.Errorf("encrypt for %s: %w", owner, ErrNoKey)
	}
	ciphertext := c.keys[0].Seal(nil, nil, []byte(t.Reveal()), []byte(owner)) //nolint:gosec // G407: the AEAD makes the nonce itself
	return prefixV2 + c.ids[0] + "." + base64.RawStdEncoding.EncodeToString(ciphertext), nil
}

// Decrypt decrypts what Encrypt returned for the same owner, with whichever key made it.
func (c *Cipher) Decrypt(ciphertext, owner string) (Text, error) {
	body, ok := strings.CutPrefix(ciphertext, prefixV1)
	id := KeyID(ciphertext)
	if id != "" {
		body, ok = strings.CutPrefix(ciphertext, prefixV2+id+".")
	}
	if !ok {
		return Text{}, fmt.Errorf("decrypt for %s: unknown format of the ciphertext", owner)
	}
	raw, err := base64.RawStdEncoding.DecodeString(body)
	if err != nil {
		return Text{}, fmt.Errorf("decrypt for %s: malformed ciphertext", owner)
	}
	for i, key := range c.keys {
		if id != "" && id != c.ids[i] {
			continue
		}
		if plain, err := key.Open(nil, nil, raw, []byte(owner)); err == nil {
			return NewText(string(plain)), nil
		}
	}
	if id != "" && !slices.Contains(c.ids, id) {
		return Text{}, fmt.Errorf("decrypt for %s: %w: key %s is missing", owner, ErrNoKey, id)
	}
	return Text{}, fmt.Errorf("decrypt for %s: %w", owner, ErrNoKey)
}
