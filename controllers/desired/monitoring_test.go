package desired_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/marketplane/marketplane/controllers/desired"
)

// watched are the monitoring objects of a Marketplace, by kind.
func watched(t *testing.T, spec string, monitored bool) map[string]map[string]any {
	t.Helper()
	in := inputs()
	in.Monitored = monitored
	found := map[string]map[string]any{}
	for _, object := range desired.Build(marketplace(t, spec), in).All() {
		document, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		kind := *object.GetKind()
		if kind != "PodMonitor" && kind != "PrometheusRule" && *object.GetName() != "shop-dashboard" {
			continue
		}
		content := map[string]any{}
		if err := json.Unmarshal(document, &content); err != nil {
			t.Fatal(err)
		}
		found[kind] = content
	}
	return found
}

const everythingWatched = "monitoring: {labels: {release: prometheus, app.kubernetes.io/name: other}, intervalSeconds: 15}"

// The file is what hack/promql reads, too, to parse the expressions.
func TestMonitoringGolden(t *testing.T) {
	objects := watched(t, everythingWatched, true)
	// The dashboard is read better as a document than as one line of text.
	data, _ := objects["ConfigMap"]["data"].(map[string]any)
	text, ok := data["marketplane_market_shop.json"].(string)
	if !ok {
		t.Fatal("the dashboard's ConfigMap has no file marketplane_market_shop.json")
	}
	var dashboard any
	if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
		t.Fatal(err)
	}
	data["marketplane_market_shop.json"] = dashboard
	got, err := yaml.Marshal(objects)
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "monitoring.golden.yaml")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("objects (-want +got; -update writes them anew):\n%s", diff)
	}
}

func TestWhatIsWatched(t *testing.T) {
	tests := map[string]struct {
		spec      string
		monitored bool
		want      []string
	}{
		"without the APIs": {"", false, nil},
		"with them":        {"", true, []string{"ConfigMap", "PodMonitor", "PrometheusRule"}},
		"disabled":         {"monitoring: {disabled: true}", true, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for kind := range watched(t, tt.spec, tt.monitored) {
				got = append(got, kind)
			}
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
		})
	}
}

// documented are the metrics of the reference with their labels.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	// What every target has, and what all Go programs tell.
	metrics := map[string][]string{"up": nil, "process_resident_memory_bytes": nil, "process_cpu_seconds_total": nil}
	for _, row := range regexp.MustCompile("(?m)^\\| `(marketplane_\\w+)` \\| (\\w+) \\| ([^|]*) \\|").FindAllStringSubmatch(string(page), -1) {
		labels := regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[3], -1)
		var names []string
		for _, label := range labels {
			names = append(names, label[1])
		}
		if row[2] != "histogram" {
			metrics[row[1]] = names
			continue
		}
		for _, suffix := range []string{"_count", "_sum"} {
			metrics[row[1]+suffix] = names
		}
		metrics[row[1]+"_bucket"] = append(slices.Clone(names), "le")
	}
	return metrics
}

// targetLabels are those that Prometheus and the PodMonitor add.
var targetLabels = []string{"namespace", "pod", "marketplace", "component"}

// A service's own label of one of these names would come out as exported_NAME.
func TestServicesLeaveTheTargetsLabelsAlone(t *testing.T) {
	taken := append([]string{"job", "instance", "container", "endpoint"}, targetLabels...)
	for metric, labels := range documented(t) {
		if slices.Contains(labels, "marketplace_namespace") {
			continue // The operator's: nothing adds the label marketplace to those.
		}
		for _, label := range labels {
			if slices.Contains(taken, label) {
				t.Errorf("%s has the label %s, which Prometheus gives the target", metric, label)
			}
		}
	}
}

