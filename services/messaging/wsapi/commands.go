package wsapi

import (
	"context"
	"errors"
	"time"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/messaging"
)

var (
	errUnauthenticated = fault.New(fault.Unauthenticated, "unauthenticated", "Send auth first.")
	errOtherUser       = fault.New(fault.Forbidden, "other_user", "This socket is another user's. Open one of its own.")
	errResumeLate      = fault.New(fault.Invalid, "cursor_not_wanted",
		"A cursor is taken only by the first auth of a socket.").At("/cursor")
	errEnded = fault.New(fault.Unauthenticated, "session_ended", "The session has ended. Log in again.")
)

// typingInterval is how often a client's typing in one conversation is told.
const typingInterval = 2 * time.Second

// execute executes one object; false once the connection is ending.
func (c *conn) execute(line []byte) bool {
	c.commands.Lock()
	defer c.commands.Unlock()
	if c.isEnding() {
		return false
	}
	cmd, err := decode(line)
	if errors.Is(err, errMalformed) {
		c.end(CodeMalformed, "malformed JSON", false)
		return false
	}
	if wait := c.bucket.Take(c.server.options.Rate, c.server.now()); wait > 0 {
		err = messaging.ErrRateLimited.After(wait)
	}
	if err != nil {
		c.refuse(cmd, err)
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	if cmd.op == opAuth {
		err = c.auth(ctx, cmd)
	} else if principal := c.who(); principal == (identity.Principal{}) {
		err = errUnauthenticated
	} else {
		err = c.perform(ctx, cmd, principal)
	}
	if err != nil {
		c.refuse(cmd, err)
		return true
	}
	c.server.metrics.received.WithLabelValues(cmd.op, "ok").Inc()
	return true
}

func (c *conn) who() identity.Principal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.principal
}

func (c *conn) refuse(cmd command, err error) {
	f := fault.From(err)
	switch f.Kind {
	case fault.Internal:
		c.server.log.Error("command failed", "op", cmd.op, "user", c.who().UserID, "error", err)
	case fault.Unavailable:
		// The metric counts them. While the database is away, that is every
		// command of every client.
		c.server.log.Debug("command refused for now", "op", cmd.op, "error", err)
	default:
	}
	op := cmd.op
	if _, known := fields[op]; !known {
		op = "unknown" // what clients make up must not become a label value
	}
	c.server.metrics.received.WithLabelValues(op, f.Code).Inc()
	c.reply(reply{Re: cmd.id, Error: errorOf(f)})
}

// succeed answers a command that wants an answer.
func (c *conn) succeed(cmd command, ok any) {
	if cmd.id != 0 {
		c.reply(reply{Re: cmd.id, OK: ok})
	}
}

func (c *conn) perform(ctx context.Context, cmd command, principal identity.Principal) error {
	service := c.server.service
	switch cmd.op {
	case opSend:
		s, err := service.Send(ctx, messaging.Draft{
			ConversationID: cmd.conversation, SenderID: principal.UserID, ClientID: cmd.clientID, Body: cmd.body,
		})
		if err != nil {
			return err
		}
		c.succeed(cmd, sent{ID: s.ID, Seq: s.Seq, Duplicate: s.Duplicate})
	case opRead:
		if err := service.Read(ctx, principal.UserID, cmd.conversation, cmd.seq); err != nil {
			return err
		}
		c.succeed(cmd, done{})
	case opTyping:
		if now := c.server.now(); c.typedIn != cmd.conversation || now.Sub(c.typedAt) >= typingInterval {
			c.typedIn, c.typedAt = cmd.conversation, now
			if err := service.Typing(ctx, principal.UserID, cmd.conversation); err != nil {
				return err
			}
		}
		c.succeed(cmd, done{})
	}
	return nil
}

func (c *conn) auth(ctx context.Context, cmd command) error {
	principal, err := c.server.sessions.Verify(ctx, cmd.token)
	if err != nil {
		return err
	}
	if before := c.who(); before != (identity.Principal{}) {
		return c.renew(cmd, before, principal)
	}
	var from *int64
	if cmd.cursor != nil {
		// What is no cursor of this user's is answered like one that is too old.
		offset, ok := messaging.DecodeCursor(principal.UserID, *cmd.cursor)
		if !ok {
			offset = -1
		}
		from = &offset
	}
	at, err := c.link.Attach(ctx, principal.UserID, principal.SessionID, from)
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
	c.after(c.server.options.PingInterval, c.ping)
	c.checkSession(principal)
	return nil
}

// checkSession closes a connection that was bound to its session just now, if
// the session ended after the token was verified and before the link could hear
// of it.
func (c *conn) checkSession(principal identity.Principal) {
	if c.server.sessions.IsRevoked(principal.SessionID) {
		c.SessionEnded(messaging.SessionEndedPayload(principal.SessionID))
		c.end(CodeSessionEnded, errEnded.Code, false)
	}
}

// renew takes a new token on a live socket.
func (c *conn) renew(cmd command, before, after identity.Principal) error {
	if after.UserID != before.UserID {
		return errOtherUser
	}
	if cmd.cursor != nil {
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
