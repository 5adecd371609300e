// Dormouse for functions in Node.js 20 or newer: this file and dormouse_replica.mjs, no package, JSON over HTTP/1.1.
//
//   import { Node } from "./dormouse.mjs";
//   const node = new Node();                          // outside the handler: no I/O, no identity, may be snapshotted
//   export async function handler(event, context) {
//     const awake = await node.wake(context);         // one round trip; never throws, at worst the view is old
//     awake.counter("ads/shown").addOnce(context.awsRequestId, 1);
//     (await awake.sleep()).warnIfUnsaved();          // one round trip: push, declare sleep
//     return awake.counter("ads/shown").value;
//   }
//
// Settings are those of the Rust client: DORMOUSE_URL, _TOKEN, _CA, _NAMESPACE, _GROUP, _TAGS, _COLLECTIONS, _BUDGET_MS.
// A key that is not followed, or of which nothing was ever heard, reads as undefined. The rules are those of the Rust
// client too. Values of counters are numbers, exact up to 2^53.
//
// What these files do not do: other types than counter (without reset), set, register and flag; following and giving up
// while they run, members, `fetch`, `quiet`, `Write` and the other calls for back ends; overlapping invocations (one node
// serves one after the other); anything in the background.

import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { randomBytes } from "node:crypto";
import http from "node:http";
import https from "node:https";
import { basename, extname } from "node:path";
import { performance } from "node:perf_hooks";

import { AMOUNT_MAX, Replica, WriteError, keyOf, plain } from "./dormouse_replica.mjs";

export { WriteError };

const FIRST_ATTEMPT = 150, IDLE = 25_000; // ms for a kept connection to prove itself; relays close what is silent for 30 s
const CHUNK_LEAST = 16 << 10, CHUNK_MOST = 1 << 20, ANSWER_MAX = 64 << 20, VALUE_MAX = 256 << 10;
const STOP = ["unauthenticated", "permission_denied", "invalid_argument", "not_found", "failed_precondition"];

/** A setting breaks its rule. Nothing was contacted yet. */
export class ConfigError extends Error {}
/** The view is older than the program can accept. */
export class Stale extends Error {}
/** No relay answered in time, or the connection broke twice. */
export class NotReached extends Error {}
/** The relay said no; `word` is one of the contract's reasons. */
export class Refused extends Error {
  constructor(word, message) { super(`${word}: ${message}`); this.word = word; }
}

/** Fresh from the kernel: what this process has in memory may have been cloned. */
function random(bytes) {
  const drawn = Buffer.alloc(bytes);
  try {
    const kernel = openSync("/dev/urandom", "r");
    try { readSync(kernel, drawn, 0, bytes, null); } finally { closeSync(kernel); }
  } catch { randomBytes(bytes).copy(drawn); }
  return drawn.toString("base64");
}

const moment = () => [performance.now(), Date.now()];
/** What the faster of the two clocks says: either may stand still while a process is frozen. */
const since = (at) => Math.max(performance.now() - at[0], Date.now() - at[1]);

/**
 * A kept connection. After any error that is no answer there is one retry on a new one: whatever is sent may be sent
 * twice, and a connection that died during a freeze fails in any way, or just waits.
 */
class Line {
  constructor({ url, token, ca }) {
    const at = URL.canParse(url) ? new URL(url) : {};
    if (!["http:", "https:"].includes(at.protocol)) throw new ConfigError("DORMOUSE_URL: must be http://host:port");
    this.module = at.protocol === "https:" ? https : http;
    this.target = { host: at.hostname.replace(/^\[|]$/g, ""), port: at.port || undefined, method: "POST" };
    if (ca) this.target.ca = ca.includes("-----BEGIN") ? ca : readFileSync(ca);
    this.headers = { "content-type": "application/json", "connect-protocol-version": "1" };
    if (token) this.headers.authorization = `Bearer ${token}`;
    Object.assign(this, { agent: null, heard: [0, 0] });
  }

