package retrypolicy

import (
	"strings"
	"testing"

	"terbayar/internal/payment"
)

// TestActionsByMessage lists messages that AM may send beside error:true or under HTTP 400
// and 422, and the action for each.
func TestActionsByMessage(t *testing.T) {
	for _, row := range []struct {
		action   Action
		messages string
	}{
		// A repeated id: an earlier request reached the gateway.
		{Verify, `Duplicate transaction_id
			DUPLICATE_TRANSACTION
			DuplicateTransactionException
			transaction_id: The transaction id has already been taken.
			Transaction already exists
			transaction_already_exists
			Transaction ID exists
			transaction_id INV-1 sudah ada
			transaction_id sudah digunakan
			ID transaksi telah terdaftar
			ID transaksi terdaftar
			Nomor transaksi pernah dipakai
			Transaksi duplikat
			transaction_id must be unique
			transaction_id harus unik
			Transaksi yang sama masih diproses
			double transaction
			Order telah dibayar
			transaction has been processed
			INV-*** sudah terpakai
			Transaksi sudah lunas
			Duplicate transaction, invalid signature
			token sudah digunakan untuk transaksi ini
			Merchant reference sudah ada
			email already registered
			sudah pernah`},
		// The payment may be in progress.
		{Verify, `Internal server error
			Request timeout
			timed out while calling the biller
			Timeout from partner
			Transaksi sedang diproses
			in progress`},
		// The access token is expired or invalid.
		{RefreshToken, `token_expired
			Token expired
			Token is Expired
			Token has expired
			TokenExpiredException
			jwt expired
			invalid token
			Invalid access token
			invalid_token
			TOKEN_INVALID
			Token not provided
			token could not be parsed from the request
			The token has been blacklisted
			Token tidak valid
			Token sudah tidak berlaku
			Token sudah kedaluwarsa
			token kadaluarsa
			Sesi anda telah habis, silakan login kembali
			Session expired
			session timed out
			Unauthenticated.
			unauthenticated
			Unauthorized
			Unauthorized.
			UNAUTHORIZED ACCESS
			401 Unauthorized
			You are not logged in
			Anda belum login
			Silakan login terlebih dahulu
			Please log in
			Authorization header not found
			Authentication failed
			CSRF token mismatch.
			Missing bearer token`},
		// Our settings are refused.
		{Review, `Invalid signature
			invalid_signature
			InvalidSignature
			signature tidak valid
			signature: is invalid
			Sign mismatch
			Tanda tangan salah
			merchant inactive
			Merchant tidak aktif
			Merchant sudah tidak aktif
			MERCHANT_NOT_FOUND
			unauthorized merchant
			Mitra diblokir
			Merchant daily limit exceeded
			akun tidak aktif
			Akun anda sudah diblokir
			Account is suspended
			ACCOUNT_INACTIVE
			Your account has been disabled
			inactive account
			User not found
			invalid credentials
			Invalid username or password
			username: The username field is required.
			Password salah
			API key tidak valid
			invalid client_id
			IP not allowed
			IP 10.0.0.1 is not whitelisted
			ip address tidak terdaftar di whitelist
			Forbidden
			Access denied
			Akses ditolak
			You do not have permission
			Anda tidak berhak
			Layanan belum aktif
			api access disabled`},
		// The customer or the order is refused.
		{Reject, `Insufficient balance
			Saldo tidak cukup
			customer account has insufficient balance
			Customer account is blocked
			Akun pelanggan tidak aktif
			Kartu tidak aktif
			Rekening tidak aktif
			Nomor tidak terdaftar
			Transaction refused
			nominal minimal 10000
			Nominal maksimal 10.000.000
			Payment method does not exist
			Payment method not available
			Metode pembayaran tidak tersedia
			expired_date must be a date after now
			Invalid expired_date
			Invalid customer_name
			customer_email tidak valid
			transaction_total does not match
			Limit exceeded
			Declined by issuer
			Do not honor
			Data tidak lengkap
			item_details: The item details field is required.
			Signal lost`},
	} {
		for message := range strings.Lines(row.messages) {
			message = strings.TrimSpace(message)
			for _, code := range []string{"error:true", "http:400", "http:422"} {
				if d := Builtin().Decide(am, code, message, 1, 0); d.Action != row.action {
					t.Errorf("%s %q: %s by <%s>, want %s", code, message, d.Action, matchName(d.Rule), row.action)
					break
				}
			}
			if got := InvalidToken(message); got != (row.action == RefreshToken) {
				t.Errorf("InvalidToken(%q) = %t", message, got)
			}
		}
	}
}

// TestBadRequestNamesHeader: SNAP's "bad request" does not say whether the order or our
// settings are wrong. If it names a header, our settings are.
func TestBadRequestNamesHeader(t *testing.T) {
	for message, want := range map[string]Action{
		"Bad Request: X-TIMESTAMP out of range": Review,
		"Bad Request. CHANNEL-ID unknown":       Review,
		"Bad Request: title too long":           Reject,
	} {
		for _, code := range []string{"4006300", "4006301", "4006302"} {
			if got := Builtin().Decide(payment.Paydia, code, message, 1, 0).Action; got != want {
				t.Errorf("%s %q: %s, want %s", code, message, got, want)
			}
		}
	}
}
