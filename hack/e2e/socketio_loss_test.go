//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/services/client/stockclient"
)

// shakeSocketIO has someone write to stock clients in every state there is while a pod
// of messaging dies, the database's pod dies, and messaging is rolled out to a pod
// less. Each client is recovered each time, and hears each message once and in
// order; each that was acknowledged is in the database.
func (m marketplace) shakeSocketIO(t *testing.T) {
	pods, err := m.pods(t.Context(), contract.ComponentMessaging)
	if err != nil || len(pods) != 3 {
		t.Fatalf("%d pods of messaging: %v", len(pods), err)
	}
	c := m.newCrowd(t, pods[0], pods[1])
	c.write()
	c.follow("everyone hears it who is not in the middle of an upgrade", func() error {
		for name, l := range c.lives {
			if !l.stopped && len(l.heard) == 0 {
				return fmt.Errorf("%s does not", name)
			}
		}
		return nil
	})

	victim := pods[0]
	c.toService()
	if err := cluster.kube.Delete(t.Context(), &victim, kube.GracePeriodSeconds(0)); err != nil {
		t.Fatalf("kill %s: %v", victim.Name, err)
	}
	eventually(t, time.Minute, "the killed process is dead", func(ctx context.Context) error {
		c.write()
		return isDead(ctx, victim.Status.PodIP, contract.InternalPort)
	})
	c.release()
	c.write()
	c.settle("a pod of messaging died", func(l *life) bool { return l.doomed })
	m.waitReady(t)

	victim = m.onePod(t, contract.ComponentDatabase)
	if err := cluster.kube.Delete(t.Context(), &victim, kube.GracePeriodSeconds(0)); err != nil {
		t.Fatalf("kill %s: %v", victim.Name, err)
	}
	eventually(t, time.Minute, "the killed database is dead", func(ctx context.Context) error {
		c.write()
		return isDead(ctx, victim.Status.PodIP, contract.DatabasePort)
	})
	for i, name := range slices.Sorted(maps.Keys(c.lives)) {
		if i%2 == 0 {
			c.Say("cut", name)
			c.lives[name].cut = true
		}
	}
	eventually(t, 2*time.Minute, "another database is ready", func(ctx context.Context) error {
		c.write()
		now, err := m.pods(ctx, contract.ComponentDatabase)
		return errors.Join(err, replaced(now, victim, 1))
	})
	c.write()
	c.settle("the database died", func(l *life) bool { return l.cut })
	m.waitReady(t)

	before := m.podNames(t, contract.ComponentMessaging)
	m.change(t, func(spec *v1alpha1.MarketplaceSpec) {
		spec.Messaging.Replicas = new(int32(2))
		spec.Messaging.Resources = &v1alpha1.Resources{Requests: v1alpha1.ResourceAmounts{CPU: new(resource.MustParse("11m"))}}
	})
	eventually(t, 4*time.Minute, "all pods are new ones", func(ctx context.Context) error {
		c.write()
		pods, err := m.pods(ctx, contract.ComponentMessaging)
		if err != nil {
			return err
		}
		for _, p := range pods {
			if slices.Contains(before, p.Name) {
				return fmt.Errorf("pod %s is still there", p.Name)
			}
		}
		return m.isReady(ctx)
	})
	c.write()
	c.settle("messaging was rolled out", func(*life) bool { return true })
}

// onePod is a component's only pod.
func (m marketplace) onePod(t *testing.T, component string) corev1.Pod {
	t.Helper()
	pods, err := m.pods(t.Context(), component)
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods of %s: %v", len(pods), component, err)
	}
	return pods[0]
}

// crowd is one user's many devices, and another user who writes to him.
type crowd struct {
	*stockClients
	m            marketplace
	conversation uuid.UUID
	lives        map[string]*life // of devices, and of the writer
	balancers    []*balancer

	written    []options
	unanswered []options // in the order of sending
	acked      []uuid.UUID

	// Since the last rest.
	refusals int // of messages, for a while
	failures int // to connect
}

