package testenv

import "testing"

func TestOrders(t *testing.T) {
	const am = `{"gateway":"amdigipay","payment":{"payment_id":33,"expired_date":"2036-05-22 10:00:00",` +
		`"nominal":10000,"admin_fee":3000,"transaction_id":"INV-1","transaction_total":13000,"transaction_name":"a/b & <c> é \"q\" 支付",` +
		`"transaction_desc":"testing","customer_number":"085925065195","customer_name":"testing","item_details":[` +
		`{"item_id":"testing","item_price":10000,"item_total_price":10000,"item_quantity":1,"item_name":"testing"},` +
		`{"item_id":"fee","item_price":3000,"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}}`
	if got := string(AMOrder("INV-1")); got != am {
		t.Error(got)
	}
	const paydia = `{"gateway":"paydia","customer_token":"eyJ.customer.ORD-1","payment":{"partnerReferenceNo":"ORD-1",` +
		`"merchantId":"240327001000000","amount":{"value":"10000.00","currency":"IDR"},"title":"a/b & <c> é \"q\" 支付"}}`
	if got := string(PaydiaOrder("ORD-1")); got != paydia {
		t.Error(got)
	}
}
