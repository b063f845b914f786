// Package httpapi serves the tasks domain over HTTP.
package httpapi

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/internal/idempotency"
	"github.com/marketplane/marketplane/services/internal/identity"
	"github.com/marketplane/marketplane/services/internal/web"
	"github.com/marketplane/marketplane/services/tasks"
)

// Routes that create something; the names are kept with idempotency keys.
const (
	routeTasks  = "/v1/tasks"
	routeTask   = routeTasks + "/{task_id}"
	routeOffers = routeTask + "/offers"
	routeOffer  = routeOffers + "/{offer_id}"
)

// Register adds the operations to an API.
func Register(api *web.API, service *tasks.Service, keeper *idempotency.Keeper) {
	h := handlers{service: service, keeper: keeper}
	web.Handle(api, web.Operation{ID: "postTask", Method: http.MethodPost, Path: routeTasks, Summary: "Post a task", Status: http.StatusCreated}, h.postTask)
	web.Handle(api, web.Operation{ID: "listTasks", Method: http.MethodGet, Path: routeTasks, Summary: "List open tasks and your own, newest first"}, h.listTasks)
	web.Handle(api, web.Operation{ID: "getTask", Method: http.MethodGet, Path: routeTask, Summary: "Get a task"}, h.getTask)
	web.Handle(api, web.Operation{ID: "makeOffer", Method: http.MethodPost, Path: routeOffers, Summary: "Offer to do a task", Status: http.StatusCreated}, h.makeOffer)
	web.Handle(api, web.Operation{ID: "listOffers", Method: http.MethodGet, Path: routeOffers, Summary: "List a task's offers (its client: all; others: their own), newest first"}, h.listOffers)
	web.Handle(api, web.Operation{ID: "acceptOffer", Method: http.MethodPost, Path: routeOffer + "/accept", Summary: "Accept an offer (client)"}, h.acceptOffer)
	web.Handle(api, web.Operation{ID: "withdrawOffer", Method: http.MethodPost, Path: routeOffer + "/withdraw", Summary: "Withdraw an offer (its tasker)"}, h.withdrawOffer)
	web.Handle(api, web.Operation{ID: "startTask", Method: http.MethodPost, Path: routeTask + "/start", Summary: "Start the work (tasker)"}, h.startTask)
	web.Handle(api, web.Operation{ID: "submitTask", Method: http.MethodPost, Path: routeTask + "/submit", Summary: "Submit the work (tasker)"}, h.submitTask)
	web.Handle(api, web.Operation{ID: "completeTask", Method: http.MethodPost, Path: routeTask + "/complete", Summary: "Take the work as complete (client)"}, h.completeTask)
	web.Handle(api, web.Operation{ID: "cancelTask", Method: http.MethodPost, Path: routeTask + "/cancel", Summary: "Cancel an open task (client)"}, h.cancelTask)
}

type handlers struct {
	service *tasks.Service
	keeper  *idempotency.Keeper
}

// actor is who asks; every operation here is authenticated.
func actor(ctx context.Context) uuid.UUID { return identity.FromContext(ctx).UserID }

type postTaskInput struct {
	IdempotencyKey string `header:"Idempotency-Key" doc:"Required: a value of your own, up to 255 visible ASCII characters; the same request with the same key has its effect once, and gets the same answer for 24 hours."`
	Body           NewTask
}

type postTaskOutput struct {
	Location string `header:"Location"`
	ETag     string `header:"ETag" doc:"The task's version; send it as If-Match."`
	Replayed string `header:"Idempotency-Replayed" doc:"true if the task was posted by an earlier request with the same key."`
	Body     Task
}

func (h handlers) postTask(ctx context.Context, in *postTaskInput) (*postTaskOutput, error) {
	answer, err := idempotency.Do(ctx, h.keeper, idempotency.Request{
		Principal: actor(ctx), Route: http.MethodPost + " " + routeTasks, Key: in.IdempotencyKey, Input: in.Body,
	}, http.StatusCreated, func(ctx context.Context) (Task, error) {
		task, err := h.service.Post(ctx, actor(ctx), in.Body.draft())
		return taskOf(task), err
	})
	if err != nil {
		return nil, err
	}
	return &postTaskOutput{
		Location: routeTasks + "/" + answer.Body.ID.String(),
		ETag:     etag(answer.Body.Version),
		Replayed: replayed(answer.Replayed),
		Body:     answer.Body,
	}, nil
}

// PageInput is which part of a list is asked for. What is embedded in an input is
// exported, or its parameters would not be read.
type PageInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20" doc:"How many to list at most."`
	Cursor string `query:"cursor" maxLength:"100" doc:"The next_cursor of the part before, under the same filter."`
}

type listTasksInput struct {
	Status string `query:"status" enum:"open,assigned,in_progress,submitted,completed,cancelled" doc:"Only tasks in this status."`
	Mine   bool   `query:"mine" doc:"Only tasks that you posted or do."`
	PageInput
}

type listTasksOutput struct{ Body TaskList }

