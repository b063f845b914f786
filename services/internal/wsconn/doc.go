// Package wsconn holds very many WebSockets, most of which are silent, on the
// server's side. The protocol (RFC 6455) is coder/websocket's: its handshake,
// its frames, its closing handshake. What stands here is when and on what it
// runs. The package knows no protocol above, no authentication and no metrics.
//
// What a connection costs is the point, so that:
//
//   - A silent connection has no goroutine, and no buffer. A poller watches all of
//     them (on Linux; elsewhere each has a goroutine that waits).
//   - Who has something to say is served by a reused worker, one at a time for each
//     connection, so its messages are handled in order. There are as many workers
//     as are needed: a peer that sends half a message holds its own worker alone,
//     and not for longer than Options.MessageTimeout.
//   - Writing never blocks and needs no goroutine. Messages wait in the
//     connection's buffer; a flusher frames them, and gives them to the kernel
//     with one system call. Everything that came meanwhile goes out with the
//     next. Only what the kernel does not take gets a goroutine, for as long as
//     that takes. The answer to the handshake goes out with the first messages.
//
// coder/websocket has a [socket] under it that makes this so: its Write takes
// everything into memory, and its Read says [errSilent] instead of waiting where a
// message would begin. The library stays as it was then, and is asked again later.
//
// A connection's states:
//
//	open --Close, or a violation--> closing --the peer's close frame--> gone
//	  |                                |
//	  +--- the peer's close frame,     +--- CloseTimeout, broken, Abort --> gone
//	       broken, Abort --> gone
//
// While it is closing, what the peer sends is read and dropped: to close with
// unread input would reset the connection, and the peer might never see why.
package wsconn
