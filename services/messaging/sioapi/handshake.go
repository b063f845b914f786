package sioapi

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

var errNoToken = fault.New(fault.Unauthenticated, "unauthenticated",
	`Connect with your access token in the client's option auth: {token: "..."}.`)

// admit lets clients in who have a token.
func (s *Server) admit(ctx context.Context, h *socketio.Handshake) error {
	allowance := h.Facts.(*door.Allowance) //nolint:errcheck,forcetypeassert // NewServer has it made
	if err := s.door.Take(allowance, s.now()); err != nil {
		return s.refusal(ctx, err)
	}
	var auth struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(h.Auth, &auth) != nil || auth.Token == "" {
		return s.refusal(ctx, errNoToken)
	}
	principal, err := s.sessions.Verify(ctx, auth.Token)
	if err != nil {
		return s.refusal(ctx, err)
	}
	c := &client{server: s, conn: h.Conn, principal: principal, allowance: allowance}
	if c.link, err = s.hub.Admit(c); err != nil {
		return s.refusal(ctx, err)
	}
	h.OnAbandon(c.link.Leave)
	h.Data = c
	return nil
}

// longWait is how long those wait at most who cannot be let in for now: they come
// back when their connection is closed, and should not do so all at once.
const longWait = 5 * time.Second

// refusal says what an error means for who wants to be let in. Stock clients stay
// away after a refusal, so only what would be refused again is one.
func (s *Server) refusal(ctx context.Context, err error) error {
	if ctx.Err() != nil { // the client has left, or nobody had time for it
		return err
	}
	f := fault.From(err)
	problem := s.door.Refused(door.OpAuth, uuid.Nil, err)
	switch {
	case problem.Temporary && f.RetryAfter > 0 && f.RetryAfter < time.Second:
		return &socketio.NotNow{After: f.RetryAfter}
	case problem.Temporary || f.Kind == fault.Internal:
		return &socketio.NotNow{After: time.Second + rand.N(longWait-time.Second)} //nolint:gosec // G404: jitter needs no secrecy
	}
	return &socketio.Refusal{Message: f.Message, Data: problem}
}

// attach begins at the head of the client's stream.
func (s *Server) attach(ctx context.Context, h *socketio.Handshake) error {
	c := h.Data.(*client) //nolint:errcheck,forcetypeassert // admit has put it there
	if _, err := c.link.Attach(ctx, c.principal.UserID, c.principal.SessionID, nil); err != nil {
		return s.refusal(ctx, err)
	}
	s.door.Succeeded(door.OpAuth)
	return nil
}

// recover begins where the client says that it was, if everything since is kept.
func (s *Server) recover(ctx context.Context, h *socketio.Handshake) (socketio.Recovery, error) {
	c := h.Data.(*client) //nolint:errcheck,forcetypeassert // admit has put it there
	user := c.principal.UserID
	var from *int64
	var sid string
	if h.PID != "" {
		offset := int64(-1) // nothing follows it
		if p, ok := s.openPlace(user, h.PID); ok {
			offset, sid = p.after(h.Offset, user), p.sid
		}
		from = &offset
	}
	at, err := c.link.Attach(ctx, user, c.principal.SessionID, from)
	if err != nil {
		return socketio.Recovery{}, s.refusal(ctx, err)
	}
	s.door.Succeeded(door.OpAuth)
	if at.Recovered {
		return socketio.Recovery{PID: h.PID, SID: sid}, nil
	}
	return socketio.Recovery{PID: s.sealPlace(user, place{offset: at.Offset, sid: h.SID})}, nil
}

// place is what a pid holds: whose it is, where his stream was when his socket began,
// and the socket's id.
type place struct {
	offset int64
	sid    string
}

// after is where the client is in its stream: where the last offset says that it saw,
// or where it began. It is negative if the offset is none of the user's.
func (p place) after(offset string, user uuid.UUID) int64 {
	if offset == "" {
		return p.offset
	}
	seen, ok := messaging.DecodeCursor(user, offset)
	if !ok {
		return -1
	}
	// A stock client that saw nothing yet still brings what it saw on an earlier
	// socket, which was not recovered.
	return max(seen, p.offset)
}

func (s *Server) sealPlace(user uuid.UUID, p place) string {
	b := append(make([]byte, 0, 64), user[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.offset)) //nolint:gosec // G115: offsets are never negative
	return s.options.Places.Seal(append(b, p.sid...))
}

// openPlace is false for what is no pid of the user's: it proves nothing by itself.
func (s *Server) openPlace(user uuid.UUID, pid string) (p place, ok bool) {
	b, err := s.options.Places.Open(pid)
	if err != nil || len(b) <= len(user)+8 || uuid.UUID(b[:len(user)]) != user {
		return place{}, false
	}
	b = b[len(user):]
	return place{offset: int64(binary.BigEndian.Uint64(b)), sid: string(b[8:])}, true //nolint:gosec // G115: sealPlace wrote it
}
