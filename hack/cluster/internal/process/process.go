// Package process starts the cluster's long-lived processes, remembers them,
// and finds and ends them later, from another run of the tool. A process is
// known by its id together with its start time and the machine's boot, so
// that a process that was given a dead one's id is never taken for it.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// marker is the environment variable that every process of a cluster carries,
// and inherits to what it starts outside of containers (containerd's shims).
// Its value is the run folder.
const marker = "MARKETPLANE_CLUSTER_COMPONENT_OF"

// Identity tells one process from every other that this machine ever ran.
type Identity struct {
	PID int `json:"pid"`
	// Start is the process's start time in clock ticks since boot.
	Start uint64 `json:"start"`
	// Boot is the kernel's id of the boot.
	Boot string `json:"boot"`
}

// Record is what is remembered of a component.
type Record struct {
	Identity
	Name    string    `json:"name"`
	Args    []string  `json:"args"`
	Log     string    `json:"log"`
	Started time.Time `json:"started"`
}

// Manager starts and finds the processes of one cluster.
type Manager struct {
	// Owner is the run folder: the marker's value.
	Owner string
	// Records is the folder of the records.
	Records string
	// Logs is the folder of the logs.
	Logs string
}

// Start starts a component in a session of its own, so that it outlives the
// tool, and records it. A component that runs already is left alone.
func (m Manager) Start(name string, args []string) (Record, error) {
	if rec, err := m.Find(name); err == nil && rec.Alive() {
		return rec, nil
	}
	for _, dir := range []string{m.Records, m.Logs} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // logs and ids are no secrets
			return Record{}, fmt.Errorf("start %s: %w", name, err)
		}
	}
	logPath := filepath.Join(m.Logs, name+".log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644) //nolint:gosec // a log for people to read
	if err != nil {
		return Record{}, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(args[0], args[1:]...) //nolint:gosec,noctx // the component must outlive this process and its context
	cmd.Dir = "/"
	// A clean environment: a proxy that the user's shell names must not come
	// between components.
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", marker + "=" + m.Owner,
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Record{}, fmt.Errorf("start %s: %w", name, err)
	}
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return Record{}, fmt.Errorf("start %s: %w", name, err)
	}
	rec := Record{Identity: id, Name: name, Args: args, Log: logPath, Started: time.Now().UTC()}
	if err := m.write(rec); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return Record{}, err
	}
	// The process is init's to reap once the tool ends; until then a dead one
	// shows as a zombie, which Alive takes for dead.
	_ = cmd.Process.Release()
	return rec, nil
}

func (m Manager) write(rec Record) error {
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return fmt.Errorf("encode record of %s: %w", rec.Name, err)
	}
	path := filepath.Join(m.Records, rec.Name+".json")
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("record %s: %w", rec.Name, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("record %s: %w", rec.Name, err)
	}
	return nil
}

// Find returns the record of a component, or an error that is os.ErrNotExist
// if it was never started.
func (m Manager) Find(name string) (Record, error) {
	var rec Record
	data, err := os.ReadFile(filepath.Join(m.Records, name+".json"))
	if err != nil {
		return rec, fmt.Errorf("read record of %s: %w", name, err)
	}
	if err := json.Unmarshal(data, &rec); err != nil {
		return rec, fmt.Errorf("decode record of %s: %w", name, err)
	}
	return rec, nil
}

// Ours returns the processes of the cluster that run now: recorded or not,
// they carry the marker. So a process is found even if the tool was killed
// between starting and recording it.
func (m Manager) Ours() ([]Identity, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	want := []byte(marker + "=" + m.Owner)
	var found []Identity
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil {
			continue // it ended meanwhile
		}
		for _, entry := range bytes.Split(environ, []byte{0}) {
			if bytes.Equal(entry, want) {
				if id, err := identify(pid); err == nil && id.Alive() {
					found = append(found, id)
				}
				break
			}
		}
	}
	return found, nil
}

// identify reads the identity of a running process.
func identify(pid int) (Identity, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Identity{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	_, start, err := parseStat(string(stat))
	if err != nil {
		return Identity{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Identity{}, fmt.Errorf("identify boot: %w", err)
	}
	return Identity{PID: pid, Start: start, Boot: strings.TrimSpace(string(boot))}, nil
}

// parseStat returns the state letter and the start time of a /proc/PID/stat
// line (proc(5), fields 3 and 22). The second field is the program's name in
// parentheses and may itself hold spaces and parentheses.
func parseStat(stat string) (state string, start uint64, err error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return "", 0, errors.New("no program name in stat line")
	}
	fields := strings.Fields(stat[end+1:])
	const startField = 22 - 3 // the first two fields are cut off, and fields count from 1
	if len(fields) <= startField {
		return "", 0, errors.New("short stat line")
	}
	start, err = strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return "", 0, fmt.Errorf("start time in stat line: %w", err)
	}
	return fields[0], start, nil
}

// Alive says whether this very process still runs.
func (id Identity) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id.PID))
	if err != nil {
		return false
	}
	state, start, err := parseStat(string(stat))
	if err != nil || start != id.Start || state == "Z" || state == "X" {
		return false
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return err == nil && strings.TrimSpace(string(boot)) == id.Boot
}

// signal sends a signal to this very process, or to none.
func (id Identity) signal(sig os.Signal) {
	// FindProcess holds the process by a descriptor (pidfd_open) before the
	// check, so the id cannot pass to another process in between.
	p, err := os.FindProcess(id.PID)
	if err != nil {
		return
	}
	defer func() { _ = p.Release() }()
	if id.Alive() {
		_ = p.Signal(sig)
	}
}

// Identities turns process ids, as a control group lists them, into
// identities. What has ended is left out.
func Identities(pids []int) []Identity {
	var ids []Identity
	for _, pid := range pids {
		if id, err := identify(pid); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// End asks processes to end, kills those that still run after patience, and
// waits until all are gone.
func End(ctx context.Context, ids []Identity, patience time.Duration) error {
	if patience > 0 {
		for _, id := range ids {
			id.signal(syscall.SIGTERM)
		}
		if waitGone(ctx, ids, patience) {
			return nil
		}
	}
	for _, id := range ids {
		id.signal(syscall.SIGKILL)
	}
	if !waitGone(ctx, ids, 15*time.Second) {
		var left []string
		for _, id := range ids {
			if id.Alive() {
				left = append(left, strconv.Itoa(id.PID))
			}
		}
		return fmt.Errorf("processes do not end: %s", strings.Join(left, " "))
	}
	return nil
}

func waitGone(ctx context.Context, ids []Identity, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		alive := false
		for _, id := range ids {
			alive = alive || id.Alive()
		}
		if !alive {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// LogTail returns the last lines of the component's log, for an error message.
func (r Record) LogTail(lines int) string {
	data, err := os.ReadFile(r.Log)
	if err != nil {
		return err.Error()
	}
	const most = 64 << 10
	if len(data) > most {
		data = data[len(data)-most:]
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}
