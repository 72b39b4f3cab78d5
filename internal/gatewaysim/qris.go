package gatewaysim

import (
	"fmt"
	"strconv"
)

// qris returns the EMV payload of a QRIS payment, in the form of the vendor's three samples
// (AM "List Transaction", qr_code of ids 5, 4 and 1): the same acquirer and merchant, tag
// 54 with the amount, tag 62 with a number of 14 digits, the transaction id, "PAYMENT-<id>"
// and "A01", and tag 63 with the CRC.
func qris(id int64, transactionID string, amount int64, number string) string {
	payload := tlv("00", "01") + tlv("01", "12") +
		tlv("26", tlv("00", "COM.NOBUBANK.WWW")+tlv("01", "936005030000084277")+tlv("02", "08050000679187")+tlv("03", "UKE")) +
		tlv("51", tlv("00", "ID.CO.QRIS.WWW")+tlv("02", "ID2021084466451")+tlv("03", "UKE")) +
		tlv("52", "5499") + tlv("53", "360") + tlv("54", strconv.FormatInt(amount, 10)) + tlv("58", "ID") +
		tlv("59", "BISATOPUP") + tlv("60", "Jakarta Selatan") + tlv("61", "12540") +
		tlv("62", tlv("01", number)+tlv("05", clip(transactionID, 25))+tlv("06", fmt.Sprintf("PAYMENT-%d", id))+tlv("07", "A01")) +
		"6304"
	return payload + fmt.Sprintf("%04X", crc16(payload))
}

// tlv returns one EMV data object: tag, length in two digits, value.
func tlv(tag, value string) string { return fmt.Sprintf("%s%02d%s", tag, len(value), value) }

// clip shortens a text to at most n bytes, at the end of a character. EMV limits sub-tag 05
// to 25 bytes.
func clip(s string, n int) string {
	end := 0
	for i, r := range s {
		if next := i + len(string(r)); next <= n {
			end = next
		}
	}
	return s[:end]
}

// crc16 returns the CRC-16/CCITT-FALSE (polynomial 1021, start FFFF). EMV computes it over
// everything up to and including "6304".
func crc16(s string) uint16 {
	crc := uint16(0xFFFF)
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
