package webhooks

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.yaml.in/yaml/v3"

	"terbayar/internal/events"
	"terbayar/internal/payment"
	"terbayar/internal/secret"
)

// Endpoint is a receiver of result events.
type Endpoint struct {
	Name     string // identifies its deliveries in Redis: an endpoint with a new name is a new one
	URL      *url.URL
	Gateways []payment.Gateway // empty: all
	Statuses []payment.Status  // empty: all
	Prefix   string            // of transaction ids
	Disabled bool              // its events wait until it is enabled
	signers  []*standardwebhooks.Webhook
}

// DefaultName is the name of the endpoint of WEBHOOK_URL.
const DefaultName = "default"

// maxSecrets is how many secrets sign at the same time, while they are rotated.
const maxSecrets = 3

// wants reports whether the endpoint selects an event.
func (e *Endpoint) wants(ev event) bool {
	return (len(e.Gateways) == 0 || slices.Contains(e.Gateways, ev.gateway())) &&
		(len(e.Statuses) == 0 || slices.Contains(e.Statuses, ev.status())) &&
		strings.HasPrefix(ev.Subject, e.Prefix)
}

// NewEndpoint returns the endpoint of WEBHOOK_URL, as ParseURL returns it, and WEBHOOK_SECRET. It
// receives all events. The error is about the secret, and does not contain it.
func NewEndpoint(u *url.URL, secrets secret.Text) (*Endpoint, error) {
	e := &Endpoint{Name: DefaultName, URL: u}
	return e, e.setSecrets(secrets)
}

// ParseURL checks the URL of an endpoint. The error does not contain it: it may have a
// password or a token.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL such as https://shop.example/terbayar")
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, errors.New("must be a URL such as https://shop.example/terbayar (http:// only for addresses of WEBHOOK_ALLOW)")
	case u.User != nil:
		return nil, errors.New("must not have a user or password: receivers check the signature")
	case u.Fragment != "":
		return nil, errors.New("must not have a fragment (#)")
	}
	return u, nil
}

// setSecrets parses the secrets, separated by commas or line breaks. Each is what the
// Standard Webhooks specification calls a symmetric secret: whsec_ and base64 of 24 to 64
// random bytes. The error does not contain them.
func (e *Endpoint) setSecrets(secrets secret.Text) error {
	words := strings.FieldsFunc(secrets.Reveal(), func(r rune) bool { return strings.ContainsRune(", \r\n\t", r) })
	if len(words) == 0 || len(words) > maxSecrets {
		return fmt.Errorf("want 1 to %d secrets, got %d", maxSecrets, len(words))
	}
	e.signers = nil
	for i, word := range words {
		encoded, prefixed := strings.CutPrefix(word, "whsec_")
		raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
		switch {
		case !prefixed:
			return fmt.Errorf("secret %d of %d does not begin with whsec_: want whsec_ and base64 of 24 to 64 random bytes", i+1, len(words))
		case err != nil:
			return fmt.Errorf("secret %d of %d is not whsec_ and standard base64", i+1, len(words))
		case len(raw) < 24 || len(raw) > 64:
			return fmt.Errorf("secret %d of %d has %d bytes (want 24 to 64)", i+1, len(words), len(raw))
		}
		signer, err := standardwebhooks.NewWebhookRaw(raw)
		if err != nil {
			return err
		}
		e.signers = append(e.signers, signer)
	}
	return nil
}

// Load reads WEBHOOKS_FILE. The error names file, line and field, and contains no secret.
func Load(path string) ([]*Endpoint, error) {
	doc, err := os.ReadFile(path) //nolint:gosec // the operator's own setting
	if err != nil {
		return nil, err // os names the path
	}
	f := file{path}
	root, err := f.root(doc)
	if err != nil {
		return nil, err
	}
	top, err := f.fields(root, "", "endpoints")
	if err != nil {
		return nil, err
	}
	list := top["endpoints"]
	if list == nil || list.Kind != yaml.SequenceNode || len(list.Content) == 0 {
		return nil, f.errorf(root, "endpoints", "must be a list of at least one endpoint")
	}
	var all []*Endpoint
	for i, node := range list.Content {
		e, err := f.endpoint(node, fmt.Sprintf("endpoints[%d]", i))
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(other *Endpoint) bool { return other.Name == e.Name }) {
			return nil, f.errorf(node, fmt.Sprintf("endpoints[%d].name", i), "%q is used twice", e.Name)
		}
		all = append(all, e)
	}
	return all, nil
}

