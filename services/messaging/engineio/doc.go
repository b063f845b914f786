// Package engineio is the server's side of Engine.IO, protocol version 4: sessions
// that carry messages both ways over HTTP long-polling, over WebSocket, or over
// the one and then the other. It is for whatever speaks a protocol of its own on
// top, as Socket.IO does, and knows nothing of that, of who its clients are, and of
// metrics. Sections are those of the protocol's specification
// (https://github.com/socketio/engine.io-protocol).
package engineio
