// Package notify tells someone else, a push or mail back end, of the messages
// that a member has neither read nor a connection for: durable, in order, at
// least once. It speaks no HTTP, and knows no database and no bus.
//
// One process at a time follows all messages by the time at which they were
// sent, and looks at each twice:
//
//	sent --15 s--> soon: who is not connected and has not read is notified
//	     --75 s--> late: and those whose connection was dead at the first look
//
// A message is looked at when no commit can still come before it, which takes
// some seconds; in which many read it, and are left alone. A connection that
// broke without a word is noticed within 45 s, hence the second look. It leaves
// out who was notified at the first.
//
// The process holds a lease, which it prolongs with every write, and stops to
// send before it runs out. Who was notified is written after each few requests,
// the place once all of a batch were taken. So a process that is killed is
// followed, after the lease, by one that begins where it was: what was under way
// is sent once more, with the same id unless a newer message takes its place.
//
// What the back end refuses while it takes others is set aside and tried again;
// see refused. What it does not answer holds up everything.
package notify
