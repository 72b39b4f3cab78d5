package retrypolicy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"terbayar/internal/payment"
)

// maxAttempts limits max_attempts and lookups: a larger value is a typo, and the cost of
// computing a delay grows with the attempt's number.
const maxAttempts = 10_000

// maxText is the maximum length of a match or vendor_confirms, in bytes.
const maxText = 1000

// Load reads a policy file and returns the built-in policy with its overrides. An empty
// path returns the built-in policy. The error names file, line and value.
func Load(path string) (*Policy, error) {
	if path == "" {
		return Builtin(), nil
	}
	doc, err := os.ReadFile(path) //nolint:gosec // the operator's own setting
	if err != nil {
		return nil, err // os names the path
	}
	return Parse(path, doc)
}

// Parse returns the built-in policy with the overrides of a YAML document. Errors and
// Rule.Source call the document by the given name.
//
// Where an override leaves out max_attempts or a field of backoff, it inherits the value
// for its action: that of the built-in rules for 429 (retry), an invalid token
// (refresh_token) or an unknown outcome (verify). If the base exceeds the inherited cap,
// the cap is raised to the base.
func Parse(name string, doc []byte) (*Policy, error) {
	policy := Builtin()
	root, err := document(name, doc)
	if root == nil || err != nil {
		return policy, err
	}
	f := file{name}
	top, err := f.fields(root, "", "gateways")
	if err != nil {
		return nil, err
	}
	gateways, err := f.fields(top["gateways"], "gateways", gatewayNames()...)
	if err != nil {
		return nil, err
	}
	for _, g := range payment.Gateways() {
		if err := f.gateway(policy, g, gateways[string(g)]); err != nil {
			return nil, err
		}
	}
	return policy, nil
}

var syntaxError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// document returns the root of the only YAML document in doc; nil if doc is empty.
func document(name string, doc []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(doc))
	var first, second yaml.Node
	err := d.Decode(&first)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err == nil {
		err = d.Decode(&second)
		if err == nil {
			return nil, fmt.Errorf("%s:%d: a second YAML document (want one)", name, second.Line)
		}
	}
	if !errors.Is(err, io.EOF) {
		m := syntaxError.FindStringSubmatch(err.Error())
		if m == nil || m[1] == "" {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return nil, fmt.Errorf("%s:%s: %s", name, m[1], m[2])
	}
	root := first.Content[0]
	if root.Tag == "!!null" {
		return nil, nil
	}
	return root, nil
}

// file reads the nodes of one document. The errors of its methods name the file, the line
// and the path of the field.
type file struct{ name string }

func (f file) errorf(n *yaml.Node, path, format string, args ...any) error {
	if path != "" {
		path += ": "
	}
	return fmt.Errorf("%s:%d: %s%s", f.name, n.Line, path, fmt.Sprintf(format, args...))
}

// fields returns the values of a mapping by key. Every key must be known. A nil node has no
// fields.
func (f file) fields(n *yaml.Node, path string, known ...string) (map[string]*yaml.Node, error) {
	if n == nil {
		return nil, nil
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return nil, f.errorf(n, path, "want a mapping with %s", strings.Join(known, ", "))
	}
	fields := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case !slices.Contains(known, key.Value):
			return nil, f.errorf(key, path, "unknown key %q (want %s)", key.Value, strings.Join(known, ", "))
		case fields[key.Value] != nil:
			return nil, f.errorf(key, path, "duplicate key %q", key.Value)
		}
		fields[key.Value] = n.Content[i+1]
	}
	return fields, nil
}

// value returns the text of a scalar.
func (f file) value(n *yaml.Node, path string) (string, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.ScalarNode {
		return "", f.errorf(n, path, "want a single value")
	}
	return n.Value, nil
}

