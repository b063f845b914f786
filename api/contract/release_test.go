package contract_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/api/contract"
)

// The chart installs the operator of its own appVersion, so it must be of the
// release that the source is.
func TestChartIsOfThisRelease(t *testing.T) {
	document, err := os.ReadFile(filepath.Join("..", "..", "charts", "marketplane", "Chart.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	type versions struct {
		Version    string `json:"version"`
		AppVersion string `json:"appVersion"`
	}
	var got versions
	if err := yaml.Unmarshal(document, &got); err != nil {
		t.Fatal(err)
	}
	release := strings.TrimPrefix(contract.Release, "v")
	if diff := cmp.Diff(versions{release, release}, got); diff != "" {
		t.Errorf("Chart.yaml is not of release %s (-want +got):\n%s", contract.Release, diff)
	}
}