// writer is the name of the client that writes. Every message is sent again until it
// is acknowledged, in order.
const writer = "writer"

// life is what happened to a client.
type life struct {
	connects int
	heard    []uuid.UUID // messages, in the order in which they came
	reasons  []string    // of disconnects since the last rest

	doomed  bool // its connection ends with the pod that is killed first
	stopped bool // where it hears nothing, in the middle of an upgrade
	cut     bool // by the test, since the last rest
	rested  int  // connects at the last rest
}

// newCrowd connects devices in every state: with sessions of the pod that will be
// killed, which their requests reach directly or by another pod; and with sessions
// of the other pod, forwarded by the one that will be killed. Who polls through that
// may find another way before it dies.
func (m marketplace) newCrowd(t *testing.T, victim, other corev1.Pod) *crowd {
	t.Helper()
	c := &crowd{stockClients: m.stockClients(t), m: m, lives: map[string]*life{}}
	user, peer := c.signUp(), c.signUp()
	for _, device := range []struct {
		name         string
		options      options
		owner, other corev1.Pod
		stop         stage
		doomed       bool
	}{
		{"websocket", webSocket, victim, victim, nowhere, true},
		{"polling", polling, victim, victim, nowhere, true},
		{"polling, forwarded", polling, victim, other, nowhere, true},
		{"polling, forwarded by the victim", polling, other, victim, nowhere, false},
		{"upgraded", options{}, victim, victim, nowhere, true},
		{"upgraded, forwarded", options{}, victim, other, nowhere, true},
		{"upgraded, forwarded by the victim", options{}, other, victim, nowhere, true},
		{"before the upgrade", options{}, victim, victim, beforeRequest, true},
		{"before the probe", options{}, victim, victim, beforeProbe, true},
		{"before the probe, forwarded", options{}, victim, other, beforeProbe, true},
		{"before the end of the upgrade", options{}, victim, victim, beforeUpgrade, true},
		{"before the end of the upgrade, forwarded", options{}, victim, other, beforeUpgrade, true},
		{writer, options{"retries": 100}, victim, other, nowhere, true},
	} {
		b := newBalancer(t, podURL(device.owner), podURL(device.other), device.stop)
		c.balancers = append(c.balancers, b)
		session := user
		if device.name == writer {
			session = peer
		}
		c.lives[device.name] = &life{connects: 1, rested: 1, stopped: device.stop == beforeUpgrade, doomed: device.doomed}
		c.enter(device.name, b.URL, session.Session, device.options)
		if device.name == writer {
			c.conversation = c.agree(user.Session, peer.Session, writer, "websocket")
		}
		switch _, chosen := device.options["transports"]; {
		case device.stop != nowhere:
			close(b.started)
			select {
			case <-b.stopped:
			case <-time.After(stockPatience):
				t.Fatalf("%s: no upgrade", device.name)
			}
		case !chosen:
			c.UntilUpgraded(device.name)
		}
	}
	return c
}

// toService lets all requests go where the Service sends them, as those of apps do.
func (c *crowd) toService() {
	c.t.Helper()
	for _, b := range c.balancers {
		if err := b.to(c.url, c.url); err != nil {
			c.t.Fatal(err)
		}
	}
}

// release lets go on what was stopped in the middle of an upgrade.
func (c *crowd) release() {
	for _, b := range c.balancers {
		close(b.resumed)
	}
	for _, l := range c.lives {
		l.stopped = false
	}
}

// write sends one more message.
func (c *crowd) write() {
	c.t.Helper()
	c.written = append(c.written, message(c.conversation, fmt.Sprintf("Message %d.", len(c.written)+1)))
	c.send(c.written[len(c.written)-1])
}

