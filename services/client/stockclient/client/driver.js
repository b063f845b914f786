// Drives stock Socket.IO clients for a Go test: a command is a line of JSON on
// stdin, and what happens to the clients is a line each on stdout. Binary data is
// {"$binary": base64} in both.
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const clients = new Map();

const encode = (v) => {
  if (Buffer.isBuffer(v) || v instanceof ArrayBuffer) return { $binary: Buffer.from(v).toString("base64") };
  if (Array.isArray(v)) return v.map(encode);
  if (v && typeof v === "object") return Object.fromEntries(Object.entries(v).map(([k, w]) => [k, encode(w)]));
  return v;
};

const decode = (v) => {
  if (Array.isArray(v)) return v.map(decode);
  if (v && typeof v === "object") {
    if (typeof v.$binary === "string") return Buffer.from(v.$binary, "base64");
    return Object.fromEntries(Object.entries(v).map(([k, w]) => [k, decode(w)]));
  }
  return v;
};

const tell = (client, what, more) => process.stdout.write(JSON.stringify({ client, what, ...more }) + "\n");

const watch = (name, socket) => {
  const transport = () => socket.io.engine?.transport.name;
  const watchEngine = () => socket.io.engine.on("upgrade", (t) => tell(name, "upgrade", { transport: t.name }));
  if (socket.io.engine) watchEngine();
  socket.io.on("open", watchEngine);
  socket.on("connect", () => tell(name, "connect", { id: socket.id, recovered: Boolean(socket.recovered), transport: transport() }));
  socket.on("disconnect", (reason) => tell(name, "disconnect", { reason }));
  socket.on("connect_error", (error) => tell(name, "connect_error", { message: error.message, data: error.data }));
  socket.onAny((event, ...args) => {
    const acknowledge = typeof args.at(-1) === "function" ? args.pop() : undefined;
    tell(name, "event", { event, args: encode(args), transport: transport() });
    if (event !== "mute") acknowledge?.(...args);
  });
};

const commands = {
  connect: ({ client, url, options }) => {
    const socket = io(url, { reconnectionDelay: 20, reconnectionDelayMax: 100, ...options });
    clients.set(client, socket);
    watch(client, socket);
  },
  emit: ({ client, event, args, timeout }) => clients.get(client).timeout(timeout ?? 20_000).emit(event, ...decode(args ?? []),
    (error, ...values) => tell(client, "ack", { event, error: error?.message, args: encode(values) })),
  send: ({ client, event, args }) => clients.get(client).emit(event, ...decode(args ?? [])),
  auth: ({ client, auth }) => (clients.get(client).auth = auth),
  // From now on it tells of each attempt to reconnect.
  attempts: ({ client }) => clients.get(client).io.on("reconnect_attempt", () => tell(client, "attempt")),
  open: ({ client }) => clients.get(client).connect(),
  disconnect: ({ client }) => clients.get(client).disconnect(),
  // The network goes away, for a while if one is given (in ms): nobody says goodbye.
  cut: ({ client, for: ms }) => {
    const { io: manager } = clients.get(client);
    if (ms) {
      const delay = manager.reconnectionDelay();
      manager.backoff.setMin(ms);
      manager.once("open", () => manager.backoff.setMin(delay));
    }
    const { transport } = manager.engine;
    transport.ws ? transport.ws.terminate() : manager.engine.close();
  },
  // What no Socket.IO client sends.
  raw: ({ client, text }) => clients.get(client).io.engine.write(text),
  // The process is stuck, and answers nothing.
  block: ({ ms }) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { command, ...parameters } = JSON.parse(line);
    commands[command](parameters);
  })
  .on("close", () => process.exit(0));
