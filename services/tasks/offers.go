package tasks

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/events"
)

// MakeOffer offers the actor's work on an open task of somebody else. A tasker
// has one pending offer on a task at a time.
func (s *Service) MakeOffer(ctx context.Context, actor, taskID uuid.UUID, bid Bid) (Offer, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Offer{}, fmt.Errorf("make an offer id: %w", err)
	}
	var offer Offer
	err = s.store.InTx(ctx, func(ctx context.Context, tx Tx) error {
		task, by, err := visible(ctx, tx, tx.LockTask, actor, taskID)
		if err != nil {
			return err
		}
		if by == client {
			return errOwnTask
		}
		if task.Status != StatusOpen {
			return illegal("task", string(task.Status), "offered on")
		}
		bid, err := bid.clean(task.Budget)
		if err != nil {
			return err
		}
		now := s.moment()
		offer = Offer{
			ID: id, TaskID: taskID, TaskerID: actor, Price: bid.Price, Message: bid.Message,
			Status: OfferPending, CreatedAt: now, UpdatedAt: now,
		}
		if err := tx.InsertOffer(ctx, offer); err != nil {
			return err
		}
		return tx.Append(ctx, events.Event{Subject: taskID, Data: events.OfferMade{
			TaskID: taskID, OfferID: id, ClientID: task.ClientID, TaskerID: actor, Title: task.Title,
		}})
	})
	if err != nil {
		return Offer{}, fmt.Errorf("offer on task %s: %w", taskID, err)
	}
	return offer, nil
}

// Offers lists a task's offers: all of them to its client, and to anybody else
// their own.
func (s *Service) Offers(ctx context.Context, actor, taskID uuid.UUID, page Page) (offers []Offer, more bool, err error) {
	_, by, err := visible(ctx, s.store, s.store.Task, actor, taskID)
	if err != nil {
		return nil, false, err
	}
	of := actor
	if by == client {
		of = uuid.Nil
	}
	limit := page.limit()
	offers, err = s.store.Offers(ctx, taskID, of, page.Before, limit+1)
	if err != nil {
		return nil, false, fmt.Errorf("list offers on task %s: %w", taskID, err)
	}
	offers, more = cut(offers, limit)
	return offers, more, nil
}

// Accept assigns an open task to the tasker of a pending offer; the other
// pending ones are superseded.
func (s *Service) Accept(ctx context.Context, c Command, offerID uuid.UUID) (Task, error) {
	return s.move(ctx, c, actionAccept, func(ctx context.Context, tx Tx, t *Task) error {
		offer, err := tx.Offer(ctx, t.ID, offerID)
		if err != nil {
			return fmt.Errorf("find offer %s: %w", offerID, err)
		}
		if offer.Status, err = offerLife.next("offer", offer.Status, actionAccept, client); err != nil {
			return err
		}
		offer.UpdatedAt = t.UpdatedAt
		if err := tx.UpdateOffer(ctx, offer); err != nil {
			return err
		}
		t.TaskerID = &offer.TaskerID
		return tx.SupersedeOffers(ctx, t.ID, t.UpdatedAt)
	})
}

// Withdraw takes the actor's own pending offer back.
func (s *Service) Withdraw(ctx context.Context, actor, taskID, offerID uuid.UUID) (Offer, error) {
	var offer Offer
	err := s.store.InTx(ctx, func(ctx context.Context, tx Tx) error {
		_, by, err := visible(ctx, tx, tx.LockTask, actor, taskID)
		if err != nil {
			return err
		}
		if offer, err = tx.Offer(ctx, taskID, offerID); err != nil {
			return fmt.Errorf("find offer %s: %w", offerID, err)
		}
		switch {
		case offer.TaskerID == actor:
			by = offerer
		case by != client:
			return ErrNotFound // offers are seen by their own two people alone
		}
		if offer.Status, err = offerLife.next("offer", offer.Status, actionWithdraw, by); err != nil {
			return err
		}
		offer.UpdatedAt = s.moment()
		return tx.UpdateOffer(ctx, offer)
	})
	if err != nil {
		return Offer{}, fmt.Errorf("withdraw offer %s: %w", offerID, err)
	}
	return offer, nil
}
