package retrypolicy

import (
	"regexp"
	"strings"
)

// AM, and any proxy in front of either gateway, describes an error only by an HTTP status
// and a message. The built-in rules with a match read that message, in English and
// Indonesian, as a sentence or as a code such as token_expired. If a message matches two
// kinds, the first in messageKinds decides.

// messageKind is a kind of message and what the built-in rules do with it.
type messageKind struct {
	name         string // in the table of "worker policies"
	alternatives []string
	action       Action
	schedule     Schedule
	meaning      string
}

// pattern returns the regular expression that matches any of the alternatives, ignoring
// case.
func (k messageKind) pattern() string { return "(?i)" + strings.Join(k.alternatives, "|") }

var (
	// repeated: an earlier request reached the gateway. This kind is first because the
	// payment may exist, whatever else the message says.
	repeated = messageKind{"repeated", []string{
		`duplicat|duplikat`,
		`(already|been|sudah|telah|pernah)[ _](exist|use|taken|paid|process|regist|record|creat|submit|receiv|terdaftar|tercatat|terpakai|terbayar|ada([^a-z]|$)|lunas|di(guna|pakai|proses|bayar|buat|daftar|catat|terima))`,
		`(id|transaction|order|invoice|reference|payment|record|[0-9*"')\]])[ _]exists`,
		`(id|transaksi|order|invoice|referensi)[ _:]+(ada|terdaftar|digunakan|dipakai|terpakai)([^a-z]|$)`,
		`(not|be|harus|tidak)[ _](unique|unik)`,
		`(double|same|repeated)[ _](transaction|order|payment|request|reference|invoice|id)`,
		`(transaksi|pembayaran|id|order)[ _](yang[ _])?(sama|ganda|kembar)`,
	}, Verify, lookups, "repeated id: an earlier request arrived"}

	// invalidToken: the access token is expired or invalid. Gateways check the token first,
	// so nothing was processed. A new login solves it, or the attempts run out.
	invalidToken = messageKind{"token", []string{
		`(token|jwt|bearer|session|sesi).{0,40}(expire|time[ _-]?out|timed[ _]out|invalid|revoke|blacklist|malformed|mismatch|missing|required|not[ _](valid|found|provided|exist|recogni)|could not be parsed|kadaluwarsa|kadaluarsa|kedaluwarsa|kedaluarsa|habis|hangus|berakhir|salah|tidak[ _](valid|sah|berlaku|ditemukan|dikenal|ada))`,
		`(expired|invalid|missing|revoked|malformed|unknown|wrong|no)[ _-]?((access|auth|authentication|authorization|bearer|login|api)[ _-]?)?(token|jwt|session)`,
		`unauthenticated|not[ _](authenticated|logged[ _-]?in)|belum[ _]log[ _-]?in|tidak[ _]terautentikasi`,
		`(please|silakan|silahkan|harap|mohon|must|harus)[ _](re)?-?log[ _-]?in|log[ _-]?in[ _](again|kembali|ulang)|re-?login`,
		`authori[sz]ation[ _](header|required|failed|is missing|not found)`,
	}, RefreshToken, newToken, "access token expired or invalid, by the message"}

	// unauthorized: the message says only "unauthorized". In SNAP this is the text of an
	// exact code, so the SNAP codes do not use this kind.
	unauthorized = messageKind{"unauthorized", []string{
		`^\W*(authentication|otentikasi|autentikasi)[ _](is )?(required|failed|expired|gagal)`,
		`^\W*(401\W+)?unauthori[sz]ed([ _](access|request|user))?\W*$`,
	}, RefreshToken, newToken, "not logged in: the access token may be expired or invalid"}

	// trouble: the gateway reports an error, but may have processed the payment.
	trouble = messageKind{"trouble", []string{
		`internal[ _]server|server[ _]error|time[ _-]?out|timed[ _]out`,
		`(sedang|masih)[ _]di?proses|being[ _]processed|in[ _](progress|process)([^a-z]|$)`,
	}, Verify, lookups, "error at the gateway: may have been processed"}

	// settings: an error that only our own settings can cause.
	settings = messageKind{"settings", []string{
		`signature|tanda[ _]?tangan|hmac|checksum|(invalid|wrong|bad)[ _]sign([^a-z]|$)|(^|[^a-z])sign[ _](invalid|mismatch|error|tidak|salah)`,
		`api[ _-]?key|client[ _-]?(id|key|secret)|secret[ _-]?key`,
		`white[ _-]?list|allow[ _-]?list|(^|[^a-z])ip([^a-z]|$)`,
		`merchant|mitra|partner`,
		`(^|[^a-z _]\s*|(your|this|the|api)[ _])(account|akun|user|service|layanan|feature|fitur|api|access|akses)[ _]((anda|api|is|was|has been|sudah|telah|status)[ _])*(inactive|disabled|suspended|blocked|locked|closed|frozen|deactivated|not[ _](active|activated|found|registered|verified|allowed|permitted|enabled|available)|(tidak|belum)[ _](aktif|ditemukan|terdaftar|terverifikasi|tersedia|diizinkan|diaktifkan|valid|dikenal)|non-?aktif|di(blokir|nonaktifkan|bekukan|tutup|suspend))`,
		`^\W*(inactive|disabled|suspended|blocked|locked)[ _](account|user)`,
	}, Review, none, "our signature, merchant or account settings refused, by the message"}

	// credentials: like settings, but not used for HTTP 401, where such a message often
	// means an invalid token. AM's documented 401 is an example.
	credentials = messageKind{"credentials", []string{
		`credential|kredensial|user[ _-]?name|pass[ _-]?word|kata[ _]sandi`,
		`unauthori[sz]ed|not[ _]authori[sz]ed|forbidden|permission|access[ _](is )?denied|(akses|hak)[ _](ditolak|akses)|tidak[ _](berhak|diizinkan)`,
	}, Review, none, "our credentials or access rights refused, by the message"}

	// already: a word that may mean that an earlier request reached the gateway. It comes
	// after settings, because "merchant sudah tidak aktif" is about settings.
	already = messageKind{"already", []string{
		`(^|[^a-z])(already|sudah|telah|pernah)([^a-z]|$)`,
	}, Verify, lookups, "perhaps a repeated id of an earlier request"}

	// headers: a header of a SNAP request, which the order cannot influence.
	headers = messageKind{"headers", []string{
		`x-(timestamp|signature|partner-id|external-id|client-key)|channel-id|authorization|merchant-?id`,
	}, Review, none, "one of our headers or settings refused, by the message"}
)

