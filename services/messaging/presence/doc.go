// Package presence tells users which of those whom they talk to are there. It
// is ephemeral: nothing is kept in the database or on the bus, what is lost is
// corrected or asked for anew, and under pressure fewer changes are told. It
// knows no wire.
//
// Every process knows the users who announced themselves on its own
// connections (their places), and what their audience was told last. Between
// processes go notes:
//
//	told    a status that an audience was just told
//	lowers  a status that will be told soon: does anybody hold a greater one?
//	holds   the answer: this process does
//	comes   a user came, of whom this process does not know what was told
//	known   the answer: what was
//	asks    someone came: who of their audience is there?
//
// A user's status is the greatest of all places, online > away > offline.
// Nobody can know better than online, so that is told soon. Anything less
// waits: a second, and the grace before offline. A client that reconnects
// within the grace, here or elsewhere, makes no noise.
//
//	place announces or leaves
//	   |  online                     less
//	   v                              |  note "lowers", hold
//	 due <----------------------------+
//	   |  due, and not told lately    ^  a note says that another process
//	   v                              |  holds as much or more: not due
//	 told: signal to the audience, note "told"
//
// A process that is killed tells nothing: what clients know of others ages, and
// they announce themselves again to hear anew.
package presence
