package notify

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// Worker is a process's part in the work. Make it with New.
type Worker struct {
	store  Store
	reach  Reach
	sender Sender
	log    *slog.Logger
	sent   *prometheus.CounterVec

	self uuid.UUID
	// lookedAt is up to where every message has been looked at, in Unix
	// nanoseconds.
	lookedAt atomic.Int64

	// What follows is Run's own. It means something while the work is held.
	held      bool
	heldUntil time.Time // by this process's clock, which runs as fast as the store's
	looks     [2]look
	aside     map[recipient]*refused
	taken     int // notifications, by the back end
	failures  int // in a row
	notBefore time.Time
}

// look is how far one of the looks has come.
type look struct {
	place   Place
	written time.Time // when the place was
	// end is the batch's that is being sent, so that another try makes the same
	// notifications of it; zero if there is none.
	end time.Time
	// window is how much time a batch covers at most: it follows the traffic.
	window time.Duration
}

// New makes a worker.
func New(store Store, reach Reach, sender Sender, log *slog.Logger, registry prometheus.Registerer) *Worker {
	w := &Worker{
		store: store, reach: reach, sender: sender, log: log, self: uuid.New(), aside: map[recipient]*refused{},
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "marketplane_messaging_notifications_total",
			Help: "Requests to the notifications' webhook, by result (sent, failed), and notifications that are given up, by given_up.",
		}, []string{"result"}),
	}
	w.lookedAt.Store(time.Now().UnixNano())
	registry.MustRegister(w.sent, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "marketplane_messaging_notifications_lag_seconds",
		Help: "Age of the newest moment of which this process knows that everyone to be notified of the messages until then was: about 20 s when all is well. One process of several notifies; take the least.",
	}, func() float64 { return time.Since(time.Unix(0, w.lookedAt.Load())).Seconds() }))
	return w
}

// Run notifies, whenever this process holds the work, until ctx ends. Errors are
// logged and tried again.
func (w *Worker) Run(ctx context.Context) error {
	defer w.release(ctx)
	timer := time.NewTimer(rand.N(poll)) //nolint:gosec // G404: jitter needs no secrecy
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		timer.Reset(w.turn(ctx))
	}
}

// turn does what there is to do, and returns how long to wait for the next.
func (w *Worker) turn(ctx context.Context) time.Duration {
	more, err := w.work(ctx)
	switch {
	case errors.Is(err, ErrLost):
		w.held = false
		return idle
	case err != nil:
		if ctx.Err() != nil {
			return idle
		}
		wait := w.backoff(err)
		if w.failures == 1 { // once per outage
			w.log.Warn("notifications wait; trying on", "error", err)
		}
		w.notBefore = time.Now().Add(wait)
		return min(wait, idle) // the lease is prolonged meanwhile
	case time.Now().Before(w.notBefore):
		return min(time.Until(w.notBefore), idle)
	}
	if w.failures > 0 {
		w.log.Info("notifications wait no longer")
		w.failures = 0
	}
	switch {
	case !w.held:
		return idle + rand.N(poll) //nolint:gosec // G404: jitter needs no secrecy
	case more:
		return 0
	default:
		return poll
	}
}

func (w *Worker) backoff(err error) time.Duration {
	wait := maxBackoff
	if w.failures < 6 {
		wait = min(minBackoff<<w.failures, maxBackoff)
	}
	w.failures++
	wait = wait/2 + rand.N(wait/2) //nolint:gosec // G404: jitter needs no secrecy
	var refusal *RefusalError
	if errors.As(err, &refusal) {
		wait = max(wait, min(refusal.RetryAfter, maxBackoff))
	}
	return wait
}

