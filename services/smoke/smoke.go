// Package smoke walks through a running deployment as its users would: a
// client and a tasker sign up, agree on a chore, chat about it and finish it.
// It uses the public API alone, and works against any deployment.
package smoke

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/client"
)

// messagesEach is how many messages either side sends.
const messagesEach = 5

// otherPodTries is how often the tasker connects anew to land on another pod
// than the client did. With two pods, all tries miss once in a thousand runs.
const otherPodTries = 10

// Run walks the story and writes each step with its time to out. It returns at
// the first step that fails. Whatever a pod's death breaks is tried again until
// ctx ends.
func Run(ctx context.Context, api *client.Client, out io.Writer) error {
	s := &story{api: api, out: out}
	defer s.hangUp()
	begin := time.Now()
	for _, step := range []struct {
		name string
		run  func(context.Context) (string, error)
	}{
		{"the client signs up", s.clientSignsUp},
		{"the tasker signs up", s.taskerSignsUp},
		{"the client connects", s.clientConnects},
		{"the tasker connects", s.taskerConnects},
		{"the client posts a chore", s.clientPosts},
		{"the tasker makes an offer", s.taskerOffers},
		{"both hear of their conversation", s.bothHear},
		{"the client accepts the offer", s.clientAccepts},
		{"both chat", s.bothChat},
		{"the tasker starts", s.taskerStarts},
		{"the tasker submits the work", s.taskerSubmits},
		{"the client completes the chore", s.clientCompletes},
		{"both hear that it is completed", s.bothHearCompleted},
		{"both sign out", s.bothSignOut},
	} {
		start := time.Now()
		note, err := step.run(ctx)
		took := time.Since(start).Round(time.Millisecond)
		if err != nil {
			fmt.Fprintf(out, "FAIL  %-34s %8s\n", step.name, took)
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if note != "" {
			note = "  " + note
		}
		fmt.Fprintf(out, "ok    %-34s %8s%s\n", step.name, took, note)
	}
	fmt.Fprintf(out, "the story took %s\n", time.Since(begin).Round(time.Millisecond))
	return nil
}

// side is one of the two people.
type side struct {
	session *client.Session
	socket  *client.Socket
}

type story struct {
	api            *client.Client
	out            io.Writer
	client, tasker side
	task           client.Task
	offer          client.Offer
	conversation   uuid.UUID
}

func (s *story) hangUp() {
	for _, p := range []side{s.client, s.tasker} {
		if p.socket != nil {
			p.socket.Close()
		}
	}
}

func (s *story) signUp(ctx context.Context, name string, who *side) (string, error) {
	email := fmt.Sprintf("%s-%s@smoke.example", name, uuid.Must(uuid.NewV7()))
	session, err := s.api.Register(ctx, email, rand.Text(), "Smoke test "+name)
	if err != nil {
		return "", err
	}
	who.session = session
	return "", nil
}

func (s *story) clientSignsUp(ctx context.Context) (string, error) {
	return s.signUp(ctx, "client", &s.client)
}

func (s *story) taskerSignsUp(ctx context.Context) (string, error) {
	return s.signUp(ctx, "tasker", &s.tasker)
}

func (s *story) clientConnects(ctx context.Context) (note string, err error) {
	s.client.socket, err = s.client.session.Dial(ctx)
	if err != nil {
		return "", err
	}
	return "to " + s.client.socket.Stats().Instance, nil
}

// taskerConnects prefers another pod, so that the chat crosses the bus.
func (s *story) taskerConnects(ctx context.Context) (string, error) {
	taken := s.client.socket.Stats().Instance
	for range otherPodTries {
		socket, err := s.tasker.session.Dial(ctx)
		if err != nil {
			return "", err
		}
		if s.tasker.socket != nil {
			s.tasker.socket.Close()
		}
		s.tasker.socket = socket
		if instance := socket.Stats().Instance; instance != taken {
			return "to " + instance, nil
		}
	}
	return "to the same pod: no other answered", nil
}

func (s *story) clientPosts(ctx context.Context) (note string, err error) {
	s.task, err = s.client.session.PostTask(ctx, "Put up three shelves",
		"The wall is brick; the shelves and the screws are here.", client.Money{AmountMinor: 6000, Currency: "EUR"})
	return "", err
}

func (s *story) taskerOffers(ctx context.Context) (note string, err error) {
	s.offer, err = s.tasker.session.MakeOffer(ctx, s.task.ID,
		client.Money{AmountMinor: 5500, Currency: "EUR"}, "I have the drill and can come on Saturday.")
	return "", err
}

// bothHear waits until the tasks service's event has become a conversation.
func (s *story) bothHear(ctx context.Context) (string, error) {
	about := func(e client.Event) bool {
		return e.Op == "task" && e.TaskID == s.task.ID && e.ConversationID != uuid.Nil
	}
	heard, err := await(ctx, s.client.socket, about)
	if err != nil {
		return "", fmt.Errorf("the client: %w", err)
	}
	s.conversation = heard.ConversationID
	heard, err = await(ctx, s.tasker.socket, about)
	if err != nil {
		return "", fmt.Errorf("the tasker: %w", err)
	}
	if heard.ConversationID != s.conversation {
		return "", fmt.Errorf("the client was told of conversation %s, the tasker of %s", s.conversation, heard.ConversationID)
	}
	return "", nil
}

func (s *story) clientAccepts(ctx context.Context) (string, error) {
	return "", s.client.session.AcceptOffer(ctx, s.task.ID, s.offer.ID)
}

// bothChat sends both ways, and wants every message on both sides, once, in
// the order of the conversation.
func (s *story) bothChat(ctx context.Context) (string, error) {
	var sent []client.Ack
	for i := range messagesEach {
		for _, who := range []struct {
			name   string
			socket *client.Socket
		}{{"client", s.client.socket}, {"tasker", s.tasker.socket}} {
			ack, err := who.socket.Send(ctx, s.conversation, uuid.Must(uuid.NewV7()),
				map[string]string{"text": fmt.Sprintf("Message %d of the %s.", i+1, who.name)})
			if err != nil {
				return "", fmt.Errorf("message %d of the %s: %w", i+1, who.name, err)
			}
			sent = append(sent, ack)
		}
	}
	for name, socket := range map[string]*client.Socket{"client": s.client.socket, "tasker": s.tasker.socket} {
		var got []uuid.UUID
		for range sent {
			e, err := await(ctx, socket, func(e client.Event) bool { return e.Op == "message" })
			if err != nil {
				return "", fmt.Errorf("the %s has %d of %d messages: %w", name, len(got), len(sent), err)
			}
			got = append(got, e.ID)
		}
		want := make([]uuid.UUID, 0, len(sent))
		for _, ack := range sent {
			want = append(want, ack.ID)
		}
		if !slices.Equal(got, want) {
			return "", fmt.Errorf("the %s got messages %v; %v were acknowledged, in this order", name, got, want)
		}
	}
	return fmt.Sprintf("%d messages, each on both sides", len(sent)), nil
}

func (s *story) taskerStarts(ctx context.Context) (string, error) {
	return "", s.tasker.session.Start(ctx, s.task.ID)
}

func (s *story) taskerSubmits(ctx context.Context) (string, error) {
	return "", s.tasker.session.Submit(ctx, s.task.ID)
}

func (s *story) clientCompletes(ctx context.Context) (string, error) {
	return "", s.client.session.Complete(ctx, s.task.ID)
}

func (s *story) bothHearCompleted(ctx context.Context) (string, error) {
	for name, socket := range map[string]*client.Socket{"client": s.client.socket, "tasker": s.tasker.socket} {
		if _, err := await(ctx, socket, func(e client.Event) bool {
			return e.Op == "task" && e.TaskID == s.task.ID && e.To == "completed"
		}); err != nil {
			return "", fmt.Errorf("the %s: %w", name, err)
		}
	}
	connects := s.client.socket.Stats().Connects + s.tasker.socket.Stats().Connects
	if connects > 2 {
		return fmt.Sprintf("over %d connections", connects), nil
	}
	return "", nil
}

func (s *story) bothSignOut(ctx context.Context) (string, error) {
	return "", errors.Join(s.client.session.Logout(ctx), s.tasker.session.Logout(ctx))
}

// await passes over events until one fits.
func await(ctx context.Context, socket *client.Socket, fits func(client.Event) bool) (client.Event, error) {
	for {
		select {
		case <-ctx.Done():
			return client.Event{}, fmt.Errorf("nothing came in time: %w", ctx.Err())
		case e, ok := <-socket.Events():
			if !ok {
				return client.Event{}, fmt.Errorf("the socket ended: %w", socket.Err())
			}
			if fits(e) {
				return e, nil
			}
		}
	}
}
