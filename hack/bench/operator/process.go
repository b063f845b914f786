package main

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

// process is the operator, running.
type process struct {
	command *exec.Cmd
	done    chan struct{}
	metrics string
	profile string
	log     *os.File
}

// ticksPerSecond is the unit of times in /proc/PID/stat (proc(5)): Linux has
// shown it as 100 on every machine for decades.
const ticksPerSecond = 100

func startOperator(program, kubeconfig, dir string) (*process, error) {
	metrics, err := freeAddress()
	if err != nil {
		return nil, err
	}
	profile, err := freeAddress()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "operator.log")) //nolint:gosec // The folder is the caller's.
	if err != nil {
		return nil, err
	}
	command := exec.Command(program, //nolint:gosec,noctx // It is what is measured; stop ends it.
		"--image=marketplane:bench",
		"--leader-elect", "--leader-election-namespace="+operatorNamespace,
		"--metrics-bind-address="+metrics,
		"--pprof-bind-address="+profile,
		"--health-probe-bind-address=127.0.0.1:0")
	// Nothing of the caller's surroundings may change what is measured.
	command.Env = []string{"KUBECONFIG=" + kubeconfig, "PATH=" + os.Getenv("PATH")}
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{command: command, done: make(chan struct{}), metrics: metrics, profile: profile, log: log}
	go func() {
		defer close(p.done)
		_ = command.Wait() // How it ended is read from its log.
	}()
	return p, nil
}

func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.command.Process.Kill()
		<-p.done
	}
	_ = p.log.Close()
}

// failed returns an error once the operator has ended by itself.
func (p *process) failed() error {
	select {
	case <-p.done:
		return fmt.Errorf("the operator ended: %s; see %s", p.command.ProcessState, p.log.Name())
	default:
		return nil
	}
}

// memory returns the resident memory, now and at its peak, in bytes.
func (p *process) memory() (now, peak int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
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
		return 0, 0, errors.New("the kernel does not tell the operator's memory")
	}
	return now, peak, nil
}

// processor returns the processor time that the operator has used.
func (p *process) processor() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The fields are counted behind the command's name, which may hold blanks.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("the kernel does not tell the operator's times")
	}
	user, errUser := strconv.ParseInt(fields[11], 10, 64)
	system, errSystem := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / ticksPerSecond, errors.Join(errUser, errSystem)
}

// looks returns how many reconciliations have ended.
func (p *process) looks(ctx context.Context) (int, error) {
	body, err := fetch(ctx, "http://"+p.metrics+"/metrics")
	if err != nil {
		return 0, err
	}
	total := 0.0
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, `controller_runtime_reconcile_total{controller="marketplace"`) {
			continue
		}
		fields := strings.Fields(line)
		n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return int(total), nil
}

// keepProfile writes a profile of the given name into dir.
func (p *process) keepProfile(ctx context.Context, dir, name, path string) error {
	body, err := fetch(ctx, "http://"+p.profile+"/debug/pprof/"+path)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".pprof"), body, 0o600)
}

func fetch(ctx context.Context, url string) ([]byte, error) {
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

// freeAddress returns a loopback address that nobody listens on.
func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It is closed at once.
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