func (f file) gateway(policy *Policy, g payment.Gateway, n *yaml.Node) error {
	path := "gateways." + string(g)
	fields, err := f.fields(n, path, "verify", "rules")
	if err != nil {
		return err
	}
	if n := fields["verify"]; n != nil {
		c, err := f.verification(n, path+".verify")
		if err != nil {
			return err
		}
		policy.verifications[g] = c
	}
	list := fields["rules"]
	if list == nil {
		return nil
	}
	if list.Kind == yaml.AliasNode {
		list = list.Alias
	}
	if list.Kind != yaml.SequenceNode {
		return f.errorf(list, path+".rules", "want a list of rules")
	}
	var overrides []Rule
	for i, n := range list.Content {
		path := fmt.Sprintf("%s.rules[%d]", path, i)
		r, err := f.rule(policy, g, n, path)
		if err != nil {
			return err
		}
		for _, o := range overrides {
			if o.Code == r.Code && o.Match == r.Match {
				return f.errorf(n, path+".code", "duplicate rule for %q%s (the first: %s)", r.Code, withMatch(r.Match), o.Source)
			}
		}
		overrides = append(overrides, r)
	}
	// An override replaces a built-in rule if it covers all of its codes and has the same
	// match. A built-in rule with a match stays in force beside an override without one.
	builtin := slices.DeleteFunc(policy.rules[g], func(r Rule) bool {
		return slices.ContainsFunc(overrides, func(o Rule) bool { return covers(o.Code, r.Code) && o.Match == r.Match })
	})
	policy.rules[g] = append(overrides, builtin...)
	order(policy.rules[g])
	return nil
}

func withMatch(match string) string {
	if match == "" {
		return ""
	}
	return fmt.Sprintf(" with match %q", match)
}

func (f file) verification(n *yaml.Node, path string) (Verification, error) {
	c := verification
	c.Source = f.source(n)
	fields, err := f.fields(n, path, "settle", "lookups", "then", "vendor_confirms")
	if err != nil {
		return c, err
	}
	if n := fields["settle"]; n != nil {
		if c.Settle, err = f.duration(n, path+".settle"); err != nil {
			return c, err
		}
	}
	if n := fields["lookups"]; n != nil {
		if c.Lookups, err = f.count(n, path+".lookups"); err != nil {
			return c, err
		}
	}
	if n := fields["then"]; n != nil {
		if c.Then, err = choice(f, n, path+".then", "action", Retry, Review); err != nil {
			return c, err
		}
	}
	if n := fields["vendor_confirms"]; n != nil {
		if c.VendorConfirms, err = f.confirmation(n, path+".vendor_confirms"); err != nil {
			return c, err
		}
	}
	switch { // then: retry sends a money-moving request again; Policy.Check checks settle
	case c.Then != Retry:
	case c.Lookups < 2:
		return c, f.errorf(fields["lookups"], path+".lookups", "%d is too few for then: retry (want at least 2)", c.Lookups)
	case c.VendorConfirms == "":
		return c, f.errorf(fields["then"], path+".then", "retry sends a money-moving request again: it needs settle of at least two "+
			"GATEWAY_TIMEOUTs, lookups of at least 2, and vendor_confirms: %s in the same mapping (otherwise use review)", confirmationForm)
	}
	return c, nil
}

// confirmationForm is the form of vendor_confirms.
const confirmationForm = `"<who, when, what they said>"`

// confirmation reads vendor_confirms. It cannot check that the statement is true, only that
// it has at least three words, so that a colleague can ask the vendor.
func (f file) confirmation(n *yaml.Node, path string) (string, error) {
	text, err := f.line(n, path)
	if err != nil {
		return "", err
	}
	words := strings.Fields(text)
	if len(words) < 3 || strings.Map(onlyLetters, text) == "" || strings.ContainsAny(text, "<>") {
		return "", f.errorf(n, path, "%q does not name who confirmed it, when, and what they said (want %s)", text, confirmationForm)
	}
	return strings.Join(words, " "), nil
}

func onlyLetters(r rune) rune {
	if unicode.IsLetter(r) {
		return r
	}
	return -1
}

// line returns the text of a scalar that is printed to terminals and logs unchanged.
func (f file) line(n *yaml.Node, path string) (string, error) {
	text, err := f.value(n, path)
	if err == nil && (len(text) > maxText || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })) {
		err = f.errorf(n, path, "%.40q has unprintable characters or is longer than %d bytes", text, maxText)
	}
	return text, err
}

