package presence

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// maxIDs bounds the users in one note: about 160 KB.
const maxIDs = 4000

// note is what processes tell each other. It only ever gains fields.
type note struct {
	// From is the sender, who may hear its own notes.
	From   uuid.UUID   `json:"from"`
	Told   []statement `json:"told,omitempty"`
	Lowers []statement `json:"lowers,omitempty"`
	Holds  []statement `json:"holds,omitempty"`
	Comes  []statement `json:"comes,omitempty"`
	Known  []statement `json:"known,omitempty"`
	Asks   []ask       `json:"asks,omitempty"`
}

type statement struct {
	User   uuid.UUID `json:"user"`
	Status Status    `json:"status"`
}

type ask struct {
	User uuid.UUID   `json:"user"`
	Of   []uuid.UUID `json:"of"`
}

// size counts the users in it.
func (n *note) size() int {
	total := len(n.Told) + len(n.Lowers) + len(n.Holds) + len(n.Comes) + len(n.Known)
	for _, a := range n.Asks {
		total += 1 + len(a.Of)
	}
	return total
}

func decodeNote(data []byte) (note, error) {
	var n note
	if err := json.Unmarshal(data, &n); err != nil {
		return note{}, fmt.Errorf("decode a note of presence: %w", err)
	}
	// Both bounds are above what is sent: see maxIDs and MaxAudience.
	if n.size() > 2*maxIDs {
		return note{}, errors.New("decode a note of presence: too many users")
	}
	return n, nil
}

// outbox collects what a process has to say, in notes of bounded size.
type outbox struct {
	from  uuid.UUID
	notes []note
}

// room returns a note to which n users can be added.
func (o *outbox) room(n int) *note {
	if last := len(o.notes) - 1; last >= 0 && o.notes[last].size()+n <= maxIDs {
		return &o.notes[last]
	}
	o.notes = append(o.notes, note{From: o.from})
	return &o.notes[len(o.notes)-1]
}

func (o *outbox) told(user uuid.UUID, s Status) {
	n := o.room(1)
	n.Told = append(n.Told, statement{user, s})
}

func (o *outbox) lowers(user uuid.UUID, s Status) {
	n := o.room(1)
	n.Lowers = append(n.Lowers, statement{user, s})
}

func (o *outbox) holds(user uuid.UUID, s Status) {
	n := o.room(1)
	n.Holds = append(n.Holds, statement{user, s})
}

func (o *outbox) comes(user uuid.UUID, s Status) {
	n := o.room(1)
	n.Comes = append(n.Comes, statement{user, s})
}

func (o *outbox) known(user uuid.UUID, s Status) {
	n := o.room(1)
	n.Known = append(n.Known, statement{user, s})
}

func (o *outbox) asks(user uuid.UUID, of []uuid.UUID) {
	n := o.room(1 + len(of))
	n.Asks = append(n.Asks, ask{user, of})
}

// take empties it.
func (o *outbox) take() []note {
	taken := o.notes
	o.notes = nil
	return taken
}