// send sends a message, again and again until it is answered.
func (c *crowd) send(message options) {
	c.t.Helper()
	const answerWithin = 5 * time.Second
	c.Do("emit", map[string]any{
		"client": writer, "event": "send", "args": []any{message}, "timeout": answerWithin.Milliseconds(),
	})
	c.unanswered = append(c.unanswered, message)
}

// follow reads what happens until nothing is missing any more.
func (c *crowd) follow(what string, missing func() error) {
	c.t.Helper()
	began := time.Now()
	defer func() {
		if err := missing(); err != nil {
			c.t.Logf("%s: not yet: %v", what, err)
		}
	}()
	for missing() != nil {
		if time.Since(began) > 2*stockPatience {
			c.t.Fatalf("%s: not after %s", what, time.Since(began))
		}
		c.note(c.Any())
	}
	c.t.Logf("%s: after %s more", what, time.Since(began).Round(100*time.Millisecond))
}

// note takes down what happens, and holds it against what must not.
func (c *crowd) note(h stockclient.Happening) {
	c.t.Helper()
	l := c.lives[h.Client]
	switch h.What {
	case "connect":
		l.connects++
		if !h.Recovered {
			c.t.Errorf("%s is back, and not recovered: %s", h.Client, h)
		}
	case "disconnect":
		l.reasons = append(l.reasons, h.Reason)
	case "connect_error":
		c.failures++
		if h.Data != nil {
			c.t.Errorf("%s is refused: %s", h.Client, h)
		}
	case "event":
		if h.Event == "message" {
			l.heard = append(l.heard, readStock[stockEvent](c.t, h).ID)
		}
	case "ack":
		a, message := readStock[stockAnswer](c.t, h), c.unanswered[0] // answers come in the order of sending
		c.unanswered = c.unanswered[1:]
		switch {
		case a.OK:
			c.acked = append(c.acked, a.ID)
		case a.Error != nil && a.Error.Temporary:
			c.refusals++
			c.send(message)
		default:
			c.t.Errorf("a message is refused: %+v %v", a, a.Error)
		}
	}
}

// settle waits until everything is acknowledged and everyone heard it, and holds
// that against the database. Those who must be have come back, and were recovered.
func (c *crowd) settle(after string, mustBreak func(*life) bool) {
	c.t.Helper()
	c.follow("everything is acknowledged after "+after, func() error {
		if n := len(c.unanswered); n > 0 {
			return fmt.Errorf("%d messages have no answer", n)
		}
		return nil
	})
	c.follow("everyone heard it", func() error {
		var missing []error
		for name, l := range c.lives {
			if mustBreak(l) && l.connects == l.rested {
				missing = append(missing, fmt.Errorf("%s did not come back; it left for %v", name, l.reasons))
			}
			if len(l.heard) < len(c.written) {
				missing = append(missing, fmt.Errorf("%s heard %d of %d messages", name, len(l.heard), len(c.written)))
			}
		}
		return errors.Join(missing...)
	})
	stored := c.m.messages(c.t)[c.conversation]
	if len(stored) != len(c.written) {
		c.t.Errorf("after %s: the database has %d messages of %d that were written", after, len(stored), len(c.written))
	}
	for _, id := range c.acked {
		if !slices.Contains(stored, id) {
			c.t.Errorf("after %s: message %s was acknowledged and is not in the database", after, id)
		}
	}
	returns, reasons := map[int]int{}, map[string]int{}
	for name, l := range c.lives {
		if diff := cmp.Diff(stored, l.heard); diff != "" {
			c.t.Errorf("after %s: %s heard something else than the database has (-database +heard):\n%s", after, name, diff)
		}
		returns[l.connects-l.rested]++
		for _, reason := range l.reasons {
			reasons[reason]++
		}
		l.rested, l.cut, l.reasons = l.connects, false, nil
	}
	c.t.Logf("after %s: %d messages; %d were sent again after a refusal; clients by how often they came back: %v, after %d failures; they left for %v",
		after, len(stored), c.refusals, returns, c.failures, reasons)
	c.refusals, c.failures = 0, 0
}
