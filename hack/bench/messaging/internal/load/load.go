package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/hack/bench/messaging/internal/plan"
	"github.com/marketplane/marketplane/hack/bench/messaging/internal/wire"
)

// text fills the bodies of messages to the length of a sentence.
var text = strings.Repeat("Could you come at ten? ", 4)

// load does the steps of one job.
type load struct {
	ctx      context.Context
	job      plan.Job
	protocol wire.Protocol
	loop     *loop
	conns    []conn // by user
	tokens   []string
	targets  []syscall.SockaddrInet4
	requests [][]byte // by target

	conversations []string
	position      int       // in the turns of those who send
	client        uuid.UUID // the last client id
	id            uint32    // the last id of a send
	// flight holds sends without an answer, by id.
	flight map[uint32]sent

	body, payload, buffer []byte // scratch

	// failure is the first thing that went wrong. It fails the step at work.
	failure error
	// onAck, onOpen are the step's.
	onAck  func(user int, now time.Time)
	onOpen func()
	result plan.Result
	late, openings,
	acks, deliveries *hdrhistogram.Histogram
}

// sent is a message that is not acknowledged yet.
type sent struct {
	user int
	at   int64 // when it was to be sent, in Unix nanoseconds
}

func newLoad(ctx context.Context, job plan.Job) (*load, error) {
	if err := job.Validate(); err != nil {
		return nil, fmt.Errorf("the job: %w", err)
	}
	tokens, err := job.Tokens(time.Now())
	if err != nil {
		return nil, err
	}
	l := &load{
		ctx: ctx, job: job, protocol: wire.Native{}, tokens: tokens,
		conns: make([]conn, job.Users), flight: map[uint32]sent{}, id: wire.FirstID,
		late: newHistogram(), openings: newHistogram(), acks: newHistogram(), deliveries: newHistogram(),
	}
	if job.Protocol == plan.SocketIO {
		l.protocol = wire.SocketIO{}
	}
	_, _ = rand.Read(l.client[:]) // never fails: crypto/rand
	l.client[6], l.client[8] = 0x40|l.client[6]&0x0F, 0x80|l.client[8]&0x3F
	for i := range job.Conversations() {
		l.conversations = append(l.conversations, plan.Conversation(i).String())
	}
	for _, target := range job.Targets {
		address, err := netip.ParseAddrPort(target)
		if err != nil {
			return nil, fmt.Errorf("the target %s: %w", target, err)
		}
		l.targets = append(l.targets, syscall.SockaddrInet4{Addr: address.Addr().As4(), Port: int(address.Port())})
		l.requests = append(l.requests, l.request(target))
	}
	for i := range l.conns {
		l.conns[i] = conn{load: l, user: i, fd: -1}
	}
	l.loop, err = newLoop(func(c *conn, err error) { l.fail(fmt.Errorf("user %d: %w", c.user, err)) })
	return l, err
}

func (l *load) close() { l.loop.close() }

// newHistogram holds latencies from 1 µs to a minute, to three digits.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 60_000_000, 3) }

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d.Microseconds(), 1), h.HighestTrackableValue())) // it is within the bounds
}

func quantiles(h *hdrhistogram.Histogram) plan.Quantiles {
	at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond }
	return plan.Quantiles{P50: at(50), P99: at(99), Max: time.Duration(h.Max()) * time.Microsecond}
}

func (l *load) fail(err error) {
	if l.failure == nil {
		l.failure = err
	}
}

// await waits for a step, and turns the loop meanwhile. io.EOF means that there
// is none left.
func (l *load) await(steps <-chan plan.Step) (plan.Step, error) {
	for {
		select {
		case step, ok := <-steps:
			if !ok {
				return step, io.EOF
			}
			return step, nil
		case <-l.ctx.Done():
			return plan.Step{}, l.ctx.Err()
		default:
		}
		if err := l.loop.turn(10 * time.Millisecond); err != nil {
			return plan.Step{}, err
		}
	}
}

// do does one step, and measures it.
func (l *load) do(step plan.Step) (plan.Result, error) {
	l.result = plan.Result{}
	l.onAck, l.onOpen = nil, nil
	for _, h := range []*hdrhistogram.Histogram{l.late, l.openings, l.acks, l.deliveries} {
		h.Reset()
	}
	work, ok := map[string]func(plan.Step) error{
		plan.Connect: l.connect, plan.Hold: l.hold, plan.Send: l.send, plan.Typing: l.typing,
		plan.Exchange: l.exchange, plan.Drop: l.drop,
	}[step.Do]
	if !ok {
		return l.result, errors.New("there is no such step")
	}
	begin, processor := time.Now(), processorTime()
	err := work(step)
	if err == nil {
		err = l.failure
	}
	if err != nil {
		return l.result, err
	}
	l.result.Took, l.result.Processor = time.Since(begin), processorTime()-processor
	l.result.Late, l.result.Opening = quantiles(l.late), quantiles(l.openings)
	l.result.Ack, l.result.Delivery = quantiles(l.acks), quantiles(l.deliveries)
	return l.result, nil
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// until turns the loop until done, which also says how long to wait at most for
// the next thing to do.
func (l *load) until(deadline time.Time, what string, done func(now time.Time) (bool, time.Duration)) error {
	for {
		now := time.Now()
		ended, wait := done(now)
		switch {
		case l.failure != nil:
			return l.failure
		case ended:
			return nil
		case l.ctx.Err() != nil:
			return l.ctx.Err()
		case now.After(deadline):
			return fmt.Errorf("%s: not in time", what)
		}
		if err := l.loop.turn(min(max(wait, 0), 100*time.Millisecond)); err != nil {
			return err
		}
	}
}

// write sends a frame.
func (l *load) write(c *conn, opcode byte, payload []byte) {
	l.buffer = wire.AppendFrame(l.buffer[:0], opcode, payload)
	l.loop.write(c, l.buffer)
}

// message sends a message of a user's, which was to be sent at the given time.
func (l *load) message(user int, at time.Time) {
	l.id++
	for i := 15; i > 8; i-- { // the next client id
		if l.client[i]++; l.client[i] != 0 {
			break
		}
	}
	sentAt := at.UnixNano()
	l.flight[l.id] = sent{user: user, at: sentAt}
	l.body = wire.AppendBody(l.body[:0], sentAt, text)
	l.payload = l.protocol.AppendSend(l.payload[:0], l.id, l.conversations[user/l.job.Members], l.client.String(), l.body)
	l.write(&l.conns[user], wire.Text, l.payload)
}

// acked notes an acknowledgement.
func (l *load) acked(id uint32) {
	s, ok := l.flight[id]
	if !ok {
		l.fail(fmt.Errorf("an acknowledgement of nothing: %d", id))
		return
	}
	delete(l.flight, id)
	now := time.Now()
	record(l.acks, now.Sub(time.Unix(0, s.at)))
	l.result.Acked++
	if l.onAck != nil {
		l.onAck(s.user, now)
	}
}

// delivered notes a message, or a signal, which has no time.
func (l *load) delivered(sentAt int64) {
	l.result.Delivered++
	if sentAt != 0 {
		record(l.deliveries, time.Since(time.Unix(0, sentAt)))
	}
}

// opened notes that a connection may be open now.
func (l *load) opened(c *conn) {
	if !c.opening || !c.ready || c.missing > 0 {
		return
	}
	c.opening = false
	record(l.openings, time.Since(time.Unix(0, c.opened)))
	l.result.Done++
	if l.onOpen != nil {
		l.onOpen()
	}
}
