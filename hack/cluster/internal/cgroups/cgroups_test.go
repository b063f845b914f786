package cgroups

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const known = `#subsys_name	hierarchy	num_cgroups	enabled
cpuset	3	1	1
cpu	1	1	1
cpuacct	2	1	1
memory	4	9	1
pids	8	1	1
`

func TestParse(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		mounts string
		want   Tree
	}{
		"version 1, with version 2 beside it": {
			mounts: `tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
`,
			want: Tree{Mounts: map[string]Hierarchy{
				"/sys/fs/cgroup/cpu,cpuacct": {Controllers: []string{"cpu", "cpuacct"}},
				"/sys/fs/cgroup/cpuset":      {Controllers: []string{"cpuset"}},
				"/sys/fs/cgroup/systemd":     {},
				"/sys/fs/cgroup/unified":     {Version2: true},
			}},
		},
		"version 2": {
			mounts: "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate,memory_recursiveprot 0 0\n",
			want:   Tree{Mounts: map[string]Hierarchy{"/sys/fs/cgroup": {Version2: true}}, Unified: true},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, parse(tc.mounts, known)); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	tree := Tree{Mounts: map[string]Hierarchy{"/a": {Controllers: []string{"cpu", "cpuacct", "cpuset", "memory"}}}}
	if err := tree.Check(); err == nil || !strings.HasSuffix(err.Error(), ": pids") {
		t.Errorf("error = %v, want one that names pids", err)
	}
	tree.Mounts["/b"] = Hierarchy{Controllers: []string{"pids"}}
	if err := tree.Check(); err != nil {
		t.Errorf("error = %v with every controller there", err)
	}
}
