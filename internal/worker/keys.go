package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"terbayar/internal/ledger"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// keySample is how many customer tokens are tried: of the payments due first and
// of those due last, so that a key that was changed is noticed.
const keySample = 50

// decryptable tries PAYLOAD_KEYS on customer tokens that enqueue has encrypted and
// that are still to be sent, or looked up, with. The complaint, in words, names the
// keys that are missing; it is empty when every token can be decrypted.
func decryptable(ctx context.Context, book *ledger.Ledger, sealer *secret.Cipher) (complaint string, err error) {
	tokens, err := book.EncryptedTokens(ctx, payment.Paydia, keySample)
	if err != nil {
		return "", err
	}
	failed, keys := 0, []string{}
	for _, t := range tokens {
		if _, err := sealer.Decrypt(t.Text, t.Key.String()); err != nil {
			failed++
			if id := secret.KeyID(t.Text); id != "" && !slices.Contains(keys, id) {
				keys = append(keys, id)
			}
		}
	}
	if failed == 0 {
		return "", nil
	}
	complaint = fmt.Sprintf("PAYLOAD_KEYS decrypt none of the customer tokens of %d of %d open payments that were tried: they cannot be sent", failed, len(tokens))
	if len(keys) > 0 {
		complaint += fmt.Sprintf("; enqueue encrypted them with key %s, and these are %s", strings.Join(keys, ", "), strings.Join(sealer.KeyIDs(), ", "))
	}
	return complaint, nil
}
