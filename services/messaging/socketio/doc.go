// Package socketio is the server's side of Socket.IO, protocol version 5, on the
// Engine.IO sessions of package engineio: namespaces, events with acknowledgements
// and binary data both ways, rooms, and hooks for connection state recovery. It is
// for any program whose clients are those of Socket.IO, and knows nothing of what
// they say, of who they are, and of metrics; what it keeps of a client ends with
// the connection. Sections are those of the protocol's specification
// (https://github.com/socketio/socket.io-protocol).
//
// A socket is a client in a namespace. Its states:
//
//	        CONNECT
//	           |
//	       connecting --refused: CONNECT_ERROR, or the connection ends--> gone
//	           |
//	let in: CONNECT with the sid
//	           |
//	       greeting    OnConnect runs; what the client sends waits
//	           |
//	       connected --the client's DISCONNECT, or the connection ends--> gone
//	           |
//	 Disconnect: DISCONNECT
//	           |
//	         left      what the client sent before it knew is ignored
//	           |
//	       the client's next CONNECT, or the connection ends --> gone
//
// From greeting it may go where it may go from connected. OnDisconnect is then
// called when OnConnect has returned. A connection none of whose sockets is
// connecting, greeting or connected is closed after Options.ConnectTimeout.
//
// Without middleware and a Recover hook, connecting takes no time, and OnConnect
// runs where the CONNECT was read. Otherwise both run on a goroutine of their own,
// and the first packet that comes while OnConnect runs is kept for it; nothing more
// is read until it has been handled. So nothing of a socket's is ever handled beside
// something else of it, but acknowledgements, and nothing is queued. A socket may be
// disconnected at any time; OnDisconnect waits for what is at work.
//
// What breaks the rules closes the connection: a packet that cannot be decoded, that
// is the server's to send, that comes before CONNECT was answered, a second CONNECT,
// text between a packet and its attachments, and attachments without a packet.
package socketio
