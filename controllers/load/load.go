// Package load asks messaging pods how many connections they hold. It must not
// know what is done with the answer.
package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/marketplane/marketplane/api/contract"
)

const (
	// timeout bounds one pod's answer, and a look at all pods together.
	timeout = 2 * time.Second
	// silentPause is how soon a pod is asked again that let a question time out.
	silentPause = 30 * time.Second
	// parallel bounds how many pods are asked at once.
	parallel = 64
	// maxBody bounds an answer, in bytes.
	maxBody = 64 << 10
)

// Pod is a messaging pod that runs.
type Pod struct {
	// Name of the pod.
	Name string
	// Address is its IP.
	Address string
	// Terminating says that it was deleted and has not gone yet.
	Terminating bool
}

// Reader asks one pod for its load.
type Reader interface {
	Read(ctx context.Context, pod Pod) (contract.Load, error)
}

// HTTPReader reads contract.PathLoad from a pod's internal port.
type HTTPReader struct {
	client *http.Client
	port   int
}

// NewHTTPReader returns a reader for pods that listen on port.
func NewHTTPReader(port int) *HTTPReader {
	return &HTTPReader{
		port: port,
		client: &http.Client{
			Timeout: timeout,
			Transport: &http.Transport{
				// Pods are asked directly, whatever proxy the operator may use.
				Proxy:               nil,
				DialContext:         (&net.Dialer{Timeout: timeout}).DialContext,
				MaxIdleConnsPerHost: 1,
				MaxConnsPerHost:     2,
				IdleConnTimeout:     30 * time.Second,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Read asks the pod. The answer is refused when it could not be true.
func (r *HTTPReader) Read(ctx context.Context, pod Pod) (contract.Load, error) {
	url := "http://" + net.JoinHostPort(pod.Address, strconv.Itoa(r.port)) + contract.PathLoad
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return contract.Load{}, fmt.Errorf("ask pod %s for its load: %w", pod.Name, err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return contract.Load{}, fmt.Errorf("ask pod %s for its load: %w", pod.Name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return contract.Load{}, fmt.Errorf("ask pod %s for its load: status %d", pod.Name, resp.StatusCode)
	}
	var l contract.Load
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&l); err != nil {
		return contract.Load{}, fmt.Errorf("read the load of pod %s: %w", pod.Name, err)
	}
	if min(l.Live, l.Draining, l.Pending, l.Forwarded) < 0 {
		return contract.Load{}, fmt.Errorf("read the load of pod %s: a negative count", pod.Name)
	}
	if l.Instance != "" && l.Instance != pod.Name {
		// The address was given to another pod since.
		return contract.Load{}, fmt.Errorf("ask pod %s for its load: pod %s answered", pod.Name, l.Instance)
	}
	return l, nil
}

// Total is the load of a tier.
type Total struct {
	// Live connections are authenticated and stay; Draining ones have been told
	// to move or are on a pod that stops; Pending ones are not authenticated.
	Live, Draining, Pending int
	// Forwarded ones go through a pod that stays to another one, which counts them, too.
	Forwarded int
	// Told is how many pods answered.
	Told int
	// Missing is how many pods did not answer.
	Missing int
}

// Demand is how many connections want a place. What is forwarded takes one on each
// of two pods.
func (t Total) Demand() int { return t.Live + t.Draining + t.Pending + t.Forwarded }

// Tier remembers which pods were silent, so that not every look waits for
// them. The zero value knows of none. It must not be used twice at once.
type Tier struct {
	silent map[Pod]time.Time
}

// Sum asks the pods, in parallel and for no longer than timeout, and adds up
// what they tell. Pods that were silent a while before now are not asked, and
// count as missing. The error joins those of the pods that Total counts as
// missing and that were asked.
func (t *Tier) Sum(ctx context.Context, r Reader, pods []Pod, now time.Time) (Total, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var (
		mu     sync.Mutex
		total  Total
		errs   []error
		wg     sync.WaitGroup
		slots  = make(chan struct{}, parallel)
		ask    []Pod
		silent = map[Pod]time.Time{}
	)
	for _, pod := range pods {
		if at, ok := t.silent[pod]; ok && now.Sub(at) < silentPause {
			silent[pod] = at
			continue
		}
		ask = append(ask, pod)
	}
	total.Missing = len(silent)
	for _, pod := range ask {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			asked := ctx.Err() == nil
			l, err := contract.Load{}, fmt.Errorf("ask pod %s for its load: others took all the time", pod.Name)
			if asked {
				l, err = r.Read(ctx, pod)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				total.Missing++
				errs = append(errs, err)
				if asked && timedOut(err) {
					silent[pod] = now
				}
				return
			}
			total.add(l, pod.Terminating)
		})
	}
	wg.Wait()
	t.silent = silent
	return total, errors.Join(errs...)
}

// timedOut tells a pod that says nothing from one that refuses, which it does
// at once and, while it starts, for a moment.
func timedOut(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}

func (t *Total) add(l contract.Load, terminating bool) {
	t.Told++
	t.Draining += l.Draining
	t.Pending += l.Pending
	if l.Stopping || terminating {
		t.Draining += l.Live
		return
	}
	t.Live += l.Live
	t.Forwarded += l.Forwarded // from a pod that goes it comes back, perhaps to the owner
}
