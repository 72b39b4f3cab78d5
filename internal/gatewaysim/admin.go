package gatewaysim

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// jsonOptions reads and writes durations as text such as "1m30s", and rejects unknown fields.
var jsonOptions = json.JoinOptions(
	json.RejectUnknownMembers(true),
	json.WithMarshalers(json.MarshalToFunc(func(e *jsontext.Encoder, d time.Duration) error {
		return e.WriteToken(jsontext.String(d.String()))
	})),
	json.WithUnmarshalers(json.UnmarshalFromFunc(func(dec *jsontext.Decoder, d *time.Duration) error {
		var text string
		if err := json.UnmarshalDecode(dec, &text); err != nil {
			return err
		}
		var err error
		*d, err = time.ParseDuration(text)
		return err
	})),
)

// Decode reads JSON rules, customers and refusals as the admin endpoints do: it rejects
// unknown fields, and durations are strings such as "2s".
func Decode(text []byte, into any) error {
	if err := json.Unmarshal(text, into, jsonOptions); err != nil {
		return fmt.Errorf("gatewaysim: decode: %w", err)
	}
	return nil
}

// routeAdmin serves the methods of Sim as JSON, for scripts and people outside the process.
func (s *Sim) routeAdmin() {
	get := func(path string, value func() any) {
		s.mux.HandleFunc("GET /admin/"+path, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, value()) })
	}
	get("summary", func() any { return s.Summary() })
	get("journal", func() any { return s.Journal() })
	get("violations", func() any { return s.Violations() })
	get("rows", func() any { return s.Rows() })
	get("faults", func() any { return s.ActiveFaults() })
	get("callbacks", func() any { return s.Callbacks() })

	s.mux.HandleFunc("POST /admin/faults", post(func(rule FaultRule) error {
		if err := rule.Check(); err != nil {
			return err
		}
		s.Inject(rule)
		return nil
	}))
	s.mux.HandleFunc("DELETE /admin/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		w.WriteHeader(http.StatusNoContent)
	})
	s.mux.HandleFunc("POST /admin/customers", post(func(c struct {
		Gateway   Gateway `json:"gateway"`
		Reference string  `json:"reference"`
		Customer  `json:",inline"`
	},
	) error {
		if c.Gateway != AM && c.Gateway != Paydia {
			return fmt.Errorf("unknown gateway %q", c.Gateway)
		}
		if err := c.Check(); err != nil {
			return err
		}
		s.SetCustomer(c.Gateway, c.Reference, c.Customer)
		return nil
	}))
	s.mux.HandleFunc("POST /admin/other-transactions", post(func(c struct {
		Count    int           `json:"count"`
		Span     time.Duration `json:"span"`
		Customer `json:",inline"`
	},
	) error {
		if c.Count < 1 || c.Count > 1_000_000 || c.Span < 0 {
			return fmt.Errorf("count must be between 1 and 1000000, and span not negative")
		}
		if err := c.Check(); err != nil {
			return err
		}
		s.AddOtherTransactions(c.Count, c.Span, c.Customer)
		return nil
	}))
	s.mux.HandleFunc("POST /admin/callbacks", post(func(c Callback) error {
		if s.config.Callbacks.url(c.Gateway) == "" {
			return fmt.Errorf("gateway %q sends no callbacks", c.Gateway)
		}
		s.SendCallback(c)
		return nil
	}))
	s.mux.HandleFunc("POST /admin/spelling", post(func(sp Spelling) error {
		if err := sp.Check(); err != nil {
			return err
		}
		s.Spell(sp)
		return nil
	}))
	s.mux.HandleFunc("POST /admin/list-motion", post(func(m ListMotion) error {
		if m.NewRows < 0 || m.PaidRows < 0 || m.Requests < 0 {
			return fmt.Errorf("new_rows, paid_rows and requests cannot be negative")
		}
		s.SetListMotion(m)
		return nil
	}))
}

// writeJSON writes indented JSON.
func writeJSON(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.MarshalWrite(w, body, jsonOptions, jsontext.WithIndent("  "), json.Deterministic(true)) // the caller may have closed the connection
}

// post returns a handler that decodes a JSON body and calls do with it. It answers 204, or
// 400 with the error.
func post[T any](do func(T) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		var value T
		if err == nil {
			err = Decode(text, &value)
		}
		if err == nil {
			err = do(value)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}