// endpointName is what a name may be: it is part of keys in Redis and a label of metrics.
var endpointName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// endpoint parses one element of the list.
func (f file) endpoint(node *yaml.Node, path string) (*Endpoint, error) {
	fields, err := f.fields(node, path, "name", "url", "secrets", "secrets_file", "gateways", "types", "prefix", "disabled")
	if err != nil {
		return nil, err
	}
	e := &Endpoint{}
	var address, secrets, secretsFile string
	var gateways, types []string
	for _, field := range []struct {
		name string
		to   any
	}{
		{"name", &e.Name},
		{"url", &address},
		{"secrets_file", &secretsFile},
		{"gateways", &gateways},
		{"types", &types},
		{"prefix", &e.Prefix},
		{"disabled", &e.Disabled},
	} {
		if n := fields[field.name]; n != nil && n.Decode(field.to) != nil {
			return nil, f.errorf(n, path+"."+field.name, "has the wrong type")
		}
	}
	if n := fields["secrets"]; n != nil {
		var list []string
		if n.Decode(&list) != nil {
			return nil, f.errorf(n, path+".secrets", "must be a list of strings")
		}
		secrets = strings.Join(list, ",")
	}
	at := func(name string) *yaml.Node {
		if n := fields[name]; n != nil {
			return n
		}
		return node
	}
	if !endpointName.MatchString(e.Name) {
		return nil, f.errorf(at("name"), path+".name", "must be 1 to 40 of a-z, 0-9 and -")
	}
	if e.URL, err = ParseURL(address); err != nil {
		return nil, f.errorf(at("url"), path+".url", "%v", err)
	}
	if (fields["secrets"] != nil) == (fields["secrets_file"] != nil) {
		return nil, f.errorf(node, path, "needs either secrets or secrets_file")
	}
	if secretsFile != "" {
		if !filepath.IsAbs(secretsFile) {
			secretsFile = filepath.Join(filepath.Dir(f.name), secretsFile)
		}
		content, err := os.ReadFile(secretsFile) //nolint:gosec // the operator's own setting
		if err != nil {
			return nil, f.errorf(at("secrets_file"), path+".secrets_file", "%v", err)
		}
		secrets = string(content)
	}
	if err := e.setSecrets(secret.NewText(secrets)); err != nil {
		name := "secrets"
		if secretsFile != "" {
			name = "secrets_file"
		}
		return nil, f.errorf(at(name), path+"."+name, "%v", err)
	}
	for _, name := range gateways {
		g := payment.Gateway(name)
		if !slices.Contains(payment.Gateways(), g) {
			return nil, f.errorf(at("gateways"), path+".gateways", "unknown gateway %q (want %v)", name, payment.Gateways())
		}
		e.Gateways = append(e.Gateways, g)
	}
	for _, name := range types {
		status, err := ParseType(name)
		if err != nil {
			return nil, f.errorf(at("types"), path+".types", "%v", err)
		}
		e.Statuses = append(e.Statuses, status)
	}
	return e, nil
}

// ParseType returns the status that events of a type report. The type may be written without
// events.TypePrefix.
func ParseType(name string) (payment.Status, error) {
	statuses := eventStatuses()
	status := payment.Status(strings.TrimPrefix(name, events.TypePrefix))
	if !slices.Contains(statuses, status) {
		return "", fmt.Errorf("there are no events of type %q (want one of %v, or %s and one of these)", name, statuses, events.TypePrefix)
	}
	return status, nil
}

// eventStatuses returns the statuses that have events.
func eventStatuses() []payment.Status {
	return slices.DeleteFunc(payment.Statuses(), func(s payment.Status) bool { return !s.HasEvent() })
}

// file reads a YAML document. The errors of its methods name the file, the line and the field,
// and never quote a value: it may be a secret.
type file struct{ name string }

func (f file) errorf(n *yaml.Node, path, format string, args ...any) error {
	if path != "" {
		path += ": "
	}
	return fmt.Errorf("%s:%d: %s%s", f.name, n.Line, path, fmt.Sprintf(format, args...))
}

// root returns the root of the document.
func (f file) root(doc []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(doc))
	var first, second yaml.Node
	if err := d.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: is empty", f.name)
		}
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: want one YAML document", f.name)
	}
	return first.Content[0], nil
}

// fields returns the values of a mapping by their names.
func (f file) fields(n *yaml.Node, path string, known ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, f.errorf(n, path, "must be a mapping with the fields %s", strings.Join(known, ", "))
	}
	fields := map[string]*yaml.Node{}
	for i := 0; i < len(n.Content); i += 2 {
		name := n.Content[i]
		switch {
		case !slices.Contains(known, name.Value):
			return nil, f.errorf(name, path, "unknown field (want %s)", strings.Join(known, ", "))
		case fields[name.Value] != nil:
			return nil, f.errorf(name, path, "%s is set twice", name.Value)
		}
		fields[name.Value] = n.Content[i+1]
	}
	return fields, nil
}
