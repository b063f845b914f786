// Package process runs the programs that a benchmark measures, each as a
// process of its own, and reads from /proc what they use. It knows none of them.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long a process may take to end when it is asked to.
const patience = 30 * time.Second

// ticksPerSecond is the unit of times in /proc/PID/stat (proc(5)): Linux has
// shown it as 100 on every machine for decades.
const ticksPerSecond = 100

// Options say what to run.
type Options struct {
	// Name is what errors call it, and the log's name with ".log".
	Name string
	// Program and Arguments are the command.
	Program   string
	Arguments []string
	// Environment is all of it, beside PATH: nothing of the caller's surroundings
	// may change what is measured.
	Environment []string
	// Logs is the folder of its log.
	Logs string
	// Dir is the folder that it works in; the caller's if empty.
	Dir string
	// As says as whom it runs; nil for the caller.
	As *syscall.SysProcAttr
	// End asks it to end; SIGTERM if it is 0.
	End syscall.Signal
	// Input and Output are the process's, if they are set; what it writes goes to
	// its log otherwise.
	Input  io.Reader
	Output io.Writer
}

// Process is a program, running.
type Process struct {
	name    string
	command *exec.Cmd
	done    chan struct{}
	log     *os.File
	end     syscall.Signal
}

// Start runs a program. It ends with Stop, or with this process.
func Start(options Options) (*Process, error) {
	log, err := os.Create(filepath.Join(options.Logs, options.Name+".log"))
	if err != nil {
		return nil, err
	}
	command := exec.Command(options.Program, options.Arguments...) //nolint:gosec,noctx // It is what is measured; Stop ends it.
	command.Env = append([]string{"PATH=" + os.Getenv("PATH")}, options.Environment...)
	command.Dir = options.Dir
	command.Stdin, command.Stdout, command.Stderr = options.Input, log, log
	if options.Output != nil {
		command.Stdout = options.Output
	}
	as := syscall.SysProcAttr{}
	if options.As != nil {
		as = *options.As
	}
	// A group of its own: an interrupt at the terminal is this program's to pass
	// on, in order.
	as.Setpgid = true
	command.SysProcAttr = &as
	if err := command.Start(); err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("start %s: %w", options.Name, err)
	}
	p := &Process{name: options.Name, command: command, done: make(chan struct{}), log: log, end: options.End}
	if p.end == 0 {
		p.end = syscall.SIGTERM
	}
	go func() {
		defer close(p.done)
		_ = command.Wait() // How it ended is read from its log.
	}()
	return p, nil
}

// Stop asks the process to end, waits for it, and kills it if that lasts. It may
// be called again, and on nil.
func (p *Process) Stop() {
	if p == nil {
		return
	}
	_ = p.command.Process.Signal(p.end)
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-p.done:
	case <-late.C:
		_ = p.command.Process.Kill()
		<-p.done
	}
	_ = p.log.Close()
}

// Kill ends the process at once.
func (p *Process) Kill() {
	_ = p.command.Process.Kill()
	<-p.done
	_ = p.log.Close()
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID is the process's id.
func (p *Process) PID() int { return p.command.Process.Pid }

// Log is the path of its log.
func (p *Process) Log() string { return p.log.Name() }

// Failed returns an error once the process has ended by itself.
func (p *Process) Failed() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %s; see %s", p.name, p.command.ProcessState, p.log.Name())
	default:
		return nil
	}
}

// Memory returns the resident memory, now and at its peak, in bytes.
func (p *Process) Memory() (now, peak int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kilobytes, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			now = kilobytes << 10
		case "VmHWM":
			peak = kilobytes << 10
		}
	}
	if now == 0 || peak == 0 {
		return 0, 0, fmt.Errorf("the kernel does not tell the memory of %s", p.name)
	}
	return now, peak, nil
}

// Processor returns the processor time that the process has used.
func (p *Process) Processor() (time.Duration, error) {
	t, err := readTimes(p.PID())
	if err != nil {
		return 0, fmt.Errorf("the processor time of %s: %w", p.name, err)
	}
	return t.own, nil
}

// FamilyProcessor returns the processor time of the process and its children,
// those that have ended among them.
func (p *Process) FamilyProcessor() (time.Duration, error) {
	t, err := readTimes(p.PID())
	if err != nil {
		return 0, fmt.Errorf("the processor time of %s: %w", p.name, err)
	}
	sum := t.own + t.ended
	ids, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, entry := range ids {
		id, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		child, err := readTimes(id)
		if err == nil && child.parent == p.PID() { // it may have ended just now
			sum += child.own + child.ended
		}
	}
	return sum, nil
}

// times are what /proc/PID/stat tells of a process.
type times struct {
	parent int
	// own is its own time, ended that of its children that have ended.
	own, ended time.Duration
}

func readTimes(pid int) (times, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return times{}, err
	}
	// The fields are counted behind the command's name, which may hold blanks.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return times{}, errors.New("the kernel does not tell it")
	}
	var numbers [5]int64 // the parent, and user, system, children's user, children's system time
	var errs [5]error
	for i, field := range []int{1, 11, 12, 13, 14} {
		numbers[i], errs[i] = strconv.ParseInt(fields[field], 10, 64)
	}
	ticks := func(n int64) time.Duration { return time.Duration(n) * time.Second / ticksPerSecond }
	return times{
		parent: int(numbers[0]), own: ticks(numbers[1] + numbers[2]), ended: ticks(numbers[3] + numbers[4]),
	}, errors.Join(errs[:]...)
}

// Fetch returns what a URL answers.
func Fetch(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, 64<<20))
}

// FreeAddress returns a loopback address that nobody listens on.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It is closed at once.
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
