// Package engineio is the server's side of Engine.IO, protocol version 4: sessions
// that carry messages both ways over HTTP long-polling, over WebSocket, or over
// the one and then the other. It is for whatever speaks a protocol of its own on
// top, as Socket.IO does, and knows nothing of that, of who its clients are, and of
// metrics. Sections are those of the protocol's specification
// (https://github.com/socketio/engine.io-protocol).
//
// What it stands on (wsconn) makes silent WebSockets cheap; a session adds some
// hundred bytes, and neither a goroutine nor a timer of its own. A session that
// polls costs what net/http needs for the request that waits.
//
// A session's states:
//
//	GET, no sid                                     WebSocket, no sid
//	     |                                                 |
//	  polling --WebSocket with sid, "2probe"--> probing    |
//	     |  ^                                    |  |      |
//	     |  +-- UpgradeTimeout, broken, not "5" -+  |"5"   |
//	     |                                          v      v
//	     |                                         WebSocket
//	     |                                             |
//	     +--Close--> closing --told, CloseTimeout--+   |
//	     |                                         v   v
//	     +--"1", a broken rule or poll, Abort--> ended (Closed)
//
// While it is probing, packets go out with polls as before; only that a poll for
// which there are none is soon answered with "6", as the client waits for its end
// before it says "5". What waits then goes to the WebSocket, before everything else.
// "5" waits for the POST that it may meet. In closing, too, an upgrade may come to its
// end.
//
// The lock of a session (mu) orders all that. It is never held while the handler
// is called: another one (deliver) is, for which the call of Closed waits.
package engineio
