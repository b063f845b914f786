// The peer of the messaging benchmark: the same job as `marketplane messaging`
// for what is measured, written the way the documentation of socket.io,
// jsonwebtoken and pg recommends, with every setting that it documents as faster
// or smaller and that Node.js 20 can have.
//
// Settings, and where each comes from:
// - bufferutil and utf-8-validate, the native add-ons of ws, are installed
//   (socket.io/docs/v4/performance-tuning, "Install ws native add-ons"). Their
//   prebuilt binaries are used.
// - eiows in place of ws (same page) is not: its current release refuses Node.js
//   20, and µWebSockets.js is not on npm.
// - A custom parser (same page) pays for binary data only; these are texts.
// - rawSocket.request = null (socket.io/docs/v4/memory-usage) discards the first
//   HTTP request of each session.
// - perMessageDeflate stays off, which is the default since version 3
//   (socket.io/docs/v4/server-options).
// - transports: websocket only, as all clients of the benchmark use it; serveClient
//   off, since there are no pages to serve (socket.io/docs/v4/server-options).
// - Named queries are prepared once for a connection
//   (node-postgres.com/features/queries, "Prepared statements").
// - The pool has POOL connections (node-postgres.com/apis/pool): many commits at
//   a time let PostgreSQL flush them together. The benchmark sets it to 20
//   (--peer-pool).
// - The verification key is a KeyObject, which jsonwebtoken takes and which saves
//   reading PEM for each token (github.com/auth0/node-jsonwebtoken, jwt.verify).
// - With REDIS_URL, several of these processes form one server by the Redis adapter
//   (socket.io/docs/v4/redis-adapter).
// - connectionStateRecovery (socket.io/docs/v4/connection-state-recovery) is on
//   with RECOVERY only, where resuming is measured: it keeps every packet.
import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import jwt from "jsonwebtoken";
import pg from "pg";
import { createClient } from "redis";
import { Server } from "socket.io";

const { DATABASE_URL, HOST, ISSUER, JWKS_FILE, POOL, PORT, RECOVERY, REDIS_URL } = process.env;

const keys = new Map(
  JSON.parse(readFileSync(JWKS_FILE, "utf8")).keys.map((jwk) => [jwk.kid, createPublicKey({ key: jwk, format: "jwk" })]),
);

const pool = new pg.Pool({ connectionString: DATABASE_URL, max: Number(POOL) });

const httpServer = createServer();
const io = new Server(httpServer, {
  transports: ["websocket"],
  serveClient: false,
  ...(RECOVERY && { connectionStateRecovery: { maxDisconnectionDuration: 2 * 60 * 1000, skipMiddlewares: false } }),
});

io.engine.on("connection", (rawSocket) => {
  rawSocket.request = null;
});

if (REDIS_URL) {
  const publisher = createClient({ url: REDIS_URL });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}

io.use((socket, next) => {
  const key = (header, done) => done(null, keys.get(header.kid));
  jwt.verify(socket.handshake.auth.token, key, { algorithms: ["ES256"], issuer: ISSUER, audience: ISSUER }, (error, claims) => {
    if (error) {
      next(error);
      return;
    }
    socket.data.user = claims.sub;
    next();
  });
});

io.use(async (socket, next) => {
  try {
    const { rows } = await pool.query({
      name: "conversations",
      text: "SELECT conversation_id FROM members WHERE user_id = $1",
      values: [socket.data.user],
    });
    socket.join(rows.map((row) => row.conversation_id));
    next();
  } catch (error) {
    next(error);
  }
});

io.on("connection", (socket) => {
  socket.on("send", async ({ conversation_id, client_id, body }, ack) => {
    if (!socket.rooms.has(conversation_id)) {
      ack({ ok: false, error: "conversation_not_found" });
      return;
    }
    try {
      const { rows } = await pool.query({
        name: "send",
        text: "INSERT INTO messages (conversation_id, sender_id, client_id, body) VALUES ($1, $2, $3, $4) RETURNING id, sent_at",
        values: [conversation_id, socket.data.user, client_id, body],
      });
      const { id, sent_at } = rows[0];
      ack({ ok: true, id });
      io.to(conversation_id).emit("message", { conversation_id, id, client_id, from: socket.data.user, body, sent_at });
    } catch (error) {
      ack({ ok: false, error: error.message });
    }
  });

  socket.on("typing", ({ conversation_id }) => {
    if (socket.rooms.has(conversation_id)) {
      socket.to(conversation_id).emit("typing", { conversation_id, from: socket.data.user });
    }
  });
});

// The most that the kernel allows: Node.js asks for 511 by itself, and thousands
// connect at once here.
httpServer.listen({ port: Number(PORT), host: HOST, backlog: 4096 }, () => console.log("ready"));

process.on("SIGTERM", () => process.exit(0));
