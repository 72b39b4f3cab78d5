package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// event is the part of a CloudEvent that this program uses.
type event struct {
	ID      string `json:"id"`
	Source  string `json:"source"` // terbayar/<gateway>
	Type    string `json:"type"`   // terbayar.payment.<status>
	Subject string `json:"subject"`
	Data    struct {
		Amount int64 `json:"amount"`
	} `json:"data"`
}

// process acts on an event once, however often it is delivered. Replace what it prints by what
// an order needs; do that in the transaction that stores the key.
func process(s *store, text []byte) error {
	var e event
	if err := json.Unmarshal(text, &e); err != nil {
		return err
	}
	if e.ID == "" || e.Source == "" || e.Type == "" || e.Subject == "" {
		return errors.New("not a result event")
	}
	first, err := s.once(e.key(), text)
	if err == nil && first {
		fmt.Println(e.Source, e.Subject, e.Type, e.Data.Amount)
	}
	return err
}

// key identifies what an event may cause once. After a Redis failover the same change may
// come under another id, so the key is not the id, except for the statuses that a payment may
// enter more than once.
func (e *event) key() string {
	if e.Type == "terbayar.payment.on_processing" || e.Type == "terbayar.payment.needs_review" {
		return e.ID
	}
	return e.Source + " " + e.Subject + " " + e.Type
}

// store stands for the database of the order system, which all consumers of the group share.
// Its files are rows: a file exists or not, like a row with a unique key.
type store struct{ dir *os.Root }

func openStore(path string) (*store, error) {
	for _, sub := range []string{"done", "parked", "tmp"} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			return nil, err
		}
	}
	dir, err := os.OpenRoot(path)
	return &store{dir}, err
}

// once records that the event with this key has been processed, and reports whether that is
// the first time. In SQL: INSERT INTO processed_events (key, event) ... ON CONFLICT DO
// NOTHING, and the change of the order in the same transaction if a row was inserted.
func (s *store) once(key string, event []byte) (first bool, err error) {
	temporary, err := s.write(event)
	if err != nil {
		return false, err
	}
	err = s.dir.Link(temporary, fmt.Sprintf("done/%x.json", sha256.Sum256([]byte(key))))
	first = err == nil
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return first, errors.Join(err, s.sync("done"), s.dir.Remove(temporary))
}

// park keeps an event that cannot be processed, for a person.
func (s *store) park(stream, id string, event []byte) error {
	return s.replace("parked/"+fileName(stream, id), event)
}

// position returns the position of a stream; "" if none is stored.
func (s *store) position(stream string) (string, error) {
	text, err := s.dir.ReadFile(fileName("position", stream))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

func (s *store) setPosition(stream, position string) error {
	return s.replace(fileName("position", stream), []byte(position))
}

func fileName(parts ...string) string { return url.PathEscape(strings.Join(parts, " ")) }

// replace writes a file of the store, whole or not at all.
func (s *store) replace(name string, content []byte) error {
	temporary, err := s.write(content)
	if err != nil {
		return err
	}
	return errors.Join(s.dir.Rename(temporary, name), s.sync(filepath.Dir(name)))
}

// write writes a durable temporary file.
func (s *store) write(content []byte) (name string, err error) {
	name = "tmp/" + rand.Text()
	f, err := s.dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(content)
	return name, errors.Join(err, f.Sync(), f.Close())
}

// sync makes the names of the files in a directory durable.
func (s *store) sync(name string) error {
	d, err := s.dir.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
