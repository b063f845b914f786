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
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
		"fewer than none forwarded":  {200, `{"instance":"m-0","forwarded":-1}`, contract.Load{}, "negative"},
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
		"a": {Live: 10, Draining: 1, Pending: 2, Forwarded: 6},
		"b": {Live: 20, Forwarded: 2},
		"c": {Live: 5, Draining: 30, Forwarded: 100, Stopping: true},
		"d": {Live: 7, Forwarded: 100},
	}
	tier := &Tier{}
	got, err := tier.Sum(t.Context(), answers, []Pod{
		{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d", Terminating: true}, {Name: "e"},
	}, time.Now())
	// What is on a pod that goes will come to another one: it drains.
	want := Total{Live: 30, Draining: 43, Pending: 2, Forwarded: 8, Told: 4, Missing: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("total (-want +got):\n%s", diff)
	}
	if err == nil || !strings.Contains(err.Error(), "no answer from e") {
		t.Errorf("error = %v", err)
	}
	if got.Demand() != 83 {
		t.Errorf("demand = %d, want 75", got.Demand())
	}
	if got, err := tier.Sum(t.Context(), answers, nil, time.Now()); err != nil || got != (Total{}) {
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
	got, err := new(Tier).Sum(t.Context(), answers, pods, time.Now())
	if err != nil || got.Live != len(pods) {
		t.Errorf("total %+v, %v", got, err)
	}
}

// silentReaders never answers for the pods that it holds, until the time is up.
type silentReaders struct {
	mu    sync.Mutex
	asked map[string]int
}

func (r *silentReaders) Read(ctx context.Context, pod Pod) (contract.Load, error) {
	r.mu.Lock()
	_, silent := r.asked[pod.Name]
	if silent {
		r.asked[pod.Name]++
	}
	r.mu.Unlock()
	if silent {
		<-ctx.Done()
		return contract.Load{}, ctx.Err()
	}
	return contract.Load{Live: 1}, nil
}

// However many pods are silent, a look takes no longer than one of them may,
// and those that come next take no time for them.
func TestSumWithSilentPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, tier := &silentReaders{asked: map[string]int{}}, &Tier{}
		var pods []Pod
		for i := range 3 * parallel {
			name := strconv.Itoa(i)
			reader.asked[name] = 0
			pods = append(pods, Pod{Name: name})
		}
		pods = append(pods, Pod{Name: "talks"})
		look := func() (total Total, took time.Duration) {
			began := time.Now()
			total, err := tier.Sum(t.Context(), reader, pods, time.Now())
			if err == nil && total.Told == len(pods) {
				t.Error("no pod was silent")
			}
			return total, time.Since(began)
		}
		if total, took := look(); took > timeout || total.Missing < 3*parallel {
			t.Errorf("the first look took %s: %+v", took, total)
		}
		for range 3 {
			look() // Those that were not asked yet are.
		}
		total, took := look()
		if took > 0 || total.Told != 1 || total.Missing != 3*parallel {
			t.Errorf("a later look took %s: %+v", took, total)
		}
		asked := func() (times int) {
			for _, n := range reader.asked {
				times += n
			}
			return times
		}
		if before := asked(); before != 3*parallel {
			t.Errorf("%d questions to %d silent pods", before, 3*parallel)
		}
		time.Sleep(silentPause)
		for range 3 {
			look()
		}
		if after := asked(); after != 6*parallel {
			t.Errorf("%d questions to %d silent pods, %s later", after, 3*parallel, silentPause)
		}
	})
}
