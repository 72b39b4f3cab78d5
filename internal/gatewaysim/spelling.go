package gatewaysim

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Spelling replaces fields in a gateway's answers about one payment. Fields has the new JSON
// values by field name, such as "transaction_total": 13000.0; an empty value leaves the
// field out. With an empty Reference it replaces fields of the pagination of AM's list.
type Spelling struct {
	Gateway   Gateway                   `json:"gateway"`
	Reference string                    `json:"reference,omitzero"`
	Fields    map[string]jsontext.Value `json:"fields"`
}

// Check returns an error if the spelling is invalid.
func (sp Spelling) Check() error {
	if sp.Gateway != AM && sp.Gateway != Paydia {
		return fmt.Errorf("unknown gateway %q", sp.Gateway)
	}
	for name, value := range sp.Fields {
		if len(value) > 0 && !value.IsValid() {
			return fmt.Errorf("the value of %s is not JSON", name)
		}
	}
	return nil
}

// Spell applies a spelling to all later answers; one without Fields restores the correct
// answers. It panics if sp.Check fails.
func (s *Sim) Spell(sp Spelling) {
	if err := sp.Check(); err != nil {
		panic("gatewaysim: spell: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spellings[sp.Gateway][sp.Reference] = sp.Fields
}

// withSpelling returns an object of an answer with the spelling's fields replaced.
func (s *Sim) withSpelling(gateway Gateway, reference string, object any) any {
	fields := s.spellings[gateway][reference]
	if len(fields) == 0 {
		return object
	}
	text, err := json.Marshal(object)
	members := map[string]jsontext.Value{}
	if err == nil {
		err = json.Unmarshal(text, &members)
	}
	if err != nil {
		panic(fmt.Sprintf("gatewaysim: spell an answer: %v", err)) // only our own types: cannot fail
	}
	for name, value := range fields {
		if len(value) == 0 {
			delete(members, name)
		} else {
			members[name] = value
		}
	}
	return members
}