// expressions are all in the rules and on the dashboard, by where they are.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	objects := watched(t, "", true)
	found := map[string]string{}
	var rule struct {
		Spec struct {
			Groups []struct {
				Rules []struct{ Alert, Expr string }
			}
		}
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ RefID, Expr string }
		}
	}
	document, err := json.Marshal(objects["PrometheusRule"])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(document, &rule); err != nil {
		t.Fatal(err)
	}
	data, _ := objects["ConfigMap"]["data"].(map[string]any)
	text, _ := data["marketplane_market_shop.json"].(string)
	if err := json.Unmarshal([]byte(text), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, group := range rule.Spec.Groups {
		for _, r := range group.Rules {
			found[r.Alert+": "+r.Expr] = r.Expr
		}
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			found["panel "+panel.Title+" "+target.RefID] = target.Expr
		}
	}
	if len(found) < 30 {
		t.Fatalf("only %d expressions", len(found))
	}
	return found
}

var (
	selectorPattern = regexp.MustCompile(`(\w+)\{([^}]*)\}`)
	matcherPattern  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	textPattern     = regexp.MustCompile(`"[^"]*"`)
	groupPattern    = regexp.MustCompile(`by \(([^)]*)\)`)
)

// Every selector names a metric that exists, by labels that it has, and is
// about one Marketplace alone. That they are PromQL is hack/promql's test.
func TestExpressionsNameWhatExists(t *testing.T) {
	metrics := documented(t)
	for where, expr := range expressions(t) {
		bare := textPattern.ReplaceAllString(expr, `""`)
		selectors := selectorPattern.FindAllStringSubmatch(bare, -1)
		if len(selectors) == 0 {
			t.Errorf("%s: no selector in %s", where, expr)
		}
		known := slices.Clone(targetLabels)
		for _, s := range selectors {
			labels, ok := metrics[s[1]]
			if !ok {
				t.Errorf("%s: metric %s is not in docs/metrics.md", where, s[1])
				continue
			}
			known = append(known, labels...)
			var matched []string
			for _, m := range matcherPattern.FindAllStringSubmatch(s[2], -1) {
				matched = append(matched, m[1])
				if !slices.Contains(labels, m[1]) && !slices.Contains(targetLabels, m[1]) {
					t.Errorf("%s: %s has no label %s", where, s[1], m[1])
				}
			}
			namespace := "namespace"
			if slices.Contains(labels, "marketplace_namespace") {
				namespace = "marketplace_namespace"
			}
			if !slices.Contains(matched, "marketplace") || !slices.Contains(matched, namespace) {
				t.Errorf("%s: %s is not narrowed to the Marketplace by %s and marketplace", where, s[1], namespace)
			}
		}
		for _, group := range groupPattern.FindAllStringSubmatch(bare, -1) {
			for label := range strings.SplitSeq(group[1], ",") {
				if label = strings.TrimSpace(label); !slices.Contains(known, label) {
					t.Errorf("%s: grouped by %s, which nothing there has", where, label)
				}
			}
		}
	}
}

// Every alert has its heading in the runbook, and every heading its alert.
func TestRunbooks(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^### (Marketplane\w+)$`).FindAllStringSubmatch(string(page), -1) {
		headings[heading[1]] = false
	}
	var rule struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert, Expr, For    string
					Labels, Annotations map[string]string
				}
			}
		}
	}
	document, err := json.Marshal(watched(t, "", true)["PrometheusRule"])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(document, &rule); err != nil {
		t.Fatal(err)
	}
	distinct := map[string]bool{}
	for _, r := range rule.Spec.Groups[0].Rules {
		if _, ok := headings[r.Alert]; !ok {
			t.Errorf("docs/operations.md has no heading ### %s", r.Alert)
		}
		headings[r.Alert] = true
		_, fragment, _ := strings.Cut(r.Annotations["runbook_url"], "docs/operations.md#")
		if fragment != strings.ToLower(r.Alert) {
			t.Errorf("%s: runbook_url %q does not lead to its heading", r.Alert, r.Annotations["runbook_url"])
		}
		if r.Labels["severity"] != "critical" && r.Labels["severity"] != "warning" {
			t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s does not say what is the matter", r.Alert)
		}
		// Alerts of one name and the same labels would be taken for one.
		key := r.Alert + "/" + r.Labels["component"]
		if distinct[key] {
			t.Errorf("two alerts are both %s", key)
		}
		distinct[key] = true
	}
	for heading, used := range headings {
		if !used {
			t.Errorf("docs/operations.md explains %s, which is no alert", heading)
		}
	}
}