func (f file) rule(policy *Policy, g payment.Gateway, n *yaml.Node, path string) (Rule, error) {
	r := Rule{Gateway: g, Source: f.source(n)}
	fields, err := f.fields(n, path, "code", "match", "action", "backoff", "max_attempts", "max_elapsed", "vendor_confirms")
	if err != nil {
		return r, err
	}
	for _, key := range []string{"code", "action"} {
		if fields[key] == nil {
			return r, f.errorf(n, path, "%s is missing", key)
		}
	}
	if r.Code, err = f.value(fields["code"], path+".code"); err != nil {
		return r, err
	}
	if !codePatterns[g].MatchString(r.Code) {
		return r, f.errorf(fields["code"], path+".code", "malformed code %q (want %s)", r.Code, codesInWords[g])
	}
	r.Meaning = "set in the policy file"
	for _, b := range policy.rules[g] {
		if b.Match == "" && covers(b.Code, r.Code) {
			r.Meaning = b.Meaning
			break
		}
	}
	if r.Action, err = choice(f, fields["action"], path+".action", "action", actions...); err != nil {
		return r, err
	}
	if n := fields["match"]; n != nil {
		if r.Match, err = f.match(policy, n, path+".match"); err != nil {
			return r, err
		}
	}
	if n := fields["vendor_confirms"]; n != nil {
		if !vendorCode(r.Code) {
			return r, f.errorf(n, path+".vendor_confirms", "not allowed for %s: it is our own code, not one of the vendor's answers", r.Code)
		}
		if r.VendorConfirms, err = f.confirmation(n, path+".vendor_confirms"); err != nil {
			return r, err
		}
	}
	if err := f.checkSafe(fields["action"], path+".action", r); err != nil {
		return r, err
	}
	r.Schedule = inherited[r.Action]
	for _, key := range []string{"backoff", "max_attempts", "max_elapsed"} {
		if n := fields[key]; n != nil && r.Schedule == none {
			return r, f.errorf(n, path+"."+key, "not allowed for action %s, which is not repeated", r.Action)
		}
	}
	if n := fields["backoff"]; n != nil {
		if r.Backoff, err = f.backoff(n, path+".backoff", r.Backoff); err != nil {
			return r, err
		}
	}
	if n := fields["max_attempts"]; n != nil {
		if r.MaxAttempts, err = f.count(n, path+".max_attempts"); err != nil {
			return r, err
		}
	}
	if n := fields["max_elapsed"]; n != nil {
		if r.MaxElapsed, err = f.duration(n, path+".max_elapsed"); err != nil {
			return r, err
		}
	}
	return r, nil
}

// match reads a regular expression and adds it to the policy.
func (f file) match(policy *Policy, n *yaml.Node, path string) (string, error) {
	text, err := f.line(n, path)
	if err != nil {
		return "", err
	}
	if text == "" {
		return "", f.errorf(n, path, "is empty (leave it out to match every message)")
	}
	matcher, err := regexp.Compile(text)
	if err != nil {
		reason := "malformed"
		if s, ok := errors.AsType[*syntax.Error](err); ok {
			reason = string(s.Code)
		}
		return "", f.errorf(n, path, "%q is not a regular expression: %s", text, reason)
	}
	policy.matchers[text] = matcher
	return text, nil
}

// checkSafe returns an error if the rule's action is not safe for every code of the rule,
// unless the vendor confirms it.
func (f file) checkSafe(n *yaml.Node, path string, r Rule) error {
	if r.VendorConfirms != "" {
		return nil
	}
	code, safe, ok := checkSafe(r.Gateway, r.Code, r.Action)
	if ok {
		return nil
	}
	var allowed []string
	for _, a := range safe {
		allowed = append(allowed, string(a))
	}
	which, remedy := code, ""
	if code != r.Code {
		which = fmt.Sprintf("%s, which %q covers", code, r.Code)
	}
	if vendorCode(r.Code) {
		remedy = ", or vendor_confirms: " + confirmationForm
	}
	return f.errorf(n, path, "%s is not safe for %s (%s): allowed for %q: %s%s",
		r.Action, which, classOf(r.Gateway, code).name, r.Code, strings.Join(allowed, ", "), remedy)
}

