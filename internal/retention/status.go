package retention

import (
	"terbayar/internal/archive"
	"terbayar/internal/ledger"
	"terbayar/internal/payment"
)

// Status is a payment as enqueue status --json prints it, and the HTTP API answers it.
type Status struct {
	payment.Payment
	ArchivedOn archive.Day `json:"archived_on,omitempty"` // the day of the archive that has the payment, once its record is deleted
}

// StatusOf returns the status of a payment. Of a tombstone it reads attempts and details in the
// archive in dir, ARCHIVE_DIR. If it cannot, missing says what is missing, and where it is.
func StatusOf(r *ledger.Record, dir string) (s Status, missing string) {
	s.Payment = r.Payment
	if !r.Tombstone {
		return s, ""
	}
	if r.ArchivedOn.IsZero() {
		return s, "this is all that is left: the payment was over for longer than RETENTION, and ARCHIVE_DIR was not set"
	}
	s.ArchivedOn = archive.DayOf(r.ArchivedOn)
	if dir == "" {
		return s, "attempts and details are in the archive of " + string(s.ArchivedOn) + ": set ARCHIVE_DIR to show them"
	}
	archived, err := Find(dir, s.ArchivedOn, s.Key())
	if err != nil {
		return s, "attempts and details could not be read from ARCHIVE_DIR: " + err.Error()
	}
	s.Payment = archived.Payment
	return s, ""
}
