// Package relay lets any process serve any Engine.IO session. A session lives in
// one process, its owner, while its requests, and its upgrade to WebSocket, come
// to whichever process the load balancer finds. So a session's id seals its
// owner's address, and whoever is asked for a session that it doesn't hold
// forwards the request straight to the owner's internal port. It knows nothing of
// what sessions say, and nothing of who owns one beyond what the id says.
//
// A request for a session that is not held here:
//
//	id not sealed by us, or naming us, or forwarded already --> session unknown
//	          |
//	    dial the owner --nobody there--> session unknown
//	          |
//	    its answer --none in time, or cut off--> the client's connection ends
//	          |
//	     +----+-----------+
//	     |                |
//	  response   101: a forwarded socket, bytes both ways until one side ends
//
// "Session unknown" is Engine.IO's code 1, after which a client begins anew. An
// address may by now be another process's, which answers the same: it is named
// itself. So no request is forwarded twice.
//
// Most sockets of clients with default options are forwarded for life: they
// upgrade the session that their first poll began, which is somebody else's with
// (P-1)/P of P processes. Most of them are silent, so a silent one costs no
// goroutine and no buffer: a poller watches both of its connections.
package relay
