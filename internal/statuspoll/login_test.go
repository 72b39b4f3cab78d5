package statuspoll_test

import (
	"fmt"
	"testing"
	"time"

	"terbayar/internal/gatewaysim"
	"terbayar/internal/payment"
	"terbayar/internal/redistest"
	"terbayar/internal/testenv"
)

// TestLookupWithNewToken: if the gateway refuses the access token, in any form, the same lookup
// logs in again and continues.
func TestLookupWithNewToken(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		operation gatewaysim.Operation
		status    int
		body      string
	}{
		{gatewaysim.AMList, 400, `{"error":"token_expired"}`},
		{gatewaysim.AMList, 403, `{"message":"Token is Expired"}`},
		{gatewaysim.AMList, 403, `{"message":"no"}`},
		{gatewaysim.AMList, 401, `{"status":"error","message":"Invalid username or password"}`},
		{gatewaysim.AMList, 200, `{"error":true,"message":"Token expired"}`},
		{gatewaysim.AMList, 200, `{"message":"Unauthenticated."}`},
		{gatewaysim.AMList, 419, `{"message":"Unauthenticated."}`},
		{gatewaysim.AMList, 500, `{"message":"Token has expired"}`},
		{gatewaysim.PaydiaQuery, 401, `{"responseCode":"4016401","responseMessage":"Invalid Token (B2B)"}`},
		{gatewaysim.PaydiaQuery, 401, `{"responseCode":"4016400","responseMessage":"Unauthorized"}`},
		{gatewaysim.PaydiaQuery, 401, `{"responseCode":"4016407","responseMessage":"?"}`},
		{gatewaysim.PaydiaQuery, 401, ``},
		{gatewaysim.PaydiaQuery, 400, `{"error":"token_expired"}`},
		{gatewaysim.PaydiaQuery, 200, `{"message":"Unauthenticated."}`},
	} {
		t.Run(fmt.Sprint(row.operation, row.status, row.body), func(t *testing.T) {
			t.Parallel()
			r := testenv.New(t, redistest.Mini(t))
			key, create := inv, gatewaysim.AMCreate
			if row.operation == gatewaysim.PaydiaQuery {
				key, create = ord, gatewaysim.PaydiaPayment
			}
			r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultLostAfter, Operation: create, Count: 1})
			r.Sim.Inject(gatewaysim.FaultRule{Fault: gatewaysim.FaultRefuse, Operation: row.operation, Status: row.status, Body: row.body + " ", Count: 1})
			r.Create(testenv.AMOrder(inv.TransactionID), testenv.PaydiaOrder(ord.TransactionID))
			r.Submit(key)
			r.Advance(10 * time.Second)
			r.Poll(key.Gateway)
			if got := r.Read(key).Status; got != payment.OnProcessing && got != payment.Paid {
				t.Errorf("%s, want it found by the same poll: %v", got, r.History(key))
			}
		})
	}
}
