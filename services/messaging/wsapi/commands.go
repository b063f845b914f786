package wsapi

import (
	"context"
	"errors"
	"time"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/wsconn"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
)

var (
	errUnauthenticated = fault.New(fault.Unauthenticated, "unauthenticated", "Send auth first.")
	errOtherUser       = fault.New(fault.Forbidden, "other_user", "This socket is another user's. Open one of its own.")
	errResumeLate      = fault.New(fault.Invalid, "cursor_not_wanted",
		"A cursor is taken only by the first auth of a socket.").At("/cursor")
)

// execute executes one object, which was read at a time.
func (c *conn) execute(line []byte, read time.Time) {
	cmd, err := door.Decode(line)
	if errors.Is(err, door.ErrMalformed) {
		c.end(CodeMalformed, "not a JSON object", false)
		return
	}
	if tooFast := c.server.door.Take(&c.allowance, read); tooFast != nil {
		err = tooFast
	}
	principal := c.who()
	if err == nil && cmd.Op != door.OpAuth && principal == (identity.Principal{}) {
		err = errUnauthenticated
	}
	switch {
	case err != nil:
		c.refuse(cmd.ID, cmd.Op, err)
	case cmd.Op == door.OpSend:
		c.send(cmd, principal, read)
	default:
		c.perform(cmd, principal)
	}
}

func (c *conn) who() identity.Principal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.principal
}

func (c *conn) refuse(id uint64, op string, err error) {
	c.reply(reply{Re: id, Error: c.server.door.Refused(op, c.who().UserID, err)})
}

// succeed answers a command that wants an answer.
func (c *conn) succeed(cmd door.Command, ok any) {
	c.server.door.Succeeded(cmd.Op)
	if cmd.ID != 0 {
		c.reply(reply{Re: cmd.ID, OK: ok})
	}
}

// send has a message written. The answer comes when it is.
func (c *conn) send(cmd door.Command, principal identity.Principal, read time.Time) {
	c.beginSend()
	id := cmd.ID
	c.server.door.Send(principal.UserID, cmd, read, func(sent messaging.Sent, err error) {
		if err != nil {
			c.refuse(id, door.OpSend, err)
		} else {
			var scratch [128]byte
			c.queued(c.ws.Join(wsconn.Now, appendSent(scratch[:0], id, sent)))
		}
		c.endSend()
	})
}

// perform executes a command that waits for others than the client, which has
// its answers to earlier ones meanwhile.
func (c *conn) perform(cmd door.Command, principal identity.Principal) {
	c.ws.Uncork()
	ctx, cancel := context.WithTimeout(context.Background(), door.CommandTimeout)
	defer cancel()
	var err error
	if cmd.Op == door.OpAuth {
		err = c.auth(ctx, cmd)
	} else {
		var answer any
		answer, err = c.server.door.Perform(ctx, &c.guest, principal.UserID, cmd)
		c.ws.Cork() // the answer goes out with those of the frame's next commands
		if err == nil {
			c.succeed(cmd, answer)
		}
	}
	if err != nil {
		c.refuse(cmd.ID, cmd.Op, err)
	}
}

func (c *conn) auth(ctx context.Context, cmd door.Command) error {
	principal, err := c.server.sessions.Verify(ctx, cmd.Token)
	if err != nil {
		return err
	}
	if before := c.who(); before != (identity.Principal{}) {
		return c.renew(cmd, before, principal)
	}
	var from *int64
	if cmd.Cursor != nil {
		// What is no cursor of this user's is answered like one that is too old.
		offset, ok := messaging.DecodeCursor(principal.UserID, *cmd.Cursor)
		if !ok {
			offset = -1
		}
		from = &offset
	}
	at, err := c.link.Attach(ctx, principal.UserID, principal.SessionID, from)
	c.ws.Cork() // the answer and what was missed go out together
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.principal = principal
	c.mu.Unlock()
	c.succeed(cmd, authenticated{
		Session: principal.SessionID, User: principal.UserID,
		Cursor: messaging.EncodeCursor(principal.UserID, at.Offset), Recovered: &at.Recovered,
	})
	c.link.Start()
	c.schedule(c.server.options.PingInterval)
	c.checkSession(principal)
	return nil
}

// checkSession closes a connection that was bound to its session just now, if
// the session ended after the token was verified and before the link could hear
// of it.
func (c *conn) checkSession(principal identity.Principal) {
	if c.server.sessions.IsRevoked(principal.SessionID) {
		c.SessionEnded(messaging.SessionEndedPayload(principal.SessionID))
		c.end(CodeSessionEnded, door.ErrSessionEnded.Code, false)
	}
}

// renew takes a new token on a live socket.
func (c *conn) renew(cmd door.Command, before, after identity.Principal) error {
	if after.UserID != before.UserID {
		return errOtherUser
	}
	if cmd.Cursor != nil {
		return errResumeLate
	}
	if after.SessionID != before.SessionID {
		c.link.Rebind(after.SessionID)
	}
	c.mu.Lock()
	c.principal = after
	c.mu.Unlock()
	c.succeed(cmd, authenticated{Session: after.SessionID, User: after.UserID})
	c.checkSession(after)
	return nil
}
