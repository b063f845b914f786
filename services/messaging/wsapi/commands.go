package wsapi

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/wsconn"
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

// execute executes one object, which was read at a time.
func (c *conn) execute(line []byte, read time.Time) {
	cmd, err := decode(line)
	if errors.Is(err, errMalformed) {
		c.end(CodeMalformed, "not a JSON object", false)
		return
	}
	if wait := c.bucket.Take(c.server.options.Rate, read); wait > 0 {
		err = messaging.ErrRateLimited.After(wait)
	}
	principal := c.who()
	if err == nil && cmd.op != opAuth && principal == (identity.Principal{}) {
		err = errUnauthenticated
	}
	switch {
	case err != nil:
		c.refuse(cmd.id, cmd.op, err)
	case cmd.op == opSend:
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
	f := fault.From(err)
	switch f.Kind {
	case fault.Internal:
		c.server.log.Error("command failed", "op", op, "user", c.who().UserID, "error", err)
	case fault.Unavailable:
		// The metric counts them. While the database is away, that is every
		// command of every client.
		c.server.log.Debug("command refused for now", "op", op, "error", err)
	default:
	}
	if _, known := fields[op]; !known {
		op = "unknown" // what clients make up must not become a label value
	}
	c.server.metrics.received.WithLabelValues(op, f.Code).Inc()
	c.reply(reply{Re: id, Error: errorOf(f)})
}

// succeed answers a command that wants an answer.
func (c *conn) succeed(cmd command, ok any) {
	c.server.metrics.taken[cmd.op].Inc()
	if cmd.id != 0 {
		c.reply(reply{Re: cmd.id, OK: ok})
	}
}

// send has a message written. The answer comes when it is.
func (c *conn) send(cmd command, principal identity.Principal, read time.Time) {
	c.beginSend()
	id := cmd.id
	c.server.service.Enqueue(messaging.Draft{
		ConversationID: cmd.conversation, SenderID: principal.UserID, ClientID: cmd.clientID, Body: cmd.body,
	}, func(sent messaging.Sent, err error) {
		if err != nil {
			c.refuse(id, opSend, err)
		} else {
			var scratch [128]byte
			c.queued(c.ws.Join(wsconn.Now, appendSent(scratch[:0], id, sent)))
			c.server.metrics.taken[opSend].Inc()
			c.server.metrics.ack.Observe(c.server.now().Sub(read).Seconds())
		}
		c.endSend()
	})
}

// perform executes a command that waits for others than the client, which has
// its answers to earlier ones meanwhile.
func (c *conn) perform(cmd command, principal identity.Principal) {
	c.ws.Uncork()
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	var err error
	switch cmd.op {
	case opAuth:
		err = c.auth(ctx, cmd)
	case opRead:
		if err = c.server.service.Read(ctx, principal.UserID, cmd.conversation, cmd.seq); err == nil {
			c.succeed(cmd, done{})
		}
	case opTyping:
		if err = c.typing(ctx, cmd, principal); err == nil {
			c.succeed(cmd, done{})
		}
	case opHistory:
		err = c.history(ctx, cmd, principal)
	case opPresence:
		if err = c.announce(cmd, principal); err == nil {
			c.succeed(cmd, done{})
		}
	}
	if err != nil {
		c.refuse(cmd.id, cmd.op, err)
	}
}

func (c *conn) typing(ctx context.Context, cmd command, principal identity.Principal) error {
	now := c.server.now()
	if c.typedIn == cmd.conversation && now.Sub(c.typedAt) < typingInterval {
		return nil
	}
	if err := c.server.service.Typing(ctx, principal.UserID, cmd.conversation); err != nil {
		return err // nothing was told: the next one is not held back, and gets the same answer
	}
	c.typedIn, c.typedAt = cmd.conversation, now
	return nil
}

// announce says whether the user is there, on this connection.
func (c *conn) announce(cmd command, principal identity.Principal) error {
	if c.server.options.Presence == nil {
		return errUnknownOp
	}
	if c.place == nil {
		c.place = c.server.options.Presence.Join(principal.UserID)
	}
	c.place.Announce(cmd.status)
	return nil
}

// historyBytes bounds a page of history, unless one message is larger: it must
// leave room for what else waits for the client.
const historyBytes = 64 << 10

func (c *conn) history(ctx context.Context, cmd command, principal identity.Principal) error {
	found, err := c.server.service.History(ctx, principal.UserID, cmd.conversation,
		messaging.HistoryQuery{Before: cmd.before, Limit: cmd.limit})
	if err != nil {
		return err
	}
	p := page{Messages: make([]json.RawMessage, 0, len(found.Messages)), NextBefore: found.NextBefore}
	size := 0
	for i, m := range found.Messages {
		message := messaging.MessagePayload(m)
		if size += len(message); size > historyBytes && i > 0 {
			p.NextBefore = found.Messages[i-1].Seq
			break
		}
		p.Messages = append(p.Messages, message)
	}
	c.succeed(cmd, p)
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
