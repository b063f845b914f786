package sioapi

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/marketplane/marketplane/services/internal/fault"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/door"
	"github.com/marketplane/marketplane/services/messaging/socketio"
)

var errArguments = fault.New(fault.Invalid, "arguments_invalid",
	"Send the event with one argument, an object without binary data, and a callback for the answer.")

// refused is the answer to a command that was not executed: answers say by ok which
// they are.
type refused struct {
	OK    bool          `json:"ok"`
	Error *door.Problem `json:"error"`
}

// decode reads the command that an event is.
func decode(e socketio.Event) (door.Command, error) {
	if e.Args.Len() != 1 || e.Args.Attachments() > 0 {
		return door.Command{Op: e.Name}, errArguments
	}
	cmd, err := door.DecodeFields(e.Name, e.Args.At(0).JSON())
	if errors.Is(err, door.ErrMalformed) {
		err = errArguments
	}
	return cmd, err
}

// execute executes a command.
func (c *client) execute(e socketio.Event) (pause <-chan struct{}) {
	c.mu.Lock()
	ending := c.ending.Load()
	c.executing = !ending
	c.mu.Unlock()
	if ending {
		return nil
	}
	read := c.server.now()
	cmd, err := decode(e)
	if tooFast := c.server.door.Take(c.allowance, read); tooFast != nil {
		err = tooFast
	}
	switch {
	case err != nil:
		c.refuse(cmd.Op, e.Ack, err)
	case cmd.Op == door.OpSend:
		pause = c.send(cmd, e.Ack, read)
	default:
		return c.perform(cmd, e.Ack)
	}
	c.executed()
	return pause
}

// executed is called when the client's next command may be executed.
func (c *client) executed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.executing = false
	if c.gone {
		c.guest.Leave()
		return
	}
	c.finish()
}

func (c *client) refuse(op string, ack *socketio.Ack, err error) {
	problem := c.server.door.Refused(op, c.principal.UserID, err)
	c.emitted(ack.Send(refused{Error: problem}))
}

// send has a message written. The answer comes when it is.
func (c *client) send(cmd door.Command, ack *socketio.Ack, read time.Time) (pause <-chan struct{}) {
	c.mu.Lock()
	c.sends++
	c.mu.Unlock()
	c.server.door.Send(c.principal.UserID, cmd, read, func(sent messaging.Sent, err error) {
		if err != nil {
			c.refuse(door.OpSend, ack, err)
		} else {
			var scratch [128]byte
			c.emitted(ack.SendRaw(appendSent(scratch[:0], sent)))
		}
		c.sent()
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sends >= door.MaxSends {
		c.pause = make(chan struct{})
	}
	return c.pause
}

// sent counts a send that has its answer.
func (c *client) sent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sends--
	if c.pause != nil && c.sends <= door.MaxSends/2 {
		close(c.pause)
		c.pause = nil
	}
	c.finish()
}

// appendSent appends the answer to a send.
func appendSent(b []byte, sent messaging.Sent) []byte {
	b = append(b, `{"ok":true,"id":"`...)
	b = messaging.AppendUUID(b, sent.ID)
	b = append(b, `","seq":`...)
	b = strconv.AppendInt(b, sent.Seq, 10)
	b = append(b, `,"duplicate":`...)
	b = strconv.AppendBool(b, sent.Duplicate)
	return append(b, '}')
}

// perform executes a command that waits for others than the client. Nothing more is
// read of the client meanwhile.
func (c *client) perform(cmd door.Command, ack *socketio.Ack) (pause <-chan struct{}) {
	done := make(chan struct{})
	c.server.running.Go(func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), door.CommandTimeout)
		defer cancel()
		answer, err := c.server.door.Perform(ctx, &c.guest, c.principal.UserID, cmd)
		if err != nil {
			c.refuse(cmd.Op, ack, err)
		} else {
			c.server.door.Succeeded(cmd.Op)
			c.emitted(ack.Send(okOf(answer)))
		}
		c.executed()
	})
	return done
}

// okOf is the answer to a command that succeeded.
func okOf(answer any) any {
	if page, ok := answer.(door.Page); ok {
		return struct {
			OK bool `json:"ok"`
			door.Page
		}{true, page}
	}
	return struct {
		OK bool `json:"ok"`
	}{true}
}
