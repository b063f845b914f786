// A chat on the command line with the stock Socket.IO client:
//
//	npm ci
//	node chat.js http://127.0.0.1:8080 ann@example.com 'a long enough password'
//
// Each line that you type goes to your newest conversation, and what arrives there is
// printed. It ends with its input.
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { io } from "socket.io-client";

const [url, email, password] = process.argv.slice(2);

// HTTP: logging in, and what was missed for too long.
const request = async (path, { token, body } = {}) => {
  const headers = { ...(token && { Authorization: `Bearer ${token}` }), ...(body && { "Content-Type": "application/json" }) };
  const response = await fetch(new URL(path, url), { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${path}: ${answer.code}: ${answer.detail}`);
  return answer;
};

let tokens, expires;
const take = (answer) => {
  tokens = answer;
  expires = Date.now() + 1000 * answer.expires_in;
};
const accessToken = async () => {
  if (Date.now() > expires - 30_000) take(await request("/v1/auth/refresh", { body: { refresh_token: tokens.refresh_token } }));
  return tokens.access_token;
};

// A conversation's messages count from 1 without a gap, so each is printed once and in
// order, whichever way it came.
const early = new Map();
let seen;
const arrived = (message) => {
  if (message.conversation_id !== conversation.id || message.seq <= seen) return;
  early.set(message.seq, message);
  for (let next; (next = early.get(seen + 1)); early.delete(seen)) {
    seen = next.seq;
    const from = next.system ? "system" : next.from === tokens.user_id ? "you" : "they";
    console.log(`${from}: ${next.body.text ?? JSON.stringify(next.body)}`);
  }
};
const catchUp = async () => {
  for (let more = true; more; ) {
    const page = await request(`/v1/conversations/${conversation.id}/messages?limit=100&after=${seen}`, { token: await accessToken() });
    page.items.reverse().forEach(arrived);
    more = page.next_after !== undefined;
  }
};

take(await request("/v1/auth/login", { body: { email, password } }));
const {
  items: [conversation],
} = await request("/v1/conversations?limit=1", { token: tokens.access_token });
if (!conversation) throw new Error("You have no conversation yet: an offer begins one.");
seen = conversation.last_seq;

const socket = io(url, {
  // Asked for at each connection: the token may have expired since the last one. When
  // there is none, nothing is said: the server hangs up, and the client comes back.
  auth: (answer) => accessToken().then((token) => answer({ token }), (error) => console.error(error.message)),
  // What has no answer after 10 s, or since the connection broke, is sent again. The
  // client_id keeps it from being written twice.
  ackTimeout: 10_000,
  retries: 20,
});
socket.on("connect", () => {
  console.log(socket.recovered ? "connected again" : "connected");
  // The first time, and when it was away for too long.
  if (!socket.recovered) catchUp().catch((error) => console.error(error.message));
});
socket.on("connect_error", (error) => {
  if (socket.active) return; // it comes back by itself
  console.error(`refused: ${error.data?.code ?? error.message}`);
  process.exit(1);
});
socket.on("disconnect", (reason) => {
  if (reason === "io server disconnect") {
    console.error("the session has ended: log in again");
    process.exit(1);
  }
});
// The second argument is the recovery's, and nothing to handlers.
socket.on("message", (message, _offset) => arrived(message));
socket.on("system_message", (message, _offset) => arrived(message));

const send = async (text) => {
  const message = { conversation_id: conversation.id, client_id: randomUUID(), body: { text } };
  for (;;) {
    const answer = await socket.emitWithAck("send", message);
    if (answer.ok) return;
    if (!answer.error.temporary) throw new Error(`${answer.error.code}: ${answer.error.message}`);
    await sleep(answer.error.retry_ms ?? 1000);
  }
};
for await (const line of createInterface({ input: process.stdin })) {
  await send(line).catch((error) => console.error(`not sent: ${error.message}`));
}
socket.disconnect();
