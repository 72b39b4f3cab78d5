package retrypolicy

import (
	"regexp"
	"strings"
)

// AM says everything but the HTTP status in words, and so does every proxy before
// either gateway. The words below are those of the built-in rules with a match,
// in English and Indonesian, in sentences and in codes such as token_expired.
// Where a message speaks of two things, the order of wordings decides.

// wording is one kind of message.
type wording struct {
	name         string // in the table of "worker policies"
	alternatives []string
	action       Action
	pace         Schedule
	meaning      string
}

// pattern joins the alternatives, case ignored.
func (w wording) pattern() string { return "(?i)" + strings.Join(w.alternatives, "|") }

var (
	// repeated: an earlier request reached the gateway. It comes first: whatever
	// else the message says, the payment may exist.
	repeated = wording{"repeated", []string{
		`duplicat|duplikat`,
		`(already|been|sudah|telah|pernah)[ _](exist|use|taken|paid|process|regist|record|creat|submit|receiv|terdaftar|tercatat|terpakai|terbayar|ada([^a-z]|$)|lunas|di(guna|pakai|proses|bayar|buat|daftar|catat|terima))`,
		`(id|transaction|order|invoice|reference|payment|record|[0-9*"')\]])[ _]exists`,
		`(id|transaksi|order|invoice|referensi)[ _:]+(ada|terdaftar|digunakan|dipakai|terpakai)([^a-z]|$)`,
		`(not|be|harus|tidak)[ _](unique|unik)`,
		`(double|same|repeated)[ _](transaction|order|payment|request|reference|invoice|id)`,
		`(transaksi|pembayaran|id|order)[ _](yang[ _])?(sama|ganda|kembar)`,
	}, Verify, look, "a repeated id: an earlier request reached it"}

	// voidToken: the access token is void. Nothing was processed: that is looked at
	// before anything else is. A new login is all it takes, and where that does not
	// help, the attempts run out.
	voidToken = wording{"token", []string{
		`(token|jwt|bearer|session|sesi).{0,40}(expire|time[ _-]?out|timed[ _]out|invalid|revoke|blacklist|malformed|mismatch|missing|required|not[ _](valid|found|provided|exist|recogni)|could not be parsed|kadaluwarsa|kadaluarsa|kedaluwarsa|kedaluarsa|habis|hangus|berakhir|salah|tidak[ _](valid|sah|berlaku|ditemukan|dikenal|ada))`,
		`(expired|invalid|missing|revoked|malformed|unknown|wrong|no)[ _-]?((access|auth|authentication|authorization|bearer|login|api)[ _-]?)?(token|jwt|session)`,
		`unauthenticated|not[ _](authenticated|logged[ _-]?in)|belum[ _]log[ _-]?in|tidak[ _]terautentikasi`,
		`(please|silakan|silahkan|harap|mohon|must|harus)[ _](re)?-?log[ _-]?in|log[ _-]?in[ _](again|kembali|ulang)|re-?login`,
		`authori[sz]ation[ _](header|required|failed|is missing|not found)`,
	}, RefreshToken, renew, "the access token is void, in words"}

	// unauthorized: nothing more than that. At SNAP it is the text of a code, which
	// says more.
	unauthorized = wording{"unauthorized", []string{
		`^\W*(authentication|otentikasi|autentikasi)[ _](is )?(required|failed|expired|gagal)`,
		`^\W*(401\W+)?unauthori[sz]ed([ _](access|request|user))?\W*$`,
	}, RefreshToken, renew, "not logged in: perhaps the access token is void"}

	// trouble: it is refused, and perhaps processed all the same.
	trouble = wording{"trouble", []string{
		`internal[ _]server|server[ _]error|time[ _-]?out|timed[ _]out`,
		`(sedang|masih)[ _]di?proses|being[ _]processed|in[ _](progress|process)([^a-z]|$)`,
	}, Verify, look, "trouble at the gateway: may have been processed"}

	// settings: what only our own settings can be wrong about.
	settings = wording{"settings", []string{
		`signature|tanda[ _]?tangan|hmac|checksum|(invalid|wrong|bad)[ _]sign([^a-z]|$)|(^|[^a-z])sign[ _](invalid|mismatch|error|tidak|salah)`,
		`api[ _-]?key|client[ _-]?(id|key|secret)|secret[ _-]?key`,
		`white[ _-]?list|allow[ _-]?list|(^|[^a-z])ip([^a-z]|$)`,
		`merchant|mitra|partner`,
		`(^|[^a-z _]\s*|(your|this|the|api)[ _])(account|akun|user|service|layanan|feature|fitur|api|access|akses)[ _]((anda|api|is|was|has been|sudah|telah|status)[ _])*(inactive|disabled|suspended|blocked|locked|closed|frozen|deactivated|not[ _](active|activated|found|registered|verified|allowed|permitted|enabled|available)|(tidak|belum)[ _](aktif|ditemukan|terdaftar|terverifikasi|tersedia|diizinkan|diaktifkan|valid|dikenal)|non-?aktif|di(blokir|nonaktifkan|bekukan|tutup|suspend))`,
		`^\W*(inactive|disabled|suspended|blocked|locked)[ _](account|user)`,
	}, Review, none, "signature, merchant or account settings of ours, in words"}

	// credentials: as settings, but under HTTP 401 an invalid token is often worded so,
	// AM's documented answer included.
	credentials = wording{"credentials", []string{
		`credential|kredensial|user[ _-]?name|pass[ _-]?word|kata[ _]sandi`,
		`unauthori[sz]ed|not[ _]authori[sz]ed|forbidden|permission|access[ _](is )?denied|(akses|hak)[ _](ditolak|akses)|tidak[ _](berhak|diizinkan)`,
	}, Review, none, "credentials or rights of ours, in words"}

	// already: a word that may mean that an earlier request reached it. It comes
	// after our settings: a merchant may be "sudah tidak aktif".
	already = wording{"already", []string{
		`(^|[^a-z])(already|sudah|telah|pernah)([^a-z]|$)`,
	}, Verify, look, "perhaps a repeated id: an earlier request may have reached it"}

	// headers: the fields of a SNAP request that no order has a part in.
	headers = wording{"headers", []string{
		`x-(timestamp|signature|partner-id|external-id|client-key)|channel-id|authorization|merchant-?id`,
	}, Review, none, "a header or setting of ours is refused"}
)

