package gatewaysim

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Spelling is how a gateway writes fields of its answers about one payment: JSON
// values by the fields' names, such as "transaction_total": 13000.0. An empty
// value leaves the field out. With an empty Reference it is about the pagination
// of AM's list.
type Spelling struct {
	Gateway   Gateway                   `json:"gateway"`
	Reference string                    `json:"reference,omitzero"`
	Fields    map[string]jsontext.Value `json:"fields"`
}

// Check says what is wrong with a spelling; nil when nothing is.
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

// Spell makes a gateway write fields in another way from now on, or, without
// Fields, as it should again. It panics on a spelling that does not pass Check.
func (s *Sim) Spell(sp Spelling) {
	if err := sp.Check(); err != nil {
		panic("gatewaysim: spell: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spellings[sp.Gateway][sp.Reference] = sp.Fields
}

// spelt is an object of an answer as it is to be written.
func (s *Sim) spelt(gateway Gateway, reference string, object any) any {
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
		panic(fmt.Sprintf("gatewaysim: spell an answer: %v", err)) // our own types: found by the first test
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
