package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"terbayar/internal/events"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
	// maxScanned is how many entries one answer reads for a key that sees only some of them.
	maxScanned = 10_000
	// heartbeat is how often an event stream sends something, so that proxies keep it open and a
	// client that has gone is noticed.
	heartbeat = 15 * time.Second
	// eventsPoll is how often a waiting request reads by itself: the hub wakes it before.
	eventsPoll = 5 * time.Second
)

// eventList is the answer of /v1/events as JSON.
type eventList struct {
	Events []json.RawMessage `json:"events"`
	Next   string            `json:"next"`
}

// getEvents answers the events after a position, as JSON or as a stream.
func (s *Server) getEvents(w *response, r *http.Request, key Key) {
	streamed := strings.Contains(r.Header.Get("Accept"), "text/event-stream")
	allowed := []string{"after", "limit", "wait"}
	if streamed {
		allowed = allowed[:1]
	}
	query := r.URL.Query()
	p := checkQuery(r, allowed...)
	after := query.Get("after")
	if last := r.Header.Get("Last-Event-ID"); last != "" { // it is later: a reconnect repeats the first request
		after = last
	}
	if p == nil && !s.o.Streams.Valid(after) {
		p = newProblem(http.StatusBadRequest, "after (or Last-Event-ID) must be what an earlier answer had as next or id, of the same LEDGER_PARTITIONS")
	}
	limit, wait := defaultLimit, time.Duration(0)
	if text := query.Get("limit"); p == nil && text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxLimit {
			p = newProblem(http.StatusBadRequest, fmt.Sprintf("limit must be a number from 1 to %d", maxLimit))
		}
	}
	if p == nil {
		wait, p = parseWait(r)
	}
	if p != nil {
		p.write(w)
		return
	}
	if p, err := s.checkRedis(r.Context()); p != nil {
		w.fail(p, err)
		return
	}
	if streamed {
		s.streamEvents(w, r, key, after)
		return
	}
	s.listEvents(w, r, key, after, limit, wait)
}

// listEvents answers events as JSON. If there is none, it waits.
func (s *Server) listEvents(w *response, r *http.Request, key Key, after string, limit int, wait time.Duration) {
	var woken <-chan struct{}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	for {
		list, atEnd, err := s.page(r.Context(), key, after, limit)
		if err != nil {
			if gone(r, err) {
				w.abort = true
				return
			}
			w.fail(unavailable("the store of the payments does not answer", retryRedis), err)
			return
		}
		if len(list.Events) > 0 || !atEnd || wait == 0 {
			writeJSON(w, http.StatusOK, list)
			return
		}
		after = list.Next
		if woken == nil {
			release, ok := s.wait(w)
			if !ok {
				errTooManyWait.write(w)
				return
			}
			defer release()
			var stop func()
			woken, stop = s.hub.watch(nil)
			defer stop()
			continue // an event may have come before
		}
		select {
		case <-woken:
		case <-time.After(eventsPoll):
		case <-deadline.C:
			writeJSON(w, http.StatusOK, list)
			return
		case <-s.stopping:
			writeJSON(w, http.StatusOK, list)
			return
		case <-r.Context().Done():
			w.abort = true
			return
		}
	}
}

// page returns up to limit events that a key may see, and reports whether these are all.
func (s *Server) page(ctx context.Context, key Key, after string, limit int) (list eventList, atEnd bool, err error) {
	list.Events = []json.RawMessage{}
	list.Next = after
	for scanned := 0; scanned < maxScanned; scanned += pageEntries {
		page, next, end, err := s.o.Streams.Page(ctx, list.Next, pageEntries)
		if err != nil {
			return list, false, err
		}
		for _, p := range page {
			if !key.Includes(keyOf(p.Event)) {
				continue
			}
			list.Events = append(list.Events, p.Event)
			list.Next = p.After
			if len(list.Events) == limit {
				return list, false, nil
			}
		}
		list.Next = next
		if end {
			return list, true, nil
		}
	}
	return list, false, nil
}

// streamEvents answers events as server-sent events until the client goes, the server shuts down,
// or the key ends. It does not end while Redis is down.
func (s *Server) streamEvents(w *response, r *http.Request, key Key, after string) {
	release, ok := s.wait(w)
	if !ok {
		errTooManyWait.write(w)
		return
	}
	defer release()
	woken, stop := s.hub.watch(nil)
	defer stop()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would wait for more
	w.WriteHeader(http.StatusOK)
	if _, err := fmt.Fprint(w, "retry: 2000\n\n"); err != nil || w.flush() != nil {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	poll := time.NewTicker(eventsPoll)
	defer poll.Stop()
	sent := after // the last id that the client has received
	for {
		page, next, atEnd, err := s.o.Streams.Page(r.Context(), after, pageEntries)
		if r.Context().Err() != nil || !s.o.Keys.inForce(key, s.o.Now()) {
			return
		}
		if err == nil {
			after = next
			id, ok := writeEvents(w, key, page)
			if !ok {
				return
			}
			if id != "" {
				sent = id
			}
			if !atEnd {
				continue
			}
		}
		select {
		case <-woken:
		case <-poll.C:
		case <-beat.C:
			text := ":\n\n"
			if after != sent { // events that this key does not see
				text, sent = "id: "+after+"\n\n", after
			}
			if _, err := fmt.Fprint(w, text); err != nil || w.flush() != nil { //nolint:gosec // G705: a cursor, in an event stream
				return
			}
		case <-s.stopping:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// writeEvents writes and sends the events that a key may see, and returns the id of the last one.
// It reports false if the client has gone. An event is one line of JSON.
func writeEvents(w *response, key Key, page []events.Positioned) (id string, ok bool) {
	for _, p := range page {
		if !key.Includes(keyOf(p.Event)) {
			continue
		}
		if _, err := fmt.Fprintf(w, "id: %s\ndata: %s\n\n", p.After, p.Event); err != nil {
			return "", false
		}
		id = p.After
	}
	return id, id == "" || w.flush() == nil
}
