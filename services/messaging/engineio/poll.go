package engineio

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// poll serves a GET (section "Receiving data").
func (s *Server) poll(w http.ResponseWriter, r *http.Request, c *Conn) {
	g := &poll{wake: make(chan struct{}, 1), begun: time.Now()}
	p, code := c.beginPoll(g)
	if p == nil {
		s.fail(w, r, code)
		return
	}
	// It may take longer than the HTTP server lets requests take, which it cannot know.
	// Where there are no deadlines, none are needed.
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{})
	var timer *time.Timer
	var late <-chan time.Time
	for {
		answer, counted, wait := c.answer(p, g)
		if answer != nil && g.refused {
			s.fail(w, r, CodeBadRequest)
			return
		}
		if answer != nil {
			err := s.writePoll(w, r, control, answer)
			c.answered(p, counted, err)
			return
		}
		if wait > 0 && timer == nil {
			timer = time.NewTimer(wait)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-g.wake:
		case <-late:
		case <-r.Context().Done():
			c.cancelPoll(g)
			return
		}
	}
}

// beginPoll lets a poll wait; nil if it must not, and why.
func (c *Conn) beginPoll(g *poll) (*polling, Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beat()
	p := c.polling
	switch {
	case c.state == stateEnded && p != nil && p.left:
		c.server.forget(c)
		p.left, g.verdict = false, []byte{byte(packetNoop)}
		return p, 0
	case c.state == stateEnded:
		return nil, CodeUnknownSession
	case p == nil: // the other transport carries it
		return nil, CodeBadRequest
	case p.waiting != nil:
		c.end(TransportError, errPollOverlap)
		return nil, CodeBadRequest
	}
	g.late = c.probe != nil
	p.waiting = g
	return p, 0
}

// answer is a poll's, once there is one. Otherwise, there will be after wait, if that
// is positive.
func (c *Conn) answer(p *polling, g *poll) (payload []byte, counted int, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case g.verdict != nil: // p may be past
		return g.verdict, 0, 0
	case len(p.queue) > 0 && !p.corked:
	case c.state == stateClosing:
	case c.probe != nil && c.probe.answered:
		if early := noopDelay - time.Since(g.begun); g.late && early > 0 {
			return nil, 0, early
		}
		p.waiting = nil
		return []byte{byte(packetNoop)}, 0, 0
	default:
		return nil, 0, 0
	}
	p.waiting = nil
	if c.state == stateClosing {
		p.addControl(c.server, packetClose)
	}
	payload, counted = p.take()
	if c.state == stateClosing {
		c.end(c.reason, nil)
	}
	return payload, counted, 0
}

// answered is told how the writing of an answer went.
func (c *Conn) answered(p *polling, counted int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.wrote(c.server, counted)
	p.notify()
	// What is lost is lost on WebSocket, too.
	if err != nil && (counted > 0 || c.polling == p) {
		c.endWith(TransportError, fmt.Errorf("answer a poll: %w", err), closePolicy, string(TransportError))
	}
}

// cancelPoll ends the session whose client has given up a poll, unless that was
// over already.
func (c *Conn) cancelPoll(g *poll) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g.verdict == nil {
		c.polling.waiting = nil
		c.end(TransportError, errPollCanceled)
	}
}

// writePoll writes an answer.
func (s *Server) writePoll(w http.ResponseWriter, r *http.Request, control *http.ResponseController, answer []byte) error {
	allow(w, r)
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(len(answer)))
	h.Set("Cache-Control", "no-store")
	for len(answer) > 0 {
		_ = control.SetWriteDeadline(time.Now().Add(s.options.WriteTimeout)) // as above
		n, err := w.Write(answer[:min(len(answer), chunk)])
		if err != nil {
			return err //nolint:wrapcheck // for ourselves
		}
		answer = answer[n:]
	}
	if err := control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err //nolint:wrapcheck // for ourselves
	}
	return nil
}
