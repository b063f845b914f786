package tasks

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/fault"
)

var (
	allStatuses = []Status{StatusNone, StatusOpen, StatusAssigned, StatusInProgress, StatusSubmitted, StatusCompleted, StatusCancelled}
	allActions  = []action{actionPost, actionAccept, actionStart, actionSubmit, actionComplete, actionCancel, actionWithdraw}
	allRoles    = []role{stranger, offerer, client, tasker}
)

// TestTaskLife writes the whole life down a second time, as lines to read, and
// tries every combination of status, action and role.
func TestTaskLife(t *testing.T) {
	t.Parallel()
	want := []string{
		" posted client -> open",
		"open assigned client -> assigned",
		"open cancelled client -> cancelled",
		"assigned started tasker -> in_progress",
		"in_progress submitted tasker -> submitted",
		"submitted completed client -> completed",
	}
	var got []string
	for _, from := range allStatuses {
		for _, act := range allActions {
			for _, by := range allRoles {
				to, err := taskLife.next("task", from, act, by)
				if err == nil {
					got = append(got, strings.Join([]string{string(from), string(act), string(by), "->", string(to)}, " "))
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the life of a task (-want +got):\n%s", diff)
	}
}

func TestTaskLifeRefusals(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		from        Status
		act         action
		by          role
		wantCode    string
		wantTo      Status
		wantMessage string
	}{
		"the client can't start, whatever the status": {StatusAssigned, actionStart, client, "forbidden", StatusInProgress, ""},
		"a stranger can't cancel":                     {StatusOpen, actionCancel, stranger, "forbidden", StatusCancelled, ""},
		"an offerer can't accept":                     {StatusOpen, actionAccept, offerer, "forbidden", StatusAssigned, ""},
		"the tasker can't complete":                   {StatusSubmitted, actionComplete, tasker, "forbidden", StatusCompleted, ""},
		"starting twice":                              {StatusInProgress, actionStart, tasker, "illegal_transition", StatusInProgress, "The task is in_progress now, so it can't be started."},
		"cancelling what is assigned":                 {StatusAssigned, actionCancel, client, "illegal_transition", StatusCancelled, "The task is assigned now, so it can't be cancelled."},
		"an end is an end":                            {StatusCompleted, actionCancel, client, "illegal_transition", StatusCancelled, "The task is completed now, so it can't be cancelled."},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to, err := taskLife.next("task", test.from, test.act, test.by)
			f := fault.From(err)
			if err == nil || f.Code != test.wantCode || to != test.wantTo {
				t.Fatalf("next = %q, %v; want %q refused as %s", to, err, test.wantTo, test.wantCode)
			}
			if test.wantMessage != "" && f.Message != test.wantMessage {
				t.Errorf("message = %q, want %q", f.Message, test.wantMessage)
			}
		})
	}
}

func TestOfferLife(t *testing.T) {
	t.Parallel()
	want := []string{
		"pending assigned client -> accepted",
		"pending withdrawn offerer -> withdrawn",
	}
	var got []string
	for _, from := range []OfferStatus{OfferPending, OfferAccepted, OfferSuperseded, OfferWithdrawn} {
		for _, act := range allActions {
			for _, by := range allRoles {
				if to, err := offerLife.next("offer", from, act, by); err == nil {
					got = append(got, strings.Join([]string{string(from), string(act), string(by), "->", string(to)}, " "))
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the life of an offer (-want +got):\n%s", diff)
	}
}

// TestStatusesAreReachable guards against a status that no row leads to.
func TestStatusesAreReachable(t *testing.T) {
	t.Parallel()
	for _, status := range allStatuses[1:] {
		if !slices.ContainsFunc(taskLife, func(r transition[Status]) bool { return r.to == status }) {
			t.Errorf("nothing leads to %s", status)
		}
	}
}

func TestExpected(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		expected Expected
		want     error
	}{
		"none given":      {nil, nil},
		"the version":     {Expected{3}, nil},
		"one of several":  {Expected{1, 3}, nil},
		"another version": {Expected{2}, errStale},
		"nothing matches": {Expected{}, errStale},
	}
	for name, test := range tests {
		if got := test.expected.check(3); !errors.Is(got, test.want) {
			t.Errorf("%s: check = %v, want %v", name, got, test.want)
		}
	}
}

func TestResultOf(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err  error
		want Result
	}{
		"done":      {nil, ResultDone},
		"illegal":   {illegal("task", "open", actionStart), ResultIllegal},
		"forbidden": {errForbidden, ResultForbidden},
		"stale":     {errStale, ResultStale},
		"not found": {ErrNotFound, ResultRefused},
		"down":      {fault.New(fault.Unavailable, "down", "down"), ResultFailed},
		"internal":  {errors.New("broken"), ResultFailed},
	}
	for name, test := range tests {
		if got := resultOf(test.err); got != test.want {
			t.Errorf("%s: result = %s, want %s", name, got, test.want)
		}
	}
}

func TestSeenBy(t *testing.T) {
	t.Parallel()
	clientID, taskerID := uuid.New(), uuid.New()
	task := Task{ClientID: clientID, TaskerID: &taskerID, SubmissionNote: "the key is under the mat"}
	for name, test := range map[string]struct {
		user uuid.UUID
		want string
	}{
		"client":  {clientID, task.SubmissionNote},
		"tasker":  {taskerID, task.SubmissionNote},
		"offerer": {uuid.New(), ""},
	} {
		if got := task.seenBy(test.user).SubmissionNote; got != test.want {
			t.Errorf("%s sees the note %q, want %q", name, got, test.want)
		}
	}
}
