package process

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	tail := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"
	tests := map[string]struct {
		stat      string
		wantState string
		wantStart uint64
		wantErr   bool
	}{
		"plain":                        {stat: "42 (etcd)" + tail, wantState: "S", wantStart: 4711},
		"spaces and parentheses":       {stat: "42 (a) b (c" + ")" + tail, wantState: "S", wantStart: 4711},
		"no name":                      {stat: "42 etcd S", wantErr: true},
		"short":                        {stat: "42 (etcd) S 1", wantErr: true},
		"start time that is no number": {stat: "42 (etcd)" + strings.Replace(tail, "4711", "x", 1), wantErr: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state, start, err := parseStat(tc.stat)
			if (err != nil) != tc.wantErr {
				t.Fatalf("error = %v, want one: %t", err, tc.wantErr)
			}
			if state != tc.wantState || start != tc.wantStart {
				t.Errorf("parseStat = %q, %d; want %q, %d", state, start, tc.wantState, tc.wantStart)
			}
		})
	}
}

func newManager(t *testing.T) Manager {
	t.Helper()
	dir := t.TempDir()
	m := Manager{Owner: dir, Records: filepath.Join(dir, "pids"), Logs: filepath.Join(dir, "logs")}
	t.Cleanup(func() {
		ours, err := m.Ours()
		if err != nil {
			t.Errorf("list processes: %v", err)
		}
		if err := End(context.Background(), ours, 0); err != nil {
			t.Errorf("end processes: %v", err)
		}
	})
	return m
}

func TestStartFindEnd(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	rec, err := m.Start("sleeper", []string{"sleep", "600"})
	if err != nil {
		t.Fatal(err)
	}
	if !rec.Alive() {
		t.Fatal("the started process is not alive")
	}
	again, err := m.Start("sleeper", []string{"sleep", "600"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rec.Identity, again.Identity); diff != "" {
		t.Errorf("a second start of a running component is another process:\n%s", diff)
	}
	found, err := m.Find("sleeper")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rec.Identity, found.Identity); diff != "" {
		t.Errorf("the record differs from what was started:\n%s", diff)
	}
	session, err := syscall.Getpgid(rec.PID)
	if err != nil || session != rec.PID {
		t.Errorf("process group of the component = %d, %v; want its own, %d", session, err, rec.PID)
	}
	if err := End(t.Context(), []Identity{rec.Identity}, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if rec.Alive() {
		t.Error("the ended process is alive")
	}
}

func TestOursFindsWhatIsNotRecorded(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	// The shell's child carries the marker too, as a containerd shim does.
	if _, err := m.Start("parent", []string{"sh", "-c", "sleep 600 & wait"}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(m.Records); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		ours, err := m.Ours()
		if err != nil {
			t.Fatal(err)
		}
		if len(ours) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("found %d processes, want the shell and its child", len(ours))
		}
	}
	other := Manager{Owner: m.Owner + "-other"}
	if ours, err := other.Ours(); err != nil || len(ours) != 0 {
		t.Errorf("another cluster's processes = %v, %v; want none", ours, err)
	}
}

// A process that was given a dead one's id must never be taken for it.
func TestRecycledIDIsLeftAlone(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "echo up; exec sleep 600")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for name, stale := range map[string]Identity{
		"started earlier": {PID: id.PID, Start: id.Start - 1, Boot: id.Boot},
		"another boot":    {PID: id.PID, Start: id.Start, Boot: "another"},
	} {
		if stale.Alive() {
			t.Errorf("%s: alive", name)
		}
		if err := End(t.Context(), []Identity{stale}, time.Second); err != nil {
			t.Errorf("%s: end: %v", name, err)
		}
	}
	if !id.Alive() {
		t.Error("the process that has the id now was ended")
	}
}

func TestLogTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(path, []byte("one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := (Record{Log: path}).LogTail(2); got != "two\nthree" {
		t.Errorf("LogTail = %q", got)
	}
}
