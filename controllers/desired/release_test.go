package desired_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/controllers/desired"
)

// The files under testdata/v0.1.0 are what that release itself rendered. They
// are never written anew: a change of what makes pods in them would restart
// every workload of that release at the next upgrade of the operator.
func TestReleaseBeforeIsRenderedAsItWas(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", contract.PreviousRelease, "*.golden.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no rendering of %s: %v", contract.PreviousRelease, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".golden.yaml")
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tt, ok := goldenCases[name]
			if !ok {
				t.Fatalf("no case makes %s", file)
			}
			in := inputs()
			in.Release = contract.PreviousRelease
			if tt.change != nil {
				tt.change(&in)
			}
			got := render(t, desired.Build(marketplace(t, tt.spec), in).All())
			if diff := cmp.Diff(workloadsIn(t, want), workloadsIn(t, got)); diff != "" {
				t.Errorf("what makes pods (-as %s rendered it +now):\n%s", contract.PreviousRelease, diff)
			}
		})
	}
}

// workloadsIn are those of the documents that make pods, by kind and name.
func workloadsIn(t *testing.T, documents []byte) map[string]string {
	t.Helper()
	found := map[string]string{}
	for document := range strings.SplitSeq(string(documents), "---\n") {
		var head struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
		}
		if err := yaml.Unmarshal([]byte(document), &head); err != nil {
			t.Fatal(err)
		}
		if slices.Contains([]string{"Deployment", "StatefulSet", "Job"}, head.Kind) {
			found[head.Kind+"/"+head.Metadata.Name] = document
		}
	}
	return found
}

// Workloads say of which release they are, their pods do not: what only says
// more must restart nothing.
func TestReleaseOfWorkloads(t *testing.T) {
	for _, release := range []string{contract.Release, contract.PreviousRelease} {
		t.Run(release, func(t *testing.T) {
			in := inputs()
			in.Release = release
			marked := 0
			for _, object := range desired.Build(marketplace(t, ""), in).All() {
				document, err := yaml.Marshal(object)
				if err != nil {
					t.Fatal(err)
				}
				var seen struct {
					Metadata struct {
						Labels map[string]string `json:"labels"`
					} `json:"metadata"`
					Spec struct {
						Template struct {
							Metadata struct {
								Labels map[string]string `json:"labels"`
							} `json:"metadata"`
						} `json:"template"`
					} `json:"spec"`
				}
				if err := yaml.Unmarshal(document, &seen); err != nil {
					t.Fatal(err)
				}
				kind, component := *object.GetKind(), seen.Metadata.Labels[contract.LabelComponent]
				if !slices.Contains([]string{"Deployment", "StatefulSet", "Job"}, kind) || component == contract.ComponentDatabase {
					continue
				}
				marked++
				if got := desired.ReleaseOf(seen.Metadata.Labels); got != release {
					t.Errorf("%s of %s is of release %s, want %s", kind, component, got, release)
				}
				if got := seen.Spec.Template.Metadata.Labels[desired.LabelRelease]; got != "" {
					t.Errorf("pods of %s %s bear release %s", kind, component, got)
				}
			}
			if marked != 5 {
				t.Errorf("%d workloads, want 5", marked)
			}
		})
	}
}

// An upgrade of the operator alone shuts nobody out: the policies come with the
// release that brought them.
func TestPoliciesComeWithTheirRelease(t *testing.T) {
	for release, want := range map[string]bool{contract.Release: true, desired.FirstRelease: false} {
		in := inputs()
		in.Release = release
		got := slices.ContainsFunc(desired.Build(marketplace(t, ""), in).All(), func(o desired.Object) bool {
			return *o.GetKind() == "NetworkPolicy"
		})
		if got != want {
			t.Errorf("release %s has policies: %t, want %t", release, got, want)
		}
	}
}
