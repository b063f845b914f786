//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/api/v1alpha1"
	"github.com/marketplane/marketplane/services/client"
)

// chatter is one of two people in a conversation, who writes all the time.
type chatter struct {
	session      *client.Session
	socket       *client.Socket
	conversation uuid.UUID

	acked []uuid.UUID // what the server acknowledged, in the order of sending
	err   error       // why the chatter stopped before it was told to

	mu    sync.Mutex
	heard []uuid.UUID // messages in the order in which they came
}

// pause is how long a chatter waits between the answer to a message and the
// next one.
const pause = 500 * time.Millisecond

// write sends messages until told to stop.
func (c *chatter) write(ctx context.Context, stop <-chan struct{}) {
	next := time.NewTicker(pause)
	defer next.Stop()
	for n := 1; ; n++ {
		ack, err := c.send(ctx, n)
		if err != nil {
			c.err = fmt.Errorf("message %d: %w", n, err)
			return
		}
		c.acked = append(c.acked, ack.ID)
		select {
		case <-stop:
			return
		case <-next.C:
		}
	}
}

func (c *chatter) send(ctx context.Context, n int) (client.Ack, error) {
	const answerWithin = time.Minute
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return c.socket.Send(ctx, c.conversation, uuid.Must(uuid.NewV7()), map[string]string{"text": fmt.Sprintf("Message %d.", n)})
}

// listen writes down what comes, until the socket ends.
func (c *chatter) listen() {
	for e := range c.socket.Events() {
		if e.Op != "message" {
			continue
		}
		c.mu.Lock()
		c.heard = append(c.heard, e.ID)
		c.mu.Unlock()
	}
}

func (c *chatter) hasHeard() []uuid.UUID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.heard)
}

