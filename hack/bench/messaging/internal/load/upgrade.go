package load

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
	"github.com/marketplane/marketplane/hack/bench/messaging/internal/wire"
)

// A client with Job.Upgrade gets its session by a poll, and goes on over another
// connection, which becomes a WebSocket.

// poll begins a session.
func (l *load) poll(c *conn) error {
	target := c.user % len(l.targets)
	if err := l.loop.open(c, plan.Address(c.user), l.targets[target]); err != nil {
		return err
	}
	c.polling = true
	l.loop.write(c, get(wire.SocketIO{}.PollPath(), l.job.Targets[target], ""))
	return nil
}

// polled takes the answer to the poll, and asks for the upgrade.
func (c *conn) polled(data []byte) (rest []byte, err error) {
	l := c.load
	body, whole, err := responseBody(data)
	if err != nil || !whole {
		return data, err
	}
	sid, err := wire.SocketIO{}.SessionID(body)
	if err != nil {
		return nil, err
	}
	target := c.user % len(l.targets)
	if l.job.Upgrade == plan.UpgradeElsewhere {
		target = (target + 1) % len(l.targets)
	}
	request := get(wire.SocketIO{}.UpgradePath(sid), l.job.Targets[target], upgradeHeader)
	l.loop.drop(c)
	c.polling, c.connected = false, false
	if err := l.loop.open(c, plan.Address(c.user), l.targets[target]); err != nil {
		return nil, err
	}
	l.loop.write(c, request)
	return nil, nil
}

const contentLength = "\r\ncontent-length: "

// responseBody is that of an HTTP answer with a Content-Length, once it is whole.
func responseBody(data []byte) (body []byte, whole bool, err error) {
	head, rest, ok := bytes.Cut(data, endOfHead)
	if !ok {
		return nil, false, nil
	}
	lower := bytes.ToLower(head)
	_, text, ok := bytes.Cut(lower, []byte(contentLength))
	if !ok || !bytes.HasPrefix(lower, []byte("http/1.1 200 ")) {
		return nil, false, fmt.Errorf("no answer to a poll: %.300s", head)
	}
	text, _, _ = bytes.Cut(text, []byte("\r\n"))
	length, err := strconv.Atoi(string(text))
	if err != nil || length < 0 {
		return nil, false, fmt.Errorf("no answer to a poll: %.300s", head)
	}
	return rest[:min(length, len(rest))], len(rest) >= length, nil
}
