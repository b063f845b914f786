package handshake

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// rewound is a TCP connection of which was read already.
type rewound struct {
	*net.TCPConn
	early []byte
}

// Read implements net.Conn.
func (r *rewound) Read(p []byte) (int, error) {
	if len(r.early) == 0 {
		return r.TCPConn.Read(p) //nolint:wrapcheck // it is the connection's
	}
	n := copy(p, r.early)
	r.early = r.early[n:]
	return n, nil
}

// WriteTo implements io.WriterTo.
func (r *rewound) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{r}) //nolint:wrapcheck // it is the connection's, or the writer's
}

// SyscallConn implements syscall.Conn. It fails until all that was read is read
// again; a server's buffer takes it at once.
func (r *rewound) SyscallConn() (syscall.RawConn, error) {
	if len(r.early) > 0 {
		return nil, errors.New("what was read of the connection waits to be read again")
	}
	return r.TCPConn.SyscallConn() //nolint:wrapcheck // it is the connection's
}
