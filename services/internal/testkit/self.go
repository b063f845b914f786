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
	return Program(t, program, variable, value)
}

// Program does so with the test's own program as it was built in another way.
func Program(t testing.TB, program, variable, value string) (pid int, lines *bufio.Scanner) {
	t.Helper()
	command := exec.CommandContext(t.Context(), program)
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
