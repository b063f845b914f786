//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/services/client"
)

// Messaging, and nothing else, grows with its connections, and shrinks again
// once fewer have sufficed for the window. Those who stay notice at most one
// reconnect for each pod that goes.
func TestMessagingFollowsItsConnections(t *testing.T) {
	const (
		users       = 200
		devicesEach = 3
		connections = users * devicesEach
		staying     = 60
		target      = 200
		window      = 20 * time.Second
		// tick is how often the operator looks: the last time that it saw them
		// all may be that long before they left.
		tick = 5 * time.Second
	)
	spec := small()
	spec.Messaging.Autoscaling = &v1alpha1.AutoscalingSpec{
		MinReplicas: new(int32(1)), MaxReplicas: 5,
		TargetConnections:             new(int32(target)),
		ScaleDownStabilizationSeconds: new(int32(window / time.Second)),
	}
	m := start(t, "autoscale", spec)
	sizes := watchSizes(t, m)
	eventually(t, time.Minute, "messaging has 1 pod", m.reaches(sizes, contract.ComponentMessaging, 1))

	var devices []*client.Session
	for _, user := range signUp(t, m.client(t), users) {
		for range devicesEach {
			devices = append(devices, user)
		}
	}
	sockets := connectAll(t, devices)
	eventually(t, 2*time.Minute, "messaging has 3 pods", m.reaches(sizes, contract.ComponentMessaging, 3))
	eventually(t, time.Minute, "the status tells of all connections", m.tellsLive(connections))
	m.waitReady(t)

	left := time.Now()
	closeAll(sockets[staying:])
	eventually(t, 3*time.Minute, "messaging has 1 pod again", m.reaches(sizes, contract.ComponentMessaging, 1))
	eventually(t, time.Minute, "the status tells of those who stayed", m.tellsLive(staying))

	for _, component := range []string{
		contract.ComponentAuth, contract.ComponentTasks, contract.ComponentBus, contract.ComponentDatabase,
	} {
		if had, err := sizes.of(component); err != nil || len(had) != 1 || had[0].replicas != 1 {
			t.Errorf("%s had the sizes %v (%v), want 1 all the time", component, had, err)
		}
	}
	had, err := sizes.of(contract.ComponentMessaging)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range had {
		t.Logf("messaging was asked for %d pods %s after most had left", s.replicas, s.since.Sub(left).Round(100*time.Millisecond))
		if i > 0 && s.replicas < had[i-1].replicas && s.since.Sub(left) < window-tick {
			t.Errorf("messaging shrank from %d to %d before the window of %s was over", had[i-1].replicas, s.replicas, window)
		}
		if s.replicas > 3 {
			t.Errorf("messaging had %d pods, %d connections at %d each need 3", s.replicas, connections, target)
		}
	}
	connects := map[int]int{}
	for i, socket := range sockets[:staying] {
		if err := socket.Err(); err != nil {
			t.Errorf("socket %d ended: %v", i, err)
		}
		connects[socket.Stats().Connects]++
		if n := socket.Stats().Connects; n > 3 {
			t.Errorf("socket %d connected %d times while two pods went", i, n)
		}
	}
	t.Logf("of those who stayed, by how often they connected: %v", connects)
}

// tellsLive says what is missing until the status tells that many connections.
func (m marketplace) tellsLive(want int32) func(context.Context) error {
	return func(ctx context.Context) error {
		object, err := m.get(ctx)
		if err != nil {
			return err
		}
		if object.Status.Messaging == nil || object.Status.Messaging.Connections == nil {
			return fmt.Errorf("the status tells nothing of connections")
		}
		if got := object.Status.Messaging.Connections.Live; got != want {
			return fmt.Errorf("the status tells of %d live connections, want %d", got, want)
		}
		return nil
	}
}
