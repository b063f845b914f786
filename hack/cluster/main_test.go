package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDispatch(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "image.tar")
	tests := map[string]struct {
		args    []string
		wantOut string
		wantErr string
	}{
		"help":                  {args: []string{"help"}, wantOut: "load-image"},
		"nothing":               {wantOut: "kubeconfig"},
		"a flag's help":         {args: []string{"image", "-h"}},
		"unknown command":       {args: []string{"destroy"}, wantErr: `no command "destroy"`},
		"arguments to none":     {args: []string{"status", "now"}, wantErr: "takes no arguments"},
		"an unknown part":       {args: []string{"build", "--only", "kernel"}, wantErr: "want envtest"},
		"no cluster":            {args: []string{"kubeconfig"}, wantErr: "no cluster is up"},
		"image without a file":  {args: []string{"image", "--out", out, "--name", "app:dev"}, wantErr: "at least one --file"},
		"image with a bad file": {args: []string{"image", "--out", out, "--name", "app:dev", "--file", "x"}, wantErr: "want SRC=DST"},
		"image":                 {args: []string{"image", "--out", out, "--name", "app:dev", "--file", program + "=/a", "--entrypoint", "/a"}},
	}
	dir := t.TempDir()
	getenv := func(name string) string {
		if name == "MARKETPLANE_CLUSTER_DIR" {
			return dir
		}
		return ""
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			err := dispatch(t.Context(), tc.args, getenv, &stdout, &stderr)
			switch {
			case tc.wantErr == "" && err != nil:
				t.Errorf("error: %v", err)
			case tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr)):
				t.Errorf("error = %v, want one with %q", err, tc.wantErr)
			}
			if !strings.Contains(stdout.String(), tc.wantOut) {
				t.Errorf("output %q has no %q", stdout.String(), tc.wantOut)
			}
		})
	}
	// After the cases, which run in parallel.
	t.Cleanup(func() {
		if _, err := os.Stat(out); err != nil {
			t.Errorf("the image was not written: %v", err)
		}
	})
}