func (h handlers) listTasks(ctx context.Context, in *listTasksInput) (*listTasksOutput, error) {
	filter := tasks.Filter{Status: tasks.Status(in.Status), Mine: in.Mine}
	list := cursorList{"tasks", actor(ctx).String(), in.Status, in.Mine}
	before, err := list.decode(in.Cursor)
	if err != nil {
		return nil, err
	}
	found, more, err := h.service.Tasks(ctx, actor(ctx), filter, tasks.Page{Before: before, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	out := &listTasksOutput{Body: TaskList{Items: make([]Task, 0, len(found))}}
	for _, t := range found {
		out.Body.Items = append(out.Body.Items, taskOf(t))
	}
	if more {
		out.Body.NextCursor = list.encode(found[len(found)-1].ID)
	}
	return out, nil
}

// TaskPath names a task.
type TaskPath struct {
	TaskID uuid.UUID `path:"task_id" format:"uuid"`
}

type taskOutput struct {
	ETag string `header:"ETag" doc:"The task's version; send it as If-Match."`
	Body Task
}

func taskAnswer(t tasks.Task, err error) (*taskOutput, error) {
	if err != nil {
		return nil, err
	}
	return &taskOutput{ETag: etag(t.Version), Body: taskOf(t)}, nil
}

func (h handlers) getTask(ctx context.Context, in *TaskPath) (*taskOutput, error) {
	return taskAnswer(h.service.Task(ctx, actor(ctx), in.TaskID))
}

type makeOfferInput struct {
	TaskPath
	IdempotencyKey string `header:"Idempotency-Key" doc:"Required; as for posting a task."`
	Body           NewOffer
}

type makeOfferOutput struct {
	Replayed string `header:"Idempotency-Replayed" doc:"true if the offer was made by an earlier request with the same key."`
	Body     Offer
}

func (h handlers) makeOffer(ctx context.Context, in *makeOfferInput) (*makeOfferOutput, error) {
	// The path is part of what is asked: the same key on another task is another
	// request, not a replay.
	input := struct {
		TaskID uuid.UUID
		Body   NewOffer
	}{in.TaskID, in.Body}
	answer, err := idempotency.Do(ctx, h.keeper, idempotency.Request{
		Principal: actor(ctx), Route: http.MethodPost + " " + routeOffers, Key: in.IdempotencyKey, Input: input,
	}, http.StatusCreated, func(ctx context.Context) (Offer, error) {
		offer, err := h.service.MakeOffer(ctx, actor(ctx), in.TaskID, in.Body.bid())
		return offerOf(offer), err
	})
	if err != nil {
		return nil, err
	}
	return &makeOfferOutput{Body: answer.Body, Replayed: replayed(answer.Replayed)}, nil
}

type listOffersInput struct {
	TaskPath
	PageInput
}

type listOffersOutput struct{ Body OfferList }

func (h handlers) listOffers(ctx context.Context, in *listOffersInput) (*listOffersOutput, error) {
	list := cursorList{"offers", actor(ctx).String(), in.TaskID.String(), false}
	before, err := list.decode(in.Cursor)
	if err != nil {
		return nil, err
	}
	found, more, err := h.service.Offers(ctx, actor(ctx), in.TaskID, tasks.Page{Before: before, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	out := &listOffersOutput{Body: OfferList{Items: make([]Offer, 0, len(found))}}
	for _, o := range found {
		out.Body.Items = append(out.Body.Items, offerOf(o))
	}
	if more {
		out.Body.NextCursor = list.encode(found[len(found)-1].ID)
	}
	return out, nil
}

// OfferPath names an offer on a task.
type OfferPath struct {
	TaskPath
	OfferID uuid.UUID `path:"offer_id" format:"uuid"`
}

// Precondition lets a client change only what it knows.
type Precondition struct {
	IfMatch string `header:"If-Match" doc:"ETag of the task as you know it; it is refused with 412 if the task has changed since."`
}

type acceptOfferInput struct {
	OfferPath
	Precondition
}

func (h handlers) acceptOffer(ctx context.Context, in *acceptOfferInput) (*taskOutput, error) {
	command, err := commandOf(ctx, in.TaskID, in.IfMatch)
	if err != nil {
		return nil, err
	}
	return taskAnswer(h.service.Accept(ctx, command, in.OfferID))
}

type offerOutput struct{ Body Offer }

func (h handlers) withdrawOffer(ctx context.Context, in *OfferPath) (*offerOutput, error) {
	offer, err := h.service.Withdraw(ctx, actor(ctx), in.TaskID, in.OfferID)
	if err != nil {
		return nil, err
	}
	return &offerOutput{Body: offerOf(offer)}, nil
}

// MoveInput asks to move a task on.
type MoveInput struct {
	TaskPath
	Precondition
}

type submitInput struct {
	MoveInput
	Body *Submission
}

func (h handlers) startTask(ctx context.Context, in *MoveInput) (*taskOutput, error) {
	return moved(ctx, in, h.service.Start)
}

func (h handlers) submitTask(ctx context.Context, in *submitInput) (*taskOutput, error) {
	note := ""
	if in.Body != nil {
		note = in.Body.Note
	}
	return moved(ctx, &in.MoveInput, func(ctx context.Context, c tasks.Command) (tasks.Task, error) {
		return h.service.Submit(ctx, c, note)
	})
}

func (h handlers) completeTask(ctx context.Context, in *MoveInput) (*taskOutput, error) {
	return moved(ctx, in, h.service.Complete)
}

func (h handlers) cancelTask(ctx context.Context, in *MoveInput) (*taskOutput, error) {
	return moved(ctx, in, h.service.Cancel)
}

func moved(ctx context.Context, in *MoveInput, move func(context.Context, tasks.Command) (tasks.Task, error)) (*taskOutput, error) {
	command, err := commandOf(ctx, in.TaskID, in.IfMatch)
	if err != nil {
		return nil, err
	}
	return taskAnswer(move(ctx, command))
}

func commandOf(ctx context.Context, task uuid.UUID, header string) (tasks.Command, error) {
	expected, err := expectedOf(header)
	return tasks.Command{Actor: actor(ctx), Task: task, Expected: expected}, err
}

func replayed(yes bool) string {
	if yes {
		return "true"
	}
	return ""
}
