package testkit

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
)

// Self starts the test's own program once more: a process beside it, which a
// variable of the environment tells what to do instead of testing (in its
// TestMain). It returns the process' id and what it says, by lines. Its standard
// input ends, and it is killed, when the test ends.
func Self(t testing.TB, variable, value string) (pid int, lines *bufio.Scanner) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), program) //nolint:gosec // G204: it is this one
	command.Env = append(os.Environ(), variable+"="+value)
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = command.Wait()
	})
	return command.Process.Pid, bufio.NewScanner(out)
}
