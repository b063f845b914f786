package process_test

import (
	"bufio"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/marketplane/marketplane/hack/bench/internal/process"
)

// shell starts a script. It returns what the script writes, and its input.
func shell(t *testing.T, script string) (*process.Process, *bufio.Reader, io.Closer) {
	t.Helper()
	stdin, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	output, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := process.Start(process.Options{
		Name: "script", Program: "sh", Arguments: []string{"-c", script}, Logs: t.TempDir(), Input: stdin, Output: stdout,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop()
		for _, file := range []io.Closer{input, output} {
			_ = file.Close()
		}
	})
	_, _ = stdin.Close(), stdout.Close()
	return p, bufio.NewReader(output), input
}

const work = `i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; `

func TestProcessorTime(t *testing.T) {
	// One child has ended, one works still, and its parent has done nothing.
	p, output, _ := shell(t, "("+work+"); ("+work+"echo done; read forever); true")
	if line, err := output.ReadString('\n'); line != "done\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
	own, err := p.Processor()
	if err != nil {
		t.Fatal(err)
	}
	family, err := p.FamilyProcessor()
	if err != nil {
		t.Fatal(err)
	}
	// Two loops of a shell take tens of milliseconds; its own start takes few.
	if family <= 2*own || family == 0 {
		t.Errorf("itself it has used %s, with its children %s", own, family)
	}
	now, peak, err := p.Memory()
	if err != nil || now <= 0 || peak < now {
		t.Errorf("its memory is %d, %d at the peak, error %v", now, peak, err)
	}
}

func TestEnds(t *testing.T) {
	p, _, _ := shell(t, "read forever")
	if err := p.Failed(); err != nil {
		t.Errorf("it has failed while it runs: %v", err)
	}
	p.Stop()
	p.Stop() // safe
	(*process.Process)(nil).Stop()
	p, _, input := shell(t, "read forever; exit 3")
	_ = input.Close()
	<-p.Done()
	if err := p.Failed(); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("it ended by itself, and that is %v", err)
	}
}
