// Package stockclient drives stock Socket.IO clients, those that npm has, in a
// Node.js process of their own. It is for tests, and knows nothing of who serves
// them.
package stockclient

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// Driver is a process with clients, each of which has a name; see client/driver.js.
type Driver struct {
	t        testing.TB
	patience time.Duration
	stdin    io.Writer
	events   chan Happening

	kept     []Happening     // what Find went past
	upgraded map[string]bool // clients
}

// Happening is what the driver tells: what happens to a client.
type Happening struct {
	Client, What string

	Transport string
	ID        string
	Recovered bool
	Reason    string
	Message   string
	Data      any
	Event     string
	Args      []any
	Error     string
}

// Start starts a driver, until the test's end. The test fails if nothing happens for
// longer than patience while it waits for something.
func Start(t testing.TB, patience time.Duration) *Driver {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(here), "client")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		t.Fatalf("the stock client's packages are not installed: run make test, or npm ci in %s", dir)
	}
	cmd := exec.CommandContext(t.Context(), "node", "driver.js")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &Driver{t: t, patience: patience, stdin: stdin, events: make(chan Happening, 10_000), upgraded: map[string]bool{}}
	go func() {
		defer close(d.events)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 10<<20)
		for lines.Scan() {
			var h Happening
			if err := json.Unmarshal(lines.Bytes(), &h); err != nil {
				t.Errorf("the driver says %.200s", lines.Text())
			}
			d.events <- h
		}
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		for range d.events { // until it has ended
		}
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("the driver: %v", err)
		}
	})
	return d
}

// Do gives a command.
func (d *Driver) Do(command string, parameters map[string]any) {
	d.t.Helper()
	line := map[string]any{"command": command}
	for k, v := range parameters {
		line[k] = v
	}
	b, err := json.Marshal(line)
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := d.stdin.Write(append(b, '\n')); err != nil {
		d.t.Fatal(err)
	}
}

// Any is what happens next.
func (d *Driver) Any() Happening {
	d.t.Helper()
	if len(d.kept) > 0 {
		h := d.kept[0]
		d.kept = d.kept[1:]
		return h
	}
	return d.take()
}

func (d *Driver) take() Happening {
	d.t.Helper()
	select {
	case h, ok := <-d.events:
		if !ok {
			d.t.Fatal("the driver has ended")
		}
		if h.What == "upgrade" {
			d.upgraded[h.Client] = true
		}
		return h
	case <-time.After(d.patience):
		d.t.Fatalf("nothing happens; what did is %s", d.kept)
	}
	return Happening{}
}

// Next is what happens next, but for upgrades.
func (d *Driver) Next() Happening {
	d.t.Helper()
	for {
		if h := d.Any(); h.What != "upgrade" {
			return h
		}
	}
}

// Find waits for the first that happens of what is wanted. The rest is kept.
func (d *Driver) Find(wanted func(h Happening) bool) Happening {
	d.t.Helper()
	for i, h := range d.kept {
		if wanted(h) {
			d.kept = append(d.kept[:i:i], d.kept[i+1:]...)
			return h
		}
	}
	for {
		h := d.take()
		if wanted(h) {
			return h
		}
		d.kept = append(d.kept, h)
	}
}

// UntilUpgraded returns when a client has upgraded.
func (d *Driver) UntilUpgraded(client string) {
	d.t.Helper()
	for !d.upgraded[client] {
		d.kept = append(d.kept, d.take())
	}
}

// Connect makes a client, with options of the stock client's.
func (d *Driver) Connect(client, url string, options map[string]any) {
	d.t.Helper()
	d.Do("connect", map[string]any{"client": client, "url": url, "options": options})
}

// Enter makes a client and returns when it is connected.
func (d *Driver) Enter(client, url string, options map[string]any) Happening {
	d.t.Helper()
	d.Connect(client, url, options)
	h := d.Find(func(h Happening) bool { return h.Client == client && h.What != "upgrade" })
	if h.What != "connect" || h.ID == "" || h.Recovered {
		d.t.Fatalf("%s: %+v", client, h)
	}
	return h
}

// Emit sends an event that asks for an acknowledgement, which happens as "ack".
func (d *Driver) Emit(client, event string, args ...any) {
	d.t.Helper()
	d.Do("emit", map[string]any{"client": client, "event": event, "args": args})
}

// Send sends an event.
func (d *Driver) Send(client, event string, args ...any) {
	d.t.Helper()
	d.Do("send", map[string]any{"client": client, "event": event, "args": args})
}

// Say gives a command about a client.
func (d *Driver) Say(command, client string) {
	d.t.Helper()
	d.Do(command, map[string]any{"client": client})
}

// String tells a happening in one line.
func (h Happening) String() string {
	type plain Happening
	return fmt.Sprintf("%.500s", fmt.Sprintf("%+v", plain(h)))
}
