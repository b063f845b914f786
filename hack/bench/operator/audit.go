package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
)

// counts are the operator's requests over some time, by what they were.
type counts struct {
	// byObject are writes that took effect by object; a status is written to its
	// object.
	byObject map[string]int
	// byKind are writes by resource and verb, "deployments patch" for one.
	byKind map[string]int
	// refused are writes that were answered with an error, by resource, verb
	// and code.
	refused map[string]int
	events  int
	leases  int
	reads   map[string]int
}

// writes is the sum of those that took effect and those that did not, without
// Events and the Lease.
func (c counts) writes() int {
	sum := 0
	for _, n := range c.byObject {
		sum += n
	}
	for _, n := range c.refused {
		sum += n
	}
	return sum
}

// refusedShare is the part of all writes that was refused.
func (c counts) refusedShare() float64 {
	refused := 0
	for _, n := range c.refused {
		refused += n
	}
	return float64(refused) / float64(max(c.writes(), 1))
}

// most is the largest number of writes to one object, and which that was.
func (c counts) most() (int, string) {
	most, which := 0, ""
	for object, n := range c.byObject {
		if n > most || n == most && object < which {
			most, which = n, object
		}
	}
	return most, which
}

func (c counts) readSum() int {
	sum := 0
	for _, n := range c.reads {
		sum += n
	}
	return sum
}

// auditEvent is what is read of an audit.k8s.io/v1 Event.
type auditEvent struct {
	Verb      string `json:"verb"`
	ObjectRef struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// auditLog reads what the operator asked for, piece by piece.
type auditLog struct {
	path   string
	offset int64
}

// next counts the requests since the last call.
func (a *auditLog) next() (counts, error) {
	c := counts{byObject: map[string]int{}, byKind: map[string]int{}, refused: map[string]int{}, reads: map[string]int{}}
	file, err := os.Open(a.path)
	if err != nil {
		return c, err
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(a.offset, io.SeekStart); err != nil {
		return c, err
	}
	reader := bufio.NewReader(file)
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			// What is not a whole line yet is read the next time.
			return c, nil
		}
		if err != nil {
			return c, err
		}
		a.offset += int64(len(line))
		var event auditEvent
		if err := json.Unmarshal(line, &event); err != nil {
			return c, fmt.Errorf("read the audit log: %w", err)
		}
		c.add(event)
	}
}

func (c *counts) add(event auditEvent) {
	ref := event.ObjectRef
	kind := ref.Resource
	if ref.Subresource != "" {
		kind += "/" + ref.Subresource
	}
	switch event.Verb {
	case "get", "list", "watch":
		c.reads[event.Verb+" "+kind]++
		return
	default: // All others write.
	}
	switch ref.Resource {
	case "events":
		c.events++
		return
	case "leases":
		c.leases++
		return
	default: // An object of a Marketplace, or one itself.
	}
	if event.ResponseStatus.Code >= 400 {
		c.refused[fmt.Sprintf("%s %s %d", kind, event.Verb, event.ResponseStatus.Code)]++
		return
	}
	c.byObject[ref.Resource+" "+ref.Namespace+"/"+ref.Name]++
	c.byKind[kind+" "+event.Verb]++
}

// table is a count by name as one line, most first.
func table(counts map[string]int) string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := names[i], names[j]
		return counts[a] > counts[b] || counts[a] == counts[b] && a < b
	})
	parts := make([]string, 0, len(names))
	for _, name := range names {
		parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
