package load

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marketplane/marketplane/api/contract"
)

func TestHTTPReader(t *testing.T) {
	tests := map[string]struct {
		status  int
		body    string
		want    contract.Load
		wantErr string
	}{
		"counts": {
			200, `{"instance":"m-0","live":3,"draining":2,"pending":1}`,
			contract.Load{Instance: "m-0", Live: 3, Draining: 2, Pending: 1},
			"",
		},
		"a field of a later release": {200, `{"instance":"m-0","live":3,"rate":7}`, contract.Load{Instance: "m-0", Live: 3}, ""},
		"an error":                   {503, "", contract.Load{}, "status 503"},
		"a redirect":                 {302, "", contract.Load{}, "status 302"},
		"not JSON":                   {200, "hello", contract.Load{}, "read the load of pod m-0"},
		"a negative count":           {200, `{"instance":"m-0","live":-1}`, contract.Load{}, "negative"},
		"another pod":                {200, `{"instance":"m-9","live":1}`, contract.Load{}, "pod m-9 answered"},
		"too much":                   {200, `{"instance":"` + strings.Repeat("x", maxBody) + `"}`, contract.Load{}, "read the load"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != contract.PathLoad || r.Method != http.MethodGet {
					t.Errorf("%s %s", r.Method, r.URL.Path)
				}
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			}))
			defer server.Close()
			host, port := split(t, server.URL)
			got, err := NewHTTPReader(port).Read(t.Context(), Pod{Name: "m-0", Address: host})
			if tt.wantErr == "" && err != nil || tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
				t.Fatalf("error = %v, want %q", err, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("load (-want +got):\n%s", diff)
			}
		})
	}
}

func split(t *testing.T, server string) (host string, port int) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	host, text, err := net.SplitHostPort(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	if port, err = strconv.Atoi(text); err != nil {
		t.Fatal(err)
	}
	return host, port
}

// readers answers from a map.
type readers map[string]contract.Load

func (r readers) Read(_ context.Context, pod Pod) (contract.Load, error) {
	l, ok := r[pod.Name]
	if !ok {
		return contract.Load{}, errors.New("no answer from " + pod.Name)
	}
	return l, nil
}

func TestSum(t *testing.T) {
	answers := readers{
		"a": {Live: 10, Draining: 1, Pending: 2},
		"b": {Live: 20},
		"c": {Live: 5, Draining: 30, Stopping: true},
		"d": {Live: 7},
	}
	got, err := Sum(t.Context(), answers, []Pod{
		{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d", Terminating: true}, {Name: "e"},
	})
	// What is on a pod that goes will come to another one: it drains.
	want := Total{Live: 30, Draining: 43, Pending: 2, Told: 4, Missing: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("total (-want +got):\n%s", diff)
	}
	if err == nil || !strings.Contains(err.Error(), "no answer from e") {
		t.Errorf("error = %v", err)
	}
	if got.Demand() != 75 {
		t.Errorf("demand = %d, want 75", got.Demand())
	}
	if got, err := Sum(t.Context(), answers, nil); err != nil || got != (Total{}) {
		t.Errorf("no pods: %+v, %v", got, err)
	}
}

func TestSumOfManyPods(t *testing.T) {
	answers := readers{}
	var pods []Pod
	for i := range 10 * parallel {
		name := strconv.Itoa(i)
		answers[name] = contract.Load{Live: 1}
		pods = append(pods, Pod{Name: name})
	}
	got, err := Sum(t.Context(), answers, pods)
	if err != nil || got.Live != len(pods) {
		t.Errorf("total %+v, %v", got, err)
	}
}
