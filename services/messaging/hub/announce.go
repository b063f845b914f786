package hub

import (
	"github.com/google/uuid"

	"github.com/marketplane/marketplane/services/messaging"
)

// Announce brings news to this process's connections and to the other
// processes. It implements messaging.Announcer. Items that follow one another
// and share their payload go out together.
func (h *Hub) Announce(items []messaging.Item) {
	var (
		receivers []receiver
		scratch   []byte
	)
	for len(items) > 0 {
		first := items[0]
		receivers = receivers[:0]
		for _, item := range items {
			if len(receivers) > 0 && (len(receivers) == maxMany || item.Kind != first.Kind || !item.SharesPayload(first)) {
				break
			}
			receivers = append(receivers, receiver{id: item.UserID, offset: item.Offset})
		}
		items = items[len(receivers):]
		h.spread(first.Kind, first.Payload, receivers, h.noteGap)
		scratch = h.publishItem(scratch, first.Kind, first.Payload, receivers)
	}
}

// noteGap has a gap looked after that this process's own commits left: another
// of them is about to be announced, or it was lost.
func (h *Hub) noteGap(u *user) {
	select {
	case h.gaps <- u:
	default:
		h.fills.add(u)
	}
}

// publishItem tells the other processes of one item of many users. It returns
// the scratch that it was given, grown.
func (h *Hub) publishItem(scratch []byte, kind messaging.Kind, payload []byte, receivers []receiver) []byte {
	if len(receivers) >= manyFrom {
		scratch = appendMany(scratch[:0], manyItems, kind, payload, receivers)
		if !h.published(h.bus.PublishMany(scratch), itemNotPublished) {
			for _, r := range receivers {
				h.missed.add(r.id, r.offset)
			}
		}
		return scratch
	}
	for _, r := range receivers {
		scratch = appendItem(scratch[:0], messaging.Item{Offset: r.offset, Kind: kind, Payload: payload})
		if !h.published(h.bus.Publish(r.id, scratch), itemNotPublished) {
			h.missed.add(r.id, r.offset)
		}
	}
	return scratch
}

// Signal implements messaging.Announcer.
func (h *Hub) Signal(users []uuid.UUID, signal messaging.Signal) {
	receivers := make([]receiver, len(users))
	for i, id := range users {
		receivers[i].id = id
	}
	h.spreadSignal(signal, receivers)
	if len(users) < manyFrom {
		data := encodeSignal(signal)
		for _, id := range users {
			h.published(h.bus.Publish(id, data), signalNotPublished)
		}
		return
	}
	var data []byte
	for len(receivers) > 0 {
		n := min(len(receivers), maxMany)
		data = appendMany(data[:0], manySignal, signal.Kind, signal.Payload, receivers[:n])
		h.published(h.bus.PublishMany(data), signalNotPublished)
		receivers = receivers[n:]
	}
}

// published says whether the bus took it, and counts what it did not.
func (h *Hub) published(err error, dropped string) bool {
	if err != nil {
		h.metrics.dropped.WithLabelValues(dropped).Inc()
	}
	return err == nil
}