  close() {
    this.agent?.destroy();
    this.agent = null;
  }

  /** Transmits what build(afterTimeout) says, twice if need be, within the budget in ms. */
  async call(path, build, budget, proven = false) {
    const ends = performance.now() + budget;
    for (let second = false, late = false; ; second = true) {
      if (this.agent && since(this.heard) > IDLE) this.close();
      const kept = this.agent !== null && Object.keys(this.agent.freeSockets).length > 0;
      let left = ends - performance.now(), wait = 0, error;
      const given = second || (kept && proven) ? left : kept ? Math.min(left / 2, FIRST_ATTEMPT) : left / 2;
      try {
        const { status, said } = await this.post(path, build(late), given);
        this.heard = moment();
        if (status === 200) return said;
        ({ error, wait } = refusalOf(said));
        if (!wait) this.close();
      } catch (broken) {
        this.close();
        late = broken.message === TOO_LATE;
        error = new NotReached(`${broken.code ?? broken.name}: ${broken.message}`);
      }
      left = ends - performance.now();
      if (second || left <= wait) throw error;
      if (wait) await new Promise((done) => setTimeout(done, wait));
    }
  }

  post(path, message, given) {
    this.agent ??= new this.module.Agent({ keepAlive: true, maxSockets: 1 });
    const body = Buffer.from(JSON.stringify(message));
    const headers = { ...this.headers, "content-length": body.length, "connect-timeout-ms": String(Math.ceil(given)) };
    return new Promise((resolve, reject) => {
      const request = this.module.request({ ...this.target, agent: this.agent, path, headers }, (answer) => {
        const pieces = [];
        let length = 0;
        answer.on("data", (piece) => {
          pieces.push(piece);
          length += piece.length;
          if (length > ANSWER_MAX) request.destroy(new Error("the answer is larger than 64 MiB"));
        });
        answer.on("error", reject);
        answer.on("end", () => {
          try {
            resolve({ status: answer.statusCode, said: JSON.parse(Buffer.concat(pieces).toString()) });
          } catch (error) { reject(error); }
        });
      });
      const timer = setTimeout(() => request.destroy(new Error(TOO_LATE)), Math.max(given, 0));
      request.on("error", reject).on("close", () => clearTimeout(timer));
      request.end(body);
    });
  }
}

const TOO_LATE = "no answer in time";

/** The error that a body of Connect tells of, and the ms to wait; 0: at once, on a new connection; Infinity: for ever. */
function refusalOf({ code = "unknown", message = "", details = [] }) {
  const told = Object.fromEntries(details.map((it) => [it.type.split(".").pop(), it.debug ?? {}]));
  const fields = (told.BadRequest?.fieldViolations ?? []).map((it) => `${it.field}: ${it.description}`);
  const word = told.ErrorInfo?.reason, delay = parseFloat(told.RetryInfo?.retryDelay ?? "0") * 1000;
  const text = [message, fields.join("; ")].filter((it) => it).join(": ");
  if (STOP.includes(code) || (code === "resource_exhausted" && !delay)) {
    return { error: new Refused(word ?? code, text), wait: Infinity };
  }
  const error = word ? new Refused(word, text) : new NotReached(`${code}: ${text}`);
  const comesBack = ["resource_exhausted", "unavailable"].includes(code);
  return { error, wait: comesBack ? delay * (1 + Math.random() / 2) : 0 };
}

