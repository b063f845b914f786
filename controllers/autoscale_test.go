package controllers_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/controllers/desired"
)

// messagingPods answers for messaging pods, each on a loopback address of its
// own and all on one port, as pods do.
type messagingPods struct {
	port  int
	mu    sync.Mutex
	loads map[string]contract.Load // by address
}

// servePods listens on 127.0.0.1 and the addresses after it.
func servePods(t *testing.T, pods int) *messagingPods {
	t.Helper()
	p := &messagingPods{loads: map[string]contract.Load{}}
	for i := range pods {
		address := podAddress(i)
		listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(p.port)))
		if err != nil {
			t.Fatal(err)
		}
		tcp, ok := listener.Addr().(*net.TCPAddr)
		if !ok {
			t.Fatalf("a %T is no TCP address", listener.Addr())
		}
		p.port = tcp.Port
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			l, ok := p.loads[address]
			p.mu.Unlock()
			if !ok || r.URL.Path != contract.PathLoad {
				http.NotFound(w, r)
				return
			}
			_ = json.NewEncoder(w).Encode(l)
		}))
		_ = server.Listener.Close()
		server.Listener = listener
		server.Start()
		t.Cleanup(server.Close)
	}
	return p
}

func podAddress(i int) string { return "127.0.0." + strconv.Itoa(i+1) }

// set gives each pod its load.
func (p *messagingPods) set(loads ...contract.Load) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loads = map[string]contract.Load{}
	for i, l := range loads {
		if l.Instance != "" {
			p.loads[podAddress(i)] = l
		}
	}
}

func TestAutoscaling(t *testing.T) {
	pods := servePods(t, 3)
	w := newWorld(t)
	w.loadPort = pods.port
	w.runEverything(true)
	w.startOperator()
	pods.set(contract.Load{Instance: "m-0", Live: 10})

	m := w.marketplace("shop", `
messaging:
  autoscaling: {minReplicas: 1, maxReplicas: 3, targetConnections: 200, scaleDownStabilizationSeconds: 2}
`)
	w.awaitReady(m)
	labels := desired.Labels(m, contract.ComponentMessaging)
	replicas := func() int32 {
		d := &appsv1.Deployment{}
		w.must(w.get("shop-messaging", d))
		return *d.Spec.Replicas
	}
	scaledTo := func(n int32) {
		t.Helper()
		w.eventually(fmt.Sprintf("messaging has %d pods", n), func() error {
			if got := replicas(); got != n {
				return fmt.Errorf("it has %d", got)
			}
			return nil
		})
	}
	if got := replicas(); got != 1 {
		t.Fatalf("without connections there are %d pods, want 1", got)
	}

	// 600 connections at 200 each need three pods; live, draining and pending
	// ones count.
	w.runningPod("m-0", labels, contract.ComponentMessaging, podAddress(0))
	pods.set(contract.Load{Instance: "m-0", Live: 590, Draining: 6, Pending: 4})
	scaledTo(3)
	w.eventually("the connections are told", func() error {
		w.must(w.get("shop", m))
		c := m.Status.Messaging.Connections
		if c == nil || c.Live != 590 || c.Draining != 6 || c.Pending != 4 || m.Status.Messaging.TargetReplicas != 3 ||
			!strings.Contains(m.Status.Messaging.ScalingReason, "target 200 per pod") {
			return fmt.Errorf("%+v", m.Status.Messaging)
		}
		return w.isReady(m)
	})
	w.hasEvent(m, "messaging: scaled from 1 to 3: 600 connections, target 200 per pod")

	// Nothing else grows.
	for _, other := range []string{"shop-auth", "shop-tasks"} {
		d := &appsv1.Deployment{}
		w.must(w.get(other, d))
		if *d.Spec.Replicas != 2 {
			t.Errorf("%s has %d pods, want 2", other, *d.Spec.Replicas)
		}
	}

	// Most leave, but one pod does not tell its connections: nothing shrinks.
	w.runningPod("m-1", labels, contract.ComponentMessaging, podAddress(1))
	w.runningPod("m-2", labels, contract.ComponentMessaging, podAddress(2))
	pods.set(contract.Load{Instance: "m-0", Live: 20}, contract.Load{Instance: "m-1", Live: 20})
	w.eventually("the missing figure is told", func() error {
		w.must(w.get("shop", m))
		if c := m.Status.Messaging.Connections; c.UnknownPods != 1 || c.Live != 40 {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	w.looked()
	if got := replicas(); got != 3 {
		t.Errorf("there are %d pods though one did not tell its connections, want 3", got)
	}

	// All tell: after the window it shrinks.
	pods.set(contract.Load{Instance: "m-0", Live: 20}, contract.Load{Instance: "m-1", Live: 20}, contract.Load{Instance: "m-2", Live: 20})
	scaledTo(1)
	w.hasEvent(m, "messaging: scaled from 3 to 1: 60 connections, target 200 per pod")

	// Who decides is told even where the number stays.
	w.must(w.get("shop", m))
	one := int32(1)
	w.edit(m, func() { m.Spec.Messaging.Autoscaling, m.Spec.Messaging.Replicas = nil, &one })
	w.eventually("the reason is told", func() error {
		w.must(w.get("shop", m))
		if got := m.Status.Messaging; got.TargetReplicas != 1 || got.ScalingReason != "as spec.messaging.replicas says" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
}

// hasEvent waits for an Event about m with this note.
func (w *world) hasEvent(m *v1alpha1.Marketplace, note string) {
	w.t.Helper()
	w.eventually("an Event", func() error {
		var events eventsv1.EventList
		w.must(w.client.List(w.ctx, &events, client.InNamespace(w.namespace)))
		var notes []string
		for i := range events.Items {
			if events.Items[i].Regarding.UID == m.UID {
				notes = append(notes, events.Items[i].Note)
			}
			if strings.HasPrefix(events.Items[i].Note, note) {
				return nil
			}
		}
		return fmt.Errorf("none says %q, but %q", note, notes)
	})
}
