package ledger

import "github.com/klauspost/compress/s2"

// orderDictionary has the parts that most orders have in common. It belongs to version 3 of
// the format: with another dictionary the stored orders cannot be read.
var orderDictionary = s2.MakeDict([]byte(`{"partnerReferenceNo":"","merchantId":"","amount":{"value":"10000.00","currency":"IDR"},"title":"Payment"}`+
	`{"payment_id":33,"expired_date":"2026-05-21 18:23:10","nominal":10000,"admin_fee":3000,"transaction_id":"","transaction_total":13000,`+
	`"transaction_name":"","transaction_desc":"","customer_number":"08","customer_name":"","customer_email":"@gmail.com",`+
	`"item_details":[{"item_id":"","item_price":10000,"item_total_price":10000,"item_quantity":1,"item_name":""},`+
	`{"item_id":"fee","item_price":3000,"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}`), nil)

func compressOrder(order []byte) []byte {
	if len(order) == 0 {
		return nil
	}
	return orderDictionary.Encode(nil, order)
}
