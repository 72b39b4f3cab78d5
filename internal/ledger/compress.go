package ledger

import "github.com/klauspost/compress/s2"

// The dictionaries have the parts that most texts have in common. They belong to version 3 of
// the format: with others the stored texts cannot be read.

// orderDictionary is that of the orders.
var orderDictionary = s2.MakeDict([]byte(`{"partnerReferenceNo":"","merchantId":"","amount":{"value":"10000.00","currency":"IDR"},"title":"Payment"}`+
	`{"payment_id":33,"expired_date":"2026-05-21 18:23:10","nominal":10000,"admin_fee":3000,"transaction_id":"","transaction_total":13000,`+
	`"transaction_name":"","transaction_desc":"","customer_number":"08","customer_name":"","customer_email":"@gmail.com",`+
	`"item_details":[{"item_id":"","item_price":10000,"item_total_price":10000,"item_quantity":1,"item_name":""},`+
	`{"item_id":"fee","item_price":3000,"item_total_price":3000,"item_quantity":1,"item_name":"fee"}]}`), nil)

// linesDictionary is that of the facts and attempts of payments that cannot be sent any more.
var linesDictionary = s2.MakeDict([]byte(`{"amount":13000,"merchant":"240327001000000","state":"Terbayar","ref":"2026","links":"https://","code":"8",`+
	`"qr":"00020101021226670016COM.NOBUBANK.WWW01189360050300000842770214080500006791870303UKE51440014ID.CO.QRIS.WWW0215ID2021084466451520454115303360540",`+
	`"unknown_code":"net:unknown","unknowns":1,"lookups":1,"events":2}`+"\n\n"+
	`{"at":1795724599776,"kind":"submit","code":"net:unknown","do":"verify","ms":15000}`+attemptSeparator+
	`{"at":1795724599776,"kind":"submit","code":"2006300","msg":"Request has been processed successfully","http":200,"do":"accept","ms":12,"ext":"2026112712345678"}`+attemptSeparator+
	`{"at":1795724599776,"kind":"lookup","code":"2005100","http":200,"do":"accept","ms":12}`+attemptSeparator+
	`{"at":1795724599776,"kind":"submit","code":"http:200","msg":"success","http":200,"do":"accept","ms":12}`+attemptSeparator+
	`{"at":1795724599776,"kind":"lookup","code":"http:200","msg":"success","http":200,"do":"accept","ms":12}`+"\n"), nil)

func compressOrder(order []byte) []byte {
	if len(order) == 0 {
		return nil
	}
	return orderDictionary.Encode(nil, order)
}