// work takes or keeps the lease and makes a step of each look; more says that
// there is another one to make at once.
func (w *Worker) work(ctx context.Context) (more bool, err error) {
	began := time.Now()
	state, err := w.store.State(ctx)
	if err != nil {
		return false, err
	}
	mine := state.Holder == w.self && state.Held && w.held
	if !mine {
		w.held = false
		w.saw(state.Places)
		if state.Held && state.Holder != w.self {
			return false, nil
		}
	}
	if !mine || time.Until(w.heldUntil) < lease/2 {
		if err := w.store.Hold(ctx, w.self, lease); err != nil {
			return false, err
		}
		w.prolonged(began)
	}
	if !mine {
		// The places may have moved between the look and the hold.
		if state, err = w.store.State(ctx); err != nil {
			return false, err
		}
		w.held = true
		clear(w.aside)
		for i := range w.looks {
			w.looks[i] = look{place: state.Places[i], written: began, window: time.Minute}
		}
		w.log.Info("this process notifies from now on")
	}
	if time.Now().Before(w.notBefore) {
		return false, nil
	}
	if err := w.retry(ctx, state.Now); err != nil {
		return false, err
	}
	for which, lag := range [...]time.Duration{Soon: soonLag, Late: lateLag} {
		until := state.Now.Add(-lag)
		if Look(which) == Late && until.After(w.looks[Soon].place.At) {
			until = w.looks[Soon].place.At // those were notified that had to be
		}
		again, err := w.step(ctx, Look(which), state.Now, until)
		if err != nil {
			return false, err
		}
		more = more || again
	}
	return more, nil
}

// prolonged notes that the lease began anew not before the given time.
func (w *Worker) prolonged(since time.Time) { w.heldUntil = since.Add(lease - margin) }

// saw notes up to where all is done: for the late look, that is about as long
// ago as the difference between the looks.
func (w *Worker) saw(done [2]Place) {
	at := done[Soon].At
	if late := done[Late].At.Add(lateLag - soonLag); late.Before(at) {
		at = late
	}
	w.lookedAt.Store(at.UnixNano())
}

// step looks at one batch of messages that were sent before until; more says
// that there are others.
func (w *Worker) step(ctx context.Context, which Look, now, until time.Time) (more bool, err error) {
	l := &w.looks[which]
	if oldest := now.Add(-maxAge); l.place.At.Before(oldest) {
		w.log.Warn("no notifications of messages that are too old", "since", l.place.At, "until", oldest)
		l.place, l.end = Place{At: oldest}, time.Time{}
	}
	if l.end.IsZero() {
		l.end = until
		if limit := l.place.At.Add(l.window); limit.Before(until) {
			l.end = limit
		}
	}
	if !l.place.At.Before(l.end) {
		l.end = time.Time{}
		return false, nil
	}
	messages, err := w.store.Messages(ctx, l.place, l.end, maxMessages)
	if err != nil {
		// If it took too long, it may do for less.
		l.window, l.end = max(l.window/2, minWindow), time.Time{}
		return false, err
	}
	if err := w.notify(ctx, which, messages); err != nil {
		return false, err
	}
	next := Place{At: l.end}
	if len(messages) == maxMessages {
		last := messages[maxMessages-1]
		next = Place{last.SentAt, last.ConversationID, last.Seq}
		l.window = max(l.window/2, minWindow)
	} else if len(messages) < maxMessages/2 {
		l.window = min(2*l.window, maxWindow)
	}
	if began := time.Now(); len(messages) > 0 || began.Sub(l.written) >= persist {
		if err := w.store.Move(ctx, w.self, lease, which, w.safe(which, next)); err != nil {
			return false, err
		}
		w.prolonged(began)
		l.written = began
	}
	l.place, l.end = next, time.Time{}
	w.saw([2]Place{Soon: w.safe(Soon, w.looks[Soon].place), Late: w.safe(Late, w.looks[Late].place)})
	return next.At.Before(until), nil
}

// release gives the work up, so that another process goes on at once.
func (w *Worker) release(ctx context.Context) {
	if !w.held {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	if err := w.store.Release(ctx, w.self); err != nil {
		w.log.Warn("notifications wait for the lease to run out", "error", err)
	}
}