// backoff reads a backoff. The fields it leaves out are those of b.
func (f file) backoff(n *yaml.Node, path string, b Backoff) (Backoff, error) {
	fields, err := f.fields(n, path, "type", "base", "cap", "jitter")
	if err != nil {
		return b, err
	}
	if n := fields["type"]; n != nil {
		if b.Type, err = choice(f, n, path+".type", "type", backoffTypes...); err != nil {
			return b, err
		}
	}
	if n := fields["base"]; n != nil {
		if b.Base, err = f.duration(n, path+".base"); err != nil {
			return b, err
		}
	}
	b.Cap = max(b.Cap, b.Base)
	if n := fields["cap"]; n != nil {
		if b.Cap, err = f.duration(n, path+".cap"); err != nil {
			return b, err
		}
		if b.Cap < b.Base {
			return b, f.errorf(n, path+".cap", "%s is less than the base %s", short(b.Cap), short(b.Base))
		}
	}
	if n := fields["jitter"]; n != nil {
		text, err := f.value(n, path+".jitter")
		if err != nil {
			return b, err
		}
		digits, isPercent := strings.CutSuffix(text, "%")
		if b.Jitter, err = strconv.ParseUint(digits, 10, 64); err != nil || !isPercent || b.Jitter > 100 {
			return b, f.errorf(n, path+".jitter", "%q is not a percentage (want 0%% to 100%%)", text)
		}
	}
	return b, nil
}

func (f file) duration(n *yaml.Node, path string) (time.Duration, error) {
	text, err := f.value(n, path)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, f.errorf(n, path, "%q is not a positive duration (want e.g. 5s, 10m)", text)
	}
	return d, nil
}

func (f file) count(n *yaml.Node, path string) (int, error) {
	text, err := f.value(n, path)
	if err != nil {
		return 0, err
	}
	i, err := strconv.Atoi(text)
	if err != nil || i < 1 || i > maxAttempts {
		return 0, f.errorf(n, path, "%q is not a whole number from 1 to %d", text, maxAttempts)
	}
	return i, nil
}

func (f file) source(n *yaml.Node) string { return fmt.Sprintf("%s:%d", f.name, n.Line) }

// choice reads a scalar that must be one of the options.
func choice[T ~string](f file, n *yaml.Node, path, what string, options ...T) (T, error) {
	text, err := f.value(n, path)
	if err != nil {
		return "", err
	}
	if !slices.Contains(options, T(text)) {
		var want []string
		for _, o := range options {
			want = append(want, string(o))
		}
		return "", f.errorf(n, path, "unknown %s %q (want %s)", what, text, strings.Join(want, ", "))
	}
	return T(text), nil
}

// codePatterns are the codes that a rule of each gateway may name. Only Paydia has SNAP's
// seven digits and only AM has error:true: at the other gateway the rule would never apply.
var codePatterns = map[payment.Gateway]*regexp.Regexp{
	payment.AMDigiPay: regexp.MustCompile(`^(http:[0-9x]{3}|error:true|net:unsent|net:unknown|body:unreadable)$`),
	payment.Paydia:    regexp.MustCompile(`^([0-9x]{7}|http:[0-9x]{3}|net:unsent|net:unknown|body:unreadable|token:undecryptable)$`),
}

var codesInWords = map[payment.Gateway]string{
	payment.AMDigiPay: "http:NNN with x for any digit, error:true, net:unsent, net:unknown or body:unreadable",
	payment.Paydia:    "7 digits or http:NNN, both with x for any digit, net:unsent, net:unknown, body:unreadable or token:undecryptable",
}

func gatewayNames() []string {
	var names []string
	for _, g := range payment.Gateways() {
		names = append(names, string(g))
	}
	return names
}

// short formats a duration without trailing zero units: 10m instead of 10m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
