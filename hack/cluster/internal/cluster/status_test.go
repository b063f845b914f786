package cluster

import (
	"encoding/json"
	"testing"
)

func TestRolledOut(t *testing.T) {
	t.Parallel()
	const available = `"conditions": [{"type": "Available", "status": "True"}]`
	for name, test := range map[string]struct {
		deployment string
		wantErr    string
	}{
		"nothing is known":     {`{}`, "is not available: not reported yet"},
		"not available":        {`{"status": {"conditions": [{"type": "Available", "status": "False", "message": "no pods"}]}}`, "is not available: no pods"},
		"not seen yet":         {`{"metadata": {"generation": 2}, "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, ` + available + `}}`, "is being replaced"},
		"an old pod is there":  {`{"metadata": {"generation": 2}, "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, ` + available + `}}`, "is being replaced"},
		"only newest pods are": {`{"metadata": {"generation": 2}, "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, ` + available + `}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var deployment conditioned
			if err := json.Unmarshal([]byte(test.deployment), &deployment); err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := deployment.rolledOut(); err != nil {
				got = err.Error()
			}
			if got != test.wantErr {
				t.Errorf("got %q, want %q", got, test.wantErr)
			}
		})
	}
}