/** What the environment says; a ConfigError names the variable that breaks its rule. */
function settings(env) {
  const platform = env.AWS_LAMBDA_FUNCTION_NAME || env.K_SERVICE, url = env.DORMOUSE_URL;
  if (!url && platform) {
    throw new ConfigError("DORMOUSE_URL: required inside a function: no relay runs on this machine");
  }
  const list = (text) => (text ?? "").split(",").map((it) => it.trim()).filter((it) => it);
  const tags = { region: env.AWS_REGION, version: env.AWS_LAMBDA_FUNCTION_VERSION, memory: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE };
  for (const pair of list(env.DORMOUSE_TAGS)) {
    const [name, ...value] = pair.split("=");
    tags[name.trim()] = value.join("=").trim();
  }
  const follow = list(env.DORMOUSE_COLLECTIONS || "*");
  for (const it of follow) {
    if (it !== "*" && !/^[a-z0-9._-]{1,64}$/.test(it)) {
      throw new ConfigError(`DORMOUSE_COLLECTIONS: ${it} is neither * nor 1-64 of [a-z0-9._-]`);
    }
  }
  const program = basename(process.argv[1] ?? "", extname(process.argv[1] ?? ""));
  const group = env.DORMOUSE_GROUP || (platform || program || "unnamed").replace(/[^A-Za-z0-9._-]/g, "-").slice(0, 64);
  const budget = env.DORMOUSE_BUDGET_MS || "500";
  if (!/^\d+$/.test(budget) || Number(budget) < 1 || Number(budget) > 60_000) {
    throw new ConfigError("DORMOUSE_BUDGET_MS: must be 1 to 60000");
  }
  return { url: url || "http://127.0.0.1:7400", token: env.DORMOUSE_TOKEN, ca: env.DORMOUSE_CA, follow, group,
    namespace: env.DORMOUSE_NAMESPACE ?? "", budget: Number(budget),
    tags: Object.fromEntries(Object.entries(tags).filter(([, value]) => value)) };
}

/**
 * A function, hence a member: one per process, made outside the handler. What it pushes it keeps until it is told what
 * became of it; `reports` (newest 1,024) says which writes, or parts, did not end as the program was told.
 */
export class Node {
  constructor(env = process.env, changed = {}) {
    this.config = { ...settings(env), ...changed };
    this.line = new Line(this.config);
    this.replica = new Replica(this.config.follow);
    Object.assign(this, { bootId: null, beat: 0n, sendTags: true, chunk: CHUNK_MOST, lastAck: null });
    Object.assign(this, { complete: null, rowsLeft: null, failed: new NotReached("no answer yet") });
  }

  get reports() { return this.replica.reports; }

  /**
   * Begins an invocation: joins or renews, pushes what waits, pulls what was missed, within the budget and a fifth of what
   * is left. `left`: a Lambda context, or ms; 0 or less: unknown. Never throws.
   */
  async wake(left) {
    const awake = new Awake(this, left);
    try {
      await this.converse(awake.budget(), () => awake.next(), () => this.rowsLeft === null);
    } catch (error) { this.failed = error; } // whatever it is, the handler runs on what is known
    return awake;
  }

  /** Ends the membership and pushes what waits, for a process that is told of its end. */
  async leave(reason = "") {
    if (!this.bootId) return;
    // What fails here the lease says somewhat later.
    await this.converse(this.config.budget, () => ({ leaving: { reason } }), () => true).catch(() => {});
  }

  /** Calls until it is enough, an error, or the end of the budget; the latter is an error only at first. */
  async converse(budget, says, enough) {
    const ends = performance.now() + budget;
    for (let proven = false; !proven || (!enough() && performance.now() < ends); proven = true) {
      try {
        await this.sync(ends - performance.now(), says, proven);
      } catch (error) {
        if (!proven || !says().awake || !(error instanceof NotReached)) throw error;
        return; // what has arrived counts, and how much is missing is known
      }
    }
  }

