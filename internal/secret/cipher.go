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

// ErrNoKey says that no key of PAYLOAD_KEYS decrypts a text (or that there are no
// keys at all).
var ErrNoKey = errors.New("no key of PAYLOAD_KEYS decrypts it")

// Every encrypted text begins with a version. The present one names its key, so
// that it can be said which key is missing: "v2.<id of the key>.<base64>". The
// former one did not: "v1.<base64>".
const (
	sealVersion  = "v2."
	sealNameless = "v1."
)

// keyID names a key without giving anything of it away: the beginning of its
// SHA-256, of a key that is 256 random bits.
func keyID(raw []byte) string {
	hash := sha256.Sum256(raw)
	return hex.EncodeToString(hash[:8])
}

// KeyID is the id of the key that encrypted a text; "" where the text does not
// name it.
func KeyID(sealed string) string {
	rest, ok := strings.CutPrefix(sealed, sealVersion)
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, ".")
	return id
}

// Cipher seals secrets at rest with AES-256-GCM and a random nonce. The first
// key seals, any key opens, so keys are rotated by putting the new one in front.
type Cipher struct {
	keys []cipher.AEAD
	ids  []string // of the keys
}

// KeyIDs are the ids of the keys, the one that encrypts first.
func (s *Cipher) KeyIDs() []string { return slices.Clone(s.ids) }

// NewCipher takes PAYLOAD_KEYS: base64 of 32 random bytes, several separated by
// commas. An empty text makes a sealer without keys: it refuses to seal and open.
func NewCipher(keys Text) (*Cipher, error) {
	s := &Cipher{}
	if strings.TrimSpace(keys.Reveal()) == "" {
		return s, nil
	}
	for i, field := range strings.Split(keys.Reveal(), ",") {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(field))
		if err != nil || len(raw) != 32 {
			// The key itself stays out of the message.
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
		s.keys, s.ids = append(s.keys, aead), append(s.ids, keyID(raw))
	}
	return s, nil
}

// NewKey makes a key fit for PAYLOAD_KEYS.
func NewKey() Text {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the program instead
	return NewText(base64.StdEncoding.EncodeToString(key))
}

// CanEncrypt reports whether there is a key to seal with.
func (s *Cipher) CanEncrypt() bool { return len(s.keys) > 0 }

// Encrypt encrypts the secret for one owner (e.g. the payment's key). The owner is
// authenticated with it: a sealed text copied to another record does not open.
func (s *Cipher) Encrypt(t Text, owner string) (string, error) {
	if !s.CanEncrypt() {
		return "", fmt.Errorf("seal for %s: %w", owner, ErrNoKey)
	}
	sealed := s.keys[0].Seal(nil, nil, []byte(t.Reveal()), []byte(owner)) //nolint:gosec // G407: the AEAD draws the nonce itself
	return sealVersion + s.ids[0] + "." + base64.RawStdEncoding.EncodeToString(sealed), nil
}

// Decrypt decrypts what Seal made for the same owner, with whichever key fits.
func (s *Cipher) Decrypt(sealed, owner string) (Text, error) {
	body, ok := strings.CutPrefix(sealed, sealNameless)
	id := KeyID(sealed)
	if id != "" {
		body, ok = strings.CutPrefix(sealed, sealVersion+id+".")
	}
	if !ok {
		return Text{}, fmt.Errorf("open for %s: sealed in a way this version does not know", owner)
	}
	raw, err := base64.RawStdEncoding.DecodeString(body)
	if err != nil {
		return Text{}, fmt.Errorf("open for %s: sealed text is damaged", owner)
	}
	for i, key := range s.keys {
		if id != "" && id != s.ids[i] {
			continue
		}
		if plain, err := key.Open(nil, nil, raw, []byte(owner)); err == nil {
			return NewText(string(plain)), nil
		}
	}
	if id != "" && !slices.Contains(s.ids, id) {
		return Text{}, fmt.Errorf("open for %s: %w: key %s is not among them", owner, ErrNoKey, id)
	}
	return Text{}, fmt.Errorf("open for %s: %w", owner, ErrNoKey)
}
