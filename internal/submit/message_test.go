package submit_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// TestMessageDecides checks that the message of a refusal decides what follows, and that the
// attempt contains it.
func TestMessageDecides(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key             payment.Key
		status          int
		code, body      string
		attempt, became string
		message         string
	}{
		{inv, 400, "", `{"error":"token_expired"}`, "submit http:400 > refresh_token", "queued", "token_expired"},
		{inv, 403, "", `{"message":"Token is Expired"}`, "submit http:403 > refresh_token", "queued", "Token is Expired"},
		{inv, 419, "", `{"message":"Unauthenticated."}`, "submit http:401 > refresh_token", "queued", "Unauthenticated."},
		{inv, 200, "", `{"message":"Unauthenticated."}`, "submit http:401 > refresh_token", "queued", "Unauthenticated."},
		{inv, 200, "", `{"error":true,"message":"Token expired"}`, "submit error:true > refresh_token", "queued", "Token expired"},
		{inv, 200, "", `{"error":true,"message":"Invalid signature"}`, "submit error:true > review", "needs_review", "Invalid signature"},
		{inv, 400, "", `{"message":"Merchant tidak aktif"}`, "submit http:400 > review", "needs_review", "Merchant tidak aktif"},
		{inv, 200, "", `{"error":true,"message":"transaction_id sudah ada"}`, "submit error:true > verify", "verifying", "transaction_id sudah ada"},
		{inv, 422, "", `{"errors":{"transaction_id":["has already been taken."]}}`, "submit http:422 > verify", "verifying", "transaction_id: has already been taken."},
		{inv, 200, "", `{"error":true,"message":"Saldo 085925065195 tidak cukup"}`, "submit error:true > reject", "rejected", "Saldo *** tidak cukup"},
		{inv, 500, "", `{"message":"Token has expired"}`, "submit http:500 > verify", "verifying", "Token has expired"},
		{ord, 401, "", `{"message":"Unauthorized"}`, "submit http:401 > refresh_token", "queued", "Unauthorized"},
		{ord, 401, "", `<html>`, "submit http:401 > refresh_token", "queued", ""},
		{ord, 400, "", `{"error":"token_expired"}`, "submit http:400 > refresh_token", "queued", "token_expired"},
		{ord, 401, "", `{"responseCode":"4016300","responseMessage":"Unauthorized. Token expired"}`, "submit 4016300 > refresh_token", "queued", "Unauthorized. Token expired"},
		{ord, 401, "", `{"responseCode":"4016300","responseMessage":"Unauthorized. Signature"}`, "submit 4016300 > review", "needs_review", "Unauthorized. Signature"},
		{ord, 400, "", `{"responseCode":"4006302","responseMessage":"Invalid Mandatory Field X-TIMESTAMP"}`, "submit 4006302 > review", "needs_review", "Invalid Mandatory Field X-TIMESTAMP"},
		{ord, 400, "", `{"responseCode":"4006302","responseMessage":"Invalid Mandatory Field title"}`, "submit 4006302 > reject", "rejected", "Invalid Mandatory Field title"},
		{ord, 404, "", `{"responseCode":"4046314","responseMessage":"Paid Bill"}`, "submit 4046314 > verify", "verifying", "Paid Bill"},
	} {
		t.Run(fmt.Sprintf("%s %d %s", c.key.Gateway, c.status, c.body), func(t *testing.T) {
			t.Parallel()
			r := testenv.New(t, redistest.Mini(t))
			operation := map[payment.Gateway]gatewaysim.Operation{payment.AMDigiPay: gatewaysim.AMCreate, payment.Paydia: gatewaysim.PaydiaPayment}[c.key.Gateway]
			r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse, Operation: operation, Status: c.status, Body: c.body, Count: 1})
			r.Create(testenv.AMOrder(inv.TransactionID), testenv.PaydiaOrder(ord.TransactionID))
			next := r.Submit(c.key)
			if diff := cmp.Diff([]string{c.attempt, c.became}, r.History(c.key)); diff != "" {
				t.Error(diff)
			}
			if got := r.Read(c.key).Attempts[0].Message; got != c.message {
				t.Errorf("message %q, want %q", got, c.message)
			}
			if c.became != "queued" {
				return
			}
			logins := map[payment.Gateway]gatewaysim.Operation{payment.AMDigiPay: gatewaysim.AMLogin, payment.Paydia: gatewaysim.PaydiaToken}[c.key.Gateway]
			r.Advance(next.In)
			r.Submit(c.key)
			if r.Read(c.key).Status == payment.Queued || r.Sim.Requests(logins) != 2 {
				t.Errorf("%s after %d logins, want it sent after 2", r.Read(c.key).Status, r.Sim.Requests(logins))
			}
		})
	}
}

// TestTokenAlwaysExpired checks that a payment goes to review when logging in again does not
// help.
func TestTokenAlwaysExpired(t *testing.T) {
	t.Parallel()
	r := testenv.New(t, redistest.Mini(t))
	r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse, Operation: gatewaysim.AMCreate, Status: 400, Body: `{"error":"token_expired"}`})
	r.Create(testenv.AMOrder(inv.TransactionID))
	for n := 1; n < 20 && r.Read(inv).Status == payment.Queued; n++ {
		r.Advance(r.Submit(inv).In)
	}
	if got, logins := r.Read(inv), r.Sim.Requests(gatewaysim.AMLogin); got.Status != payment.NeedsReview || logins != 8 {
		t.Errorf("%s (%s) after %d logins, want needs_review after 8", got.Status, got.Reason, logins)
	}
}