// messageKinds lists all kinds in order of precedence.
var messageKinds = []messageKind{repeated, invalidToken, unauthorized, trouble, settings, credentials, already, headers}

// compiled maps the pattern of each kind to its compiled form.
var compiled = func() map[string]*regexp.Regexp {
	m := make(map[string]*regexp.Regexp)
	for _, k := range messageKinds {
		m[k.pattern()] = regexp.MustCompile(k.pattern())
	}
	return m
}()

// InvalidToken reports whether a message means that our access token is expired or
// invalid, or that we are not logged in. The clients use it for answers whose HTTP status
// does not say so.
func InvalidToken(message string) bool {
	is := func(k messageKind) bool { return compiled[k.pattern()].MatchString(message) }
	return (is(invalidToken) || is(unauthorized)) && !is(repeated)
}

// IsMatchWord reports whether a built-in rule matches on this word. The clients do not
// redact such a word, even if it is part of a customer's name: redacting it would change
// which rule matches the message.
func IsMatchWord(word string) bool { return matchWords[strings.ToLower(word)] }

var matchWords = func() map[string]bool {
	m := make(map[string]bool)
	letters := regexp.MustCompile(`[a-z]{2,}`)
	for _, k := range messageKinds {
		for _, word := range letters.FindAllString(k.pattern(), -1) {
			m[word] = true
		}
	}
	return m
}()

// rulesFor returns one rule for a code and each kind of message.
func rulesFor(code string, kinds ...messageKind) []row {
	var rows []row
	for _, k := range kinds {
		rows = append(rows, row{code: code, match: k.pattern(), action: k.action, schedule: k.schedule, meaning: k.meaning})
	}
	return rows
}