// wordings are all of them, in the order in which they are asked.
var wordings = []wording{repeated, voidToken, unauthorized, trouble, settings, credentials, already, headers}

// compiled has the pattern of each wording, as the policy has those of a file.
var compiled = func() map[string]*regexp.Regexp {
	m := make(map[string]*regexp.Regexp)
	for _, w := range wordings {
		m[w.pattern()] = regexp.MustCompile(w.pattern())
	}
	return m
}()

// InvalidToken reports whether a message says that our access token is void, or that
// we are not logged in. It is how a client reads an answer that says so under a
// status that says something else, or nothing.
func InvalidToken(message string) bool {
	says := func(w wording) bool { return compiled[w.pattern()].MatchString(message) }
	return (says(voidToken) || says(unauthorized)) && !says(repeated)
}

// InVocabulary reports whether a word is one that a built-in rule looks for. Such a
// word tells nothing of a person, even where one is called so, and to mask it
// would change what the message says.
func InVocabulary(word string) bool { return vocabulary[strings.ToLower(word)] }

var vocabulary = func() map[string]bool {
	m := make(map[string]bool)
	for _, w := range wordings {
		for _, word := range regexp.MustCompile(`[a-z]{2,}`).FindAllString(w.pattern(), -1) {
			m[word] = true
		}
	}
	return m
}()

// worded are the rules of a code whose message says more than the code does.
func worded(code string, kinds ...wording) []row {
	var rows []row
	for _, w := range kinds {
		rows = append(rows, row{code: code, match: w.pattern(), action: w.action, pace: w.pace, meaning: w.meaning})
	}
	return rows
}
