// Package hub holds this process's live connections, and brings every user's
// stream to them: in order, each item once, whichever process wrote it. It
// knows no wire (a connection is a Wire to it) and keeps nothing durable.
//
// The truth is the store. The bus carries what is new, and may lose it:
//
//	commit (any process) --Announce--> bus --dispatch--> user --> links
//	                                           |  gap: wait a little for the
//	                                           |  missing item, then read it
//	                                           v  from the store (fill)
//	heads, compared with the store from time to time, find what was lost last
//	heads that could not be published (missed) are, once the bus is back
//
// A link is in one of these states:
//
//	pending --Attach--> replaying --caught up--> live
//	   |                    |                     |
//	   +--------------------+---------------------+--Leave--> gone
//
// A replaying link reads the store by itself, at the pace at which its client
// takes it. It turns live under the user's lock, at the moment in which it has
// everything that the live links of that user have; so nothing is missing or
// doubled between replay and live delivery. Of live links, draining ones have
// been told to move.
package hub
