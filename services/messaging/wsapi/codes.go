package wsapi

// Close codes. Their class says what a client does: 4000 to 4099 stay away,
// 4100 to 4199 come back with back-off, 4200 to 4299 resume now. A client that
// doesn't know a code keeps to its class.
const (
	// CodeMalformed closes on frames that are not text, not UTF-8 or not JSON
	// objects.
	CodeMalformed = 4000
	// CodeSessionEnded closes when the session is over: log in again.
	CodeSessionEnded = 4001
	// CodeTooLarge closes on a frame above hello's max_payload.
	CodeTooLarge = 4002
	// CodeSlowConsumer closes when the client does not read what waits for it.
	CodeSlowConsumer = 4101
	// CodeAuthTimeout closes when no auth succeeded in time.
	CodeAuthTimeout = 4102
	// CodePingTimeout closes when the client does not answer pings.
	CodePingTimeout = 4103
	// CodeResume closes when the client is to go on elsewhere.
	CodeResume = 4200
)
