package events

import (
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
)

// Subjects names the bus subjects of one installation.
type Subjects struct{ prefix string }

// SubjectsOf returns an installation's subjects.
func SubjectsOf(installation string) Subjects {
	return Subjects{prefix: contract.SubjectPrefix(installation)}
}

// Wake tells that the event log has something new. Its messages are empty.
func (s Subjects) Wake() string { return s.prefix + ".events" }

// Many carries what is new for many users at once, to every process.
func (s Subjects) Many() string { return s.prefix + ".many" }

// User carries what is new in a user's stream.
func (s Subjects) User(id uuid.UUID) string { return s.prefix + ".user." + id.String() }

// Inbox is where answers to one question come, on subjects below it.
func (s Subjects) Inbox(id uuid.UUID) string { return s.prefix + ".inbox." + id.String() }

// Presence carries what the messaging processes tell each other of who is there.
func (s Subjects) Presence() string { return s.prefix + ".presence" }