  /** One round trip. */
  async sync(budget, says, proven) {
    this.bootId ??= random(16);
    const callId = random(8), pushId = random(8), askedAt = moment(), ends = performance.now() + budget;
    const { replica, config } = this, isAwake = Boolean(says().awake);
    const build = (late) => {
      if (late) this.chunk = CHUNK_LEAST;
      this.beat += 1n;
      replica.seal(pushId);
      const node = { bootId: this.bootId, group: config.group, ...replica.node };
      if (this.sendTags || !replica.node) node.tags = config.tags;
      const outgoing = replica.outgoing(isAwake ? this.chunk : CHUNK_LEAST);
      return { namespace: config.namespace, node, beat: String(this.beat), callId, ...says(), ...outgoing };
    };
    let answer;
    try {
      answer = await this.line.call("/dormouse.v1.Mailbox/Sync", build, budget, proven);
    } catch (error) {
      if (performance.now() >= ends) this.chunk = Math.max(this.chunk >> 1, CHUNK_LEAST);
      throw error;
    }
    const progress = replica.absorb(answer), { pushRefused, pullRefused, pushed, lease } = answer;
    this.sendTags = lease?.sendTags ?? false;
    if (pushed) this.lastAck = { revision: BigInt(pushed.revision ?? 0), durability: pushed.durability };
    this.failed = pullRefused ? new Refused(pullRefused.reason, pullRefused.message) : null;
    this.rowsLeft = progress && !progress.caughtUp ? progress.rowsLeft : null;
    if (progress?.caughtUp) this.complete = askedAt;
    if (progress && isAwake) this.chunk = Math.min(this.chunk * 2, CHUNK_MOST);
    if (replica.sealed && pushRefused) throw new Refused(pushRefused.reason, pushRefused.message);
    if (replica.sealed && !isAwake) throw new NotReached("the relay said nothing of the push");
  }
}

/** One invocation, from wake to sleep. Without sleep its writes go with the next wake. */
class Awake {
  constructor(node, left) {
    const ms = typeof left?.getRemainingTimeInMillis === "function" ? left.getRemainingTimeInMillis() : left;
    Object.assign(this, { node, wrote: false, ends: ms > 0 ? performance.now() + ms : null });
  }

  left() { return this.ends === null ? null : Math.max(0, this.ends - performance.now()); }
  next() { return { awake: { remainingMs: Math.floor(this.left() ?? 0) } }; }
  budget() { return Math.min(this.node.config.budget, (this.left() ?? Infinity) / 5); }
  counter(path) { return new Counter(this, path, "counter"); }
  set(path) { return new ElementSet(this, path, "set"); }
  register(path) { return new Register(this, path, "register"); }
  flag(path) { return new Flag(this, path, "flag"); }

  /** How much the view can be trusted: current, catching_up, stale or never; ageMs: since it was last complete. */
  freshness() {
    const { complete, failed, rowsLeft } = this.node, ageMs = complete && since(complete);
    if (!failed && rowsLeft !== null) return { state: "catching_up", ageMs, rowsLeft, reason: null };
    const state = complete === null ? "never" : failed ? "stale" : "current";
    return { state, ageMs, rowsLeft: 0, reason: failed };
  }

  /** For code that would rather fail than act on a view older than so many ms. */
  require(maxAgeMs) {
    const { ageMs, reason } = this.freshness();
    if (ageMs === null || ageMs > maxAgeMs) throw new Stale(`the view is ${ageMs} ms old: ${reason}`);
  }

  /** Messages to this node that nobody has taken yet, in order; each once. */
  takeInbox() { return this.node.replica.inbox.splice(0); }

  /** Ends the invocation: pushes what was written and declares sleep, in one round trip as a rule. Never throws. */
  async sleep() {
    const { node } = this, { replica } = node, told = replica.told;
    const idle = () => !replica.outbox.size && !replica.sealed;
    let reason = new NotReached("the budget is used up");
    await node.converse(this.budget(), () => ({ asleep: {} }), idle).catch((broken) => { reason = broken; });
    if (!idle()) {
      const waits = [...replica.outbox.values(), ...(replica.sealed?.said.values() ?? [])];
      return new Slept("unsaved", { deltas: waits.reduce((sum, ops) => sum + ops.size, 0), reason });
    }
    const refused = replica.told - told;
    if (refused) return new Slept("unsaved", { deltas: refused, reason: new Refused("REFUSED", "see node.reports") });
    return this.wrote ? new Slept("saved", node.lastAck ?? { revision: replica.head }) : new Slept("nothing", {});
  }
}

