package commit_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/marketplane/marketplane/services/internal/testkit"
	"github.com/marketplane/marketplane/services/messaging"
	"github.com/marketplane/marketplane/services/messaging/commit"
)

// Each transaction is counted with as many messages as it has written.
func TestBatchesAreCountedBySize(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}, 2), make(chan struct{})
	write := writerFunc(func(_ context.Context, d []messaging.Draft) ([]commit.Outcome, []messaging.Item, error) {
		began <- struct{}{}
		<-release
		return make([]commit.Outcome, len(d)), nil, nil
	})
	registry := prometheus.NewRegistry()
	q := commit.NewQueue(write, func([]messaging.Item) {}, commit.Options{}, testkit.Logger(t), registry)
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var answered sync.WaitGroup
	send := func() {
		answered.Add(1)
		q.Send(draft(`{"a":1}`), func(_ messaging.Sent, err error) {
			if err != nil {
				t.Error(err)
			}
			answered.Done()
		})
	}
	send()
	<-began
	for range 7 { // while the first is written
		send()
	}
	close(release)
	answered.Wait()
	if err := q.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	want := `
# HELP marketplane_messaging_commit_batch_size Messages written in one transaction.
# TYPE marketplane_messaging_commit_batch_size histogram
marketplane_messaging_commit_batch_size_bucket{le="1"} 1
marketplane_messaging_commit_batch_size_bucket{le="2"} 1
marketplane_messaging_commit_batch_size_bucket{le="5"} 1
marketplane_messaging_commit_batch_size_bucket{le="10"} 2
marketplane_messaging_commit_batch_size_bucket{le="20"} 2
marketplane_messaging_commit_batch_size_bucket{le="50"} 2
marketplane_messaging_commit_batch_size_bucket{le="100"} 2
marketplane_messaging_commit_batch_size_bucket{le="200"} 2
marketplane_messaging_commit_batch_size_bucket{le="+Inf"} 2
marketplane_messaging_commit_batch_size_sum 8
marketplane_messaging_commit_batch_size_count 2
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "marketplane_messaging_commit_batch_size"); err != nil {
		t.Error(err)
	}
}
