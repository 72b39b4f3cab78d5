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

// keySample is how many customer tokens are tried: of the payments due first and of those
// due last, so that a change of the key is noticed.
const keySample = 50

// findUndecryptable tries PAYLOAD_KEYS on customer tokens in Redis that are still needed
// to send or look up a payment. The problem names the missing keys; it is empty when every
// token can be decrypted. The error is Redis'.
func findUndecryptable(ctx context.Context, payments *ledger.Ledger, cipher *secret.Cipher) (problem string, err error) {
	tokens, err := payments.EncryptedTokens(ctx, payment.Paydia, keySample)
	if err != nil {
		return "", err
	}
	failed, keys := 0, []string{}
	for _, t := range tokens {
		if _, err := cipher.Decrypt(t.Text, t.Key.String()); err != nil {
			failed++
			if id := secret.KeyID(t.Text); id != "" && !slices.Contains(keys, id) {
				keys = append(keys, id)
			}
		}
	}
	if failed == 0 {
		return "", nil
	}
	problem = fmt.Sprintf("PAYLOAD_KEYS cannot decrypt the customer tokens of %d of %d open payments that were tried: they cannot be sent", failed, len(tokens))
	if len(keys) > 0 {
		problem += fmt.Sprintf("; enqueue encrypted them with key %s, this worker has %s", strings.Join(keys, ", "), strings.Join(cipher.KeyIDs(), ", "))
	}
	return problem, nil
}