/** How an invocation's writes ended: saved, nothing, or unsaved: kept, and lost if the process is killed. */
class Slept {
  constructor(state, facts) { Object.assign(this, { state, deltas: 0, reason: null, ...facts }); }

  warnIfUnsaved() {
    if (this.state === "unsaved") console.error(`dormouse: ${this.deltas} writes are not saved: ${this.reason?.message}`);
  }
}

const bytes = (text) => (typeof text === "string" && text.isWellFormed() ? Buffer.byteLength(text) : Infinity);

/** A key of one type: collection/key. Reads see own writes at once. */
class Handle {
  constructor(awake, path, kind) {
    const [, collection, name] = /^([a-z0-9._-]{1,64})\/([^\x00-\x1f\x7f-\x9f]+)$/.exec(path) ?? [];
    if (!name || bytes(name) > 512) {
      throw new WriteError(`${path}: a path is collection/key: 1-64 of [a-z0-9._-], 1-512 bytes without controls`);
    }
    Object.assign(this, { awake, replica: awake.node.replica, key: keyOf(kind, collection, name) });
  }

  say(sub, op) {
    this.replica.say(this.key, sub, op);
    this.awake.wrote = true;
  }

  switch(sub, on) { this.say(sub, { on, context: on ? undefined : this.replica.seenAtCall(this.key, sub) }); }
}

/** Additions add up. */
class Counter extends Handle {
  get value() {
    const value = this.replica.counter(this.key);
    return value === undefined ? undefined : Number(value);
  }

  /** Known to have reached it; may overshoot by what others have not pushed yet. */
  reached(atLeast) { return (this.value ?? -Infinity) >= atLeast; }

  /** Adds n, which may be negative; at most 2^48. */
  add(n) {
    if (amount(n)) this.say("", { amount: amount(n), once: new Map() });
  }

  /** Adds n once per id (1-64 bytes), whoever repeats it, also another process; ids are remembered for an hour. */
  addOnce(id, n) {
    if (!(bytes(id) >= 1 && bytes(id) <= 64)) throw new WriteError("an id has 1-64 bytes");
    const push = this.replica.sealed, said = push && !push.isVoid && push.said.get(this.key)?.get("");
    if (!said?.once.has(id)) this.say("", { amount: 0n, once: new Map([[id, amount(n)]]) });
  }
}

function amount(n) {
  const whole = Number.isSafeInteger(n) || typeof n === "bigint" ? BigInt(n) : null;
  if (whole === null || whole > AMOUNT_MAX || whole < -AMOUNT_MAX) {
    throw new WriteError(`an amount is a whole number of at most 2^48, this one is ${n}`);
  }
  return whole;
}

/** Texts of at most 1 KiB; an add wins over a remove that had not seen it. */
class ElementSet extends Handle {
  contains(element) { return this.replica.holds(this.key, element); }
  elements() { return this.replica.elements(this.key); }
  add(element) { this.change(element, true); }
  remove(element) { this.change(element, false); }

  change(element, on) {
    if (bytes(element) > 1024) throw new WriteError("an element is a text of at most 1 KiB");
    this.switch(element, on);
  }
}

/** The last write; one that saw the winner wins whatever the clocks. */
class Register extends Handle {
  get() { return plain(this.replica.register(this.key)); }
  delete() { this.put(null); }

  set(value) {
    const text = JSON.stringify(value);
    if (text === undefined) throw new WriteError("the value is not JSON");
    if (bytes(text) > VALUE_MAX) throw new WriteError(`a value is at most ${VALUE_MAX} bytes, this one has ${bytes(text)}`);
    this.put({ text });
  }

  put(value) { this.say("", { value, stampMs: Date.now(), context: this.replica.seenAtCall(this.key, "") }); }
}

/** On wins over an off that had not seen it. */
class Flag extends Handle {
  isOn() { return this.replica.holds(this.key, ""); }
  on() { this.switch("", true); }
  off() { this.switch("", false); }
}