// A rolling update under people who write all the time loses no message that
// was acknowledged: each is in the database, and came to both once and in
// order. Everyone is back on the new pods.
func TestRolloutUnderChatLosesNothing(t *testing.T) {
	const people = 200
	spec := small()
	spec.Messaging.Replicas = new(int32(2))
	m := start(t, "rollout", spec)
	api := m.client(t)

	sessions := signUp(t, api, people)
	sockets := connectAll(t, sessions)
	chatters := make([]*chatter, people)
	for i := range chatters {
		chatters[i] = &chatter{session: sessions[i], socket: sockets[i]}
	}
	meet(t, chatters)

	stop := make(chan struct{})
	var writers, listeners sync.WaitGroup
	for _, c := range chatters {
		listeners.Go(c.listen)
		writers.Go(func() { c.write(t.Context(), stop) })
	}
	stopWriting := sync.OnceFunc(func() { close(stop) })
	t.Cleanup(func() {
		stopWriting()
		writers.Wait()
		closeAll(sockets)
		listeners.Wait()
	})
	eventually(t, time.Minute, "everyone hears the other", func(context.Context) error { return allHeard(chatters, 10) })

	before := m.podNames(t, contract.ComponentMessaging)
	m.change(t, func(spec *v1alpha1.MarketplaceSpec) {
		spec.Messaging.Resources = &v1alpha1.Resources{Requests: v1alpha1.ResourceAmounts{CPU: new(resource.MustParse("11m"))}}
	})
	eventually(t, 4*time.Minute, "all pods are new ones", func(ctx context.Context) error {
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
	after := m.podNames(t, contract.ComponentMessaging)
	eventually(t, time.Minute, "everyone is back", func(context.Context) error {
		for i, c := range chatters {
			if stats := c.socket.Stats(); !slices.Contains(after, stats.Instance) {
				return errors.Join(fmt.Errorf("chatter %d is connected to %q", i, stats.Instance), c.socket.Err())
			}
		}
		return nil
	})
	// The new pods carry the chat on.
	already := len(chatters[0].hasHeard())
	eventually(t, time.Minute, "everyone goes on", func(context.Context) error { return allHeard(chatters, already+10) })
	stopWriting()
	writers.Wait()

	compare(t, chatters, m.messages(t))
	holdReconnects(t, chatters, m.reconnectBound(t, len(before)))
}

// meet brings the chatters into conversations, two by two: one posts a chore,
// the other offers to do it.
func meet(t *testing.T, chatters []*chatter) {
	t.Helper()
	all(t, len(chatters)/2, "agree on a chore", func(ctx context.Context, i int) error {
		one, other := chatters[2*i], chatters[2*i+1]
		price := client.Money{AmountMinor: 2500, Currency: "EUR"}
		task, err := one.session.PostTask(ctx, "Mow the lawn", "It is 200 square metres.", price)
		if err != nil {
			return err
		}
		if _, err := other.session.MakeOffer(ctx, task.ID, price, "I have a mower."); err != nil {
			return err
		}
		for _, c := range []*chatter{one, other} {
			if c.conversation, err = conversationAbout(ctx, c.socket, task.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// conversationAbout waits for the event that tells of a task's conversation.
func conversationAbout(ctx context.Context, socket *client.Socket, task uuid.UUID) (uuid.UUID, error) {
	for {
		select {
		case e, open := <-socket.Events():
			if !open {
				return uuid.Nil, fmt.Errorf("the socket ended: %w", socket.Err())
			}
			if e.Op == "task" && e.TaskID == task && e.ConversationID != uuid.Nil {
				return e.ConversationID, nil
			}
		case <-ctx.Done():
			return uuid.Nil, fmt.Errorf("nothing was told of the conversation about task %s: %w", task, ctx.Err())
		}
	}
}

func allHeard(chatters []*chatter, atLeast int) error {
	for i, c := range chatters {
		if n := len(c.hasHeard()); n < atLeast {
			return fmt.Errorf("chatter %d heard %d messages, want %d", i, n, atLeast)
		}
	}
	return nil
}

// compare holds what each chatter was promised and what it heard against what
// the database has.
func compare(t *testing.T, chatters []*chatter, stored map[uuid.UUID][]uuid.UUID) {
	t.Helper()
	total := 0
	for i, c := range chatters {
		if c.err != nil {
			t.Errorf("chatter %d stopped: %v", i, c.err)
		}
		want := stored[c.conversation]
		total += len(c.acked)
		has := make(map[uuid.UUID]bool, len(want))
		for _, id := range want {
			has[id] = true
		}
		for _, id := range c.acked {
			if !has[id] {
				t.Errorf("chatter %d: message %s was acknowledged and is not in the database", i, id)
			}
		}
		if err := poll(t.Context(), time.Minute, func(context.Context) error {
			if n := len(c.hasHeard()); n < len(want) {
				return fmt.Errorf("%d of %d messages", n, len(want))
			}
			return nil
		}); err != nil {
			t.Errorf("chatter %d did not hear everything: %v", i, err)
		}
		if diff := cmp.Diff(want, c.hasHeard()); diff != "" {
			t.Errorf("chatter %d heard something else than the database has (-database +heard):\n%s", i, diff)
		}
	}
	t.Logf("%d messages were acknowledged", total)
}

// reconnectBound is how often a rollout may make a client reconnect. Once, if
// the new pods were ready within the drain's floor of one another: then the
// last old pod was no longer served when the first one sent its clients away.
// On a machine too slow for that a Deployment promises no more than once for
// each old pod.
func (m marketplace) reconnectBound(t *testing.T, oldPods int) int {
	t.Helper()
	pods, err := m.pods(t.Context(), contract.ComponentMessaging)
	if err != nil {
		t.Fatal(err)
	}
	var first, last time.Time
	for _, p := range pods {
		for _, c := range p.Status.Conditions {
			if c.Type != corev1.PodReady {
				continue
			}
			at := c.LastTransitionTime.Time
			if first.IsZero() || at.Before(first) {
				first = at
			}
			if at.After(last) {
				last = at
			}
		}
	}
	const resolution = time.Second // of a condition's time
	floor := time.Duration(*small().Messaging.Drain.FloorSeconds) * time.Second
	gap := last.Sub(first)
	t.Logf("the new pods were ready within %s of one another", gap)
	if gap+resolution < floor {
		return 1
	}
	return oldPods
}

// holdReconnects compares how often the chatters connected again with a bound.
func holdReconnects(t *testing.T, chatters []*chatter, most int) {
	t.Helper()
	reconnects, notRecovered := map[int]int{}, 0
	for _, c := range chatters {
		stats := c.socket.Stats()
		reconnects[stats.Connects-1]++
		notRecovered += stats.NotRecovered
	}
	t.Logf("chatters by their number of reconnects: %v", reconnects)
	if notRecovered > 0 {
		t.Errorf("%d resumes were not recovered", notRecovered)
	}
	for n, many := range reconnects {
		if n > most {
			t.Errorf("%d chatters reconnected %d times, want at most %d", many, n, most)
		}
	}
}

func (m marketplace) podNames(t *testing.T, component string) []string {
	t.Helper()
	pods, err := m.pods(t.Context(), component)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range pods {
		names = append(names, p.Name)
	}
	return names
}

// messages reads the ids of all messages from the database, by conversation,
// in the order of the conversation.
func (m marketplace) messages(t *testing.T) map[uuid.UUID][]uuid.UUID {
	t.Helper()
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, m.databaseURL(t))
	if err != nil {
		t.Fatalf("connect to the database: %v", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	object, err := m.get(ctx)
	if err != nil {
		t.Fatal(err)
	}
	table := pgx.Identifier{contract.DatabaseSchema(object.Status.Installation, contract.ComponentMessaging), "messages"}
	rows, err := conn.Query(ctx, "SELECT conversation_id, id FROM "+table.Sanitize()+" ORDER BY conversation_id, seq")
	if err != nil {
		t.Fatalf("read the messages: %v", err)
	}
	stored := map[uuid.UUID][]uuid.UUID{}
	var conversation, id uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&conversation, &id}, func() error {
		stored[conversation] = append(stored[conversation], id)
		return nil
	}); err != nil {
		t.Fatalf("read the messages: %v", err)
	}
	return stored
}

// databaseURL is the administrator's, by the address that the host reaches.
func (m marketplace) databaseURL(t *testing.T) string {
	t.Helper()
	secret := &corev1.Secret{}
	key := kube.ObjectKey{Namespace: m.namespace, Name: m.name + "-database-admin"}
	if err := cluster.kube.Get(t.Context(), key, secret); err != nil {
		t.Fatalf("read Secret %s: %v", key, err)
	}
	u, err := url.Parse(string(secret.Data[contract.FileDatabaseURL]))
	if err != nil {
		t.Fatalf("Secret %s holds no URL", key)
	}
	u.Host = fmt.Sprintf("%s:%d", m.clusterIP(t, contract.ComponentDatabase), contract.DatabasePort)
	return u.String()
}
