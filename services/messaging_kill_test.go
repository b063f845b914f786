package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/events"
)

// envProgram has the test's own program be the product's, in a process of its own.
const envProgram = "MARKETPLANE_TEST_PROGRAM"

// valve passes on what a process says to the bus until it is shut.
type valve struct {
	address string
	shut    atomic.Bool
}

func newValve(t *testing.T, busURL string) *valve {
	t.Helper()
	to, err := url.Parse(busURL)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	v := &valve{address: listener.Addr().String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go v.pass(conn, to.Host)
		}
	}()
	return v
}

func (v *valve) pass(from net.Conn, address string) {
	defer func() { _ = from.Close() }()
	to, err := new(net.Dialer).Dial("tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	go func() { _, _ = io.Copy(from, to) }()
	lines := bufio.NewReader(from)
	for {
		chunk, err := lines.ReadSlice('\n')
		if !v.shut.Load() {
			if _, err := to.Write(chunk); err != nil {
				return
			}
		}
		if err != nil && err != bufio.ErrBufferFull { //nolint:errorlint // bufio returns it as it is
			return
		}
	}
}

// startAnother starts 'marketplane messaging' as a process that can be killed, on
// the same database, and on the bus behind a valve.
func (p *messagingProcess) startAnother(v *valve) (*messagingProcess, *exec.Cmd) {
	p.t.Helper()
	program, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	other := &messagingProcess{
		t: p.t, database: p.database, bus: p.bus, public: freeAddress(p.t), internal: freeAddress(p.t),
		signer: p.signer, settings: p.settings, ended: make(chan error, 1),
	}
	command := exec.CommandContext(p.t.Context(), program, contract.ComponentMessaging)
	command.Env = append(os.Environ(), envProgram+"=1")
	for name, value := range p.settings {
		command.Env = append(command.Env, name+"="+value)
	}
	command.Env = append(command.Env, contract.EnvInstance+"=messaging-1", contract.EnvListen+"="+other.public,
		contract.EnvInternalListen+"="+other.internal, contract.EnvBusURL+"=nats://"+v.address)
	command.Stdout, command.Stderr = testWriter{p.t}, testWriter{p.t}
	if err := command.Start(); err != nil {
		p.t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		other.ended <- command.Wait()
	}()
	p.t.Cleanup(func() {
		_ = command.Process.Kill()
		<-gone
	})
	other.await("ready", func() bool { return other.get(contract.PathReady, nil) == 200 })
	return other, command
}

// A process that is killed between a commit and its publishing loses nothing: the
// others find what they were not told of, and the sender finds it on another.
func TestAProcessKilledBetweenCommitAndPublishLosesNothing(t *testing.T) {
	t.Parallel()
	p := startMessaging(t, map[string]string{contract.EnvDrainFloor: "0s", contract.EnvDrainWindow: "0s"})
	v := newValve(t, p.settings[contract.EnvBusURL])
	other, command := p.startAnother(v)

	client, tasker, task := uuid.New(), uuid.New(), uuid.New()
	_, taskerGot := p.connect(tasker, uuid.New())
	ws, got := other.connect(client, uuid.New())
	p.append(events.Event{Subject: task, Data: events.OfferMade{TaskID: task, OfferID: uuid.New(), ClientID: client, TaskerID: tasker, Title: "Shelves"}})
	conversation := other.offered(got)
	send := func(ws *websocket.Conn, key uuid.UUID, text string) {
		t.Helper()
		if err := ws.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil,
			`{"id":2,"op":"send","conversation_id":%q,"client_id":%q,"body":{"text":%q}}`, conversation, key, text)); err != nil {
			t.Fatal(err)
		}
	}
	send(ws, uuid.New(), "before")
	other.want(got, `"re":2,"ok"`)
	p.want(taskerGot, "before")

	v.shut.Store(true)
	key := uuid.New()
	send(ws, key, "the last words")
	other.want(got, `"re":2,"ok"`)
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Each user's head is compared every 30 s.
	p.wantFor(time.Minute, taskerGot, "the last words")

	ws, got = p.connect(client, uuid.New())
	send(ws, key, "the last words")
	p.want(got, `"duplicate":true`)
	send(ws, uuid.New(), "after")
	for _, line := range p.wantFor(time.Minute, taskerGot, "after") {
		if strings.Contains(line, "the last words") {
			t.Errorf("it came twice: %s", line)
		}
	}

	p.terminate()
	if err := <-p.ended; err != nil {
		t.Errorf("the process ended with %v", err)
	}
}
