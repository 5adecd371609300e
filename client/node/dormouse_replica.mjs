// What a node holds between two round trips: rows, its own writes, and how far it has come. Pure: no I/O, no clock, no
// randomness. The rules are those of the Rust client (client/src/replica), for counters, sets, registers and flags.
//
// A row is shown as it was last received, with every own write on top that it may not contain yet: what waits, and the one
// sealed push unless the row's context shows that it was read after the push was bound. One push is under way at a time;
// its number, id and deltas never change. Nothing is dropped without a report. Revisions and amounts are BigInt: a
// revision does not fit into a number.

const OUTBOX = 4 << 20, PUSH_ROWS = 1_024, PUSH_BYTES = 1_000_000, ONCE_MAX = 1_000, NEWEST = 1_024;
export const AMOUNT_MAX = 1n << 48n;
const OPEN = "open"; // a context that is taken when the push is sealed: an own delta of that row is under way
const LATER = new Set(["BUSY", "STARTING", "BEHIND", "LOG_UNREACHABLE", "STORE_FULL"]);

/** A write was not taken; nothing has changed. Never because of the network. */
export class WriteError extends Error {}

const revision = (message, name) => BigInt(message?.[name] ?? 0);
const max = (a, b) => (a > b ? a : b);
const size = (value) => Buffer.byteLength(JSON.stringify(value));
/** Names one key of one type. Neither a kind nor a collection has a blank or a slash in it. */
export const keyOf = (kind, collection, name) => `${kind} ${collection}/${name}`;
const kindOf = (key) => key.slice(0, key.indexOf(" "));
const collectionOf = (key) => key.slice(key.indexOf(" ") + 1, key.indexOf("/"));
const nameOf = (key) => key.slice(key.indexOf("/") + 1);
const inner = (map, key) => map.get(key) ?? map.set(key, new Map()).get(key);

/** rows: key -> element -> { asOf, pull, state }; outbox, sealed.said: key -> element -> what was said; no set: element "". */
export class Replica {
  constructor(follow) {
    Object.assign(this, { follow, all: follow.includes("*"), node: null });
    Object.assign(this, { rows: new Map(), pulls: new Map(), restarted: new Set(), dead: new Map() });
    Object.assign(this, { barriers: new Map(), barrierOfAll: 0n, outbox: new Map(), bytes: 0, sealed: null, pushNo: 0n });
    Object.assign(this, { token: "", head: 0n, acked: [], heldSince: 0n, askedWithAcked: false });
    Object.assign(this, { reports: [], told: 0, inbox: [], delivered: 0n, ids: new Set() });
  }

  covers(collection) { return this.all || this.follow.includes(collection); }
  barrier(collection) {
    return this.covers(collection) ? max(this.barriers.get(collection) ?? 0n, this.barrierOfAll) : 0n;
  }
  row(key, sub) { return this.rows.get(key)?.get(sub); }

  /** The revision at which a row is seen; null: not followed, whatever is there counts. */
  context(key, sub) {
    if (!this.covers(collectionOf(key))) return null;
    return max(this.row(key, sub)?.asOf ?? 0n, this.barrier(collectionOf(key)));
  }

  /** What the sealed push says of a row that may lack it. */
  underWay(key, sub) {
    const push = this.sealed;
    if (!push || push.isVoid) return undefined;
    const seen = this.context(key, sub);
    return push.bound === null || seen === null || seen < push.bound ? push.said.get(key)?.get(sub) : undefined;
  }

  /** Own words on a row, newest first. */
  own(key, sub) {
    if (!this.covers(collectionOf(key))) return [];
    return [this.outbox.get(key)?.get(sub), this.underWay(key, sub)].filter((it) => it);
  }

  /** A row with own words on it; undefined: nothing is known. */
  read(key, sub, nothing, of) {
    const row = this.row(key, sub), own = this.own(key, sub);
    if (!row && !own.length && !this.barrier(collectionOf(key))) return undefined;
    return of(row ? row.state : nothing, own);
  }

  counter(key) {
    const said = (op) => [...op.once.values()].reduce((sum, amount) => sum + amount, op.amount);
    return this.read(key, "", 0n, (held, own) => own.reduce((sum, op) => sum + said(op), held));
  }

  holds(key, sub) { return this.read(key, sub, false, (held, own) => (own.length ? own[0].on : held)); }
  register(key) { return this.read(key, "", null, (held, own) => (own.length ? own[0].value : held)); }

  elements(key) {
    const names = new Set([this.outbox, this.sealed?.said, this.rows].flatMap((it) => [...(it?.get(key)?.keys() ?? [])]));
    const found = [...names].filter((name) => this.holds(key, name));
    found.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    return found.length || this.barrier(collectionOf(key)) || this.rows.has(key) ? found : undefined;
  }

  // Writes.
  seenAtCall(key, sub) { return this.sealed?.said.get(key)?.has(sub) ? OPEN : this.context(key, sub); }

  say(key, sub, op) {
    const before = this.outbox.get(key)?.get(sub);
    let grown = (this.outbox.has(key) ? 0 : nameCost(key)) + cost(key, sub, op);
    if (before) grown -= cost(key, sub, kindOf(key) === "counter" ? { ...op, once: new Map() } : before);
    const waiting = this.bytes + (this.sealed?.bytes ?? 0);
    if (grown > 0 && waiting + grown > OUTBOX) {
      throw new WriteError(`the outbox is full: ${waiting} bytes wait, this needs ${grown} more, the limit is ${OUTBOX}`);
    }
    merge(this.outbox, key, sub, op);
    this.bytes += grown;
  }

  /** Puts in front what was said before all of what waits. */
  putBack(earlier) {
    for (const [key, ops] of this.outbox) for (const [sub, op] of ops) merge(earlier, key, sub, op);
    Object.assign(this, { outbox: earlier, bytes: bytesOf(earlier) });
  }

  /** Seals what waits, the oldest first, as far as it fits into one push. Never before the process may be cloned. */
  seal(pushId) {
    if (this.sealed) return;
    const said = new Map(), rest = new Map();
    let rows = PUSH_ROWS, room = PUSH_BYTES;
    for (const [key, ops] of this.outbox) for (const [sub, op] of ops) {
      let [part, later] = split(key, op);
      const price = cost(key, sub, part) + (said.has(key) ? 0 : nameCost(key));
      if (rows && price <= room) {
        [rows, room] = [rows - 1, room - price];
        if (part.context === OPEN) part.context = this.context(key, sub);
        if (part.amount !== 0n || part.once.size) inner(said, key).set(sub, part);
      } else later = op;
      if (later) inner(rest, key).set(sub, later);
    }
    Object.assign(this, { outbox: rest, bytes: bytesOf(rest) });
    if (!said.size) return;
    this.pushNo += 1n;
    const deltas = [...said].map(([key, ops]) => delta(key, ops));
    this.sealed = { no: this.pushNo, id: pushId, said, deltas, bytes: bytesOf(said), sent: 0, bound: null, isVoid: false };
  }

  /** Push, pull and head of one transmission; to be called for each, retries too. */
  outgoing(maxBytes) {
    this.askedWithAcked = this.acked.length > 0;
    const pull = { token: this.token, collections: this.follow, acked: this.acked.map(String), maxBytes,
      heldSince: String(this.token ? 0n : this.heldSince) };
    const request = { pull, head: String(this.head) }, push = this.sealed;
    if (!push) return request;
    push.sent += 1;
    const { no, id, deltas, sent } = push;
    return { ...request, push: { pushNo: String(no), pushId: id, deltas, retried: sent > 1 } };
  }

  // Answers.
  /** Takes an answer in, in the order that the rules ask for. Returns { caughtUp, rowsLeft } of a chunk, or undefined. */
  absorb({ lease, pushed, pushRefused, chunk, settled }) {
    const isUnknown = pushRefused && verdict(pushRefused) === "OUTCOME_UNKNOWN"; // a matter of the old identity
    if (isUnknown) this.refuse(pushRefused);
    if (lease?.nodeId) this.takeLease(lease);
    if (pushed) this.takeAck(pushed);
    if (pushRefused && !isUnknown) this.refuse(pushRefused);
    const lost = chunk?.restart === "LOST";
    if (settled && !lost) this.settle(settled);
    const progress = chunk && this.takeChunk(chunk);
    if (settled && lost) this.settle(settled); // it is of the history that is left
    return progress;
  }

  takeLease({ nodeId, incarnation = "0", admission }) {
    const before = this.node, push = this.sealed;
    this.node = { nodeId, incarnation };
    const isForked = admission === "FORKED"; // then it is certainly not bound
    if (!push || !before || !(isForked || admission === "FORGOTTEN" || before.nodeId !== nodeId)) return;
    this.sealed = null;
    if (!isForked && push.sent > 1 && !push.isVoid) this.atRisk(push);
    else this.putBack(push.said);
  }

  /** Bound or not, nobody knows: what says the same however often is said again, plain amounts never. */
  atRisk(push) {
    for (const [key, ops] of push.said) for (const [sub, op] of ops) {
      this.report(key, sub, op, op.once ? "unknown" : "repeated", "");
    }
    this.putBack(new Map([...push.said].filter(([key]) => kindOf(key) !== "counter")));
  }

  report(key, element, said, fate, reason) {
    this.told += 1;
    this.reports.push({ path: `${collectionOf(key)}/${nameOf(key)}`, kind: kindOf(key), element, said, fate, reason });
    if (this.reports.length > NEWEST) this.reports.shift();
  }

  takeAck(ack) {
    const push = this.sealed, asOf = revision(ack, "asOf");
    if (!push || push.no !== revision(ack, "pushNo")) return;
    this.sealed = null;
    this.hold(asOf, [...push.said].flatMap(([key, ops]) => askedFor(key, ops)));
    this.hold(asOf, rowsOf(ack.keys)); // what differs from what was asked for comes second
    if (this.acked.length < NEWEST) this.acked.push(revision(ack, "revision"));
    this.head = max(this.head, asOf);
  }

  /** Rows beside the backlog: before the first chunk a relay must learn how old the oldest of them is. */
  hold(asOf, rows) {
    const followed = rows.some(([key]) => this.covers(collectionOf(key)));
    if (followed && !this.token && (!this.heldSince || asOf < this.heldSince)) this.heldSince = asOf;
    this.put(asOf, rows);
  }

  put(asOf, rows) {
    for (const [key, sub, state] of rows) {
      const collection = collectionOf(key);
      if (!this.covers(collection)) continue;
      const pull = this.pulls.get(collection) ?? 0, held = inner(this.rows, key), row = held.get(sub);
      if (!row || asOf >= row.asOf) held.set(sub, { asOf, pull, state });
      else row.pull = pull;
      if (isDead(state)) inner(this.dead, collection).set(`${key} ${sub}`, [key, sub]);
    }
  }

  /** The fate of the last push; before the rows of the same answer become visible. */
  settle(fate) {
    const push = this.sealed, bound = fate.refused ? null : revision(fate, "revision");
    this.head = max(this.head, bound ?? 0n);
    if (push && push.no === revision(fate, "pushNo") && push.id === fate.pushId) {
      Object.assign(push, { bound, isVoid: bound === null });
    }
    this.settleWhatArrived();
  }

  /** A cursor beyond the push would not do: its row may have moved up and still be on its way. */
  settleWhatArrived() {
    const bound = this.sealed?.bound ?? null, arrived = (key) => this.barrier(collectionOf(key)) >= bound;
    if (bound !== null && [...this.sealed.said.keys()].every(arrived)) this.sealed = null;
  }

  refuse(refusal) {
    const word = verdict(refusal), push = this.sealed;
    if (word === "LATER" || !push) return;
    this.sealed = null;
    if (word === "OUTCOME_UNKNOWN") return this.atRisk(push);
    const fields = (refusal.violations ?? []).map((it) => /deltas\[(\d+)]/.exec(it.field ?? "")).filter((it) => it);
    const named = new Set(fields.map((it) => Number(it[1])));
    const drop = (key, sub, op) => this.report(key, sub, op, "dropped", refusal.reason);
    let kept = new Map(), amended = false, nth = 0;
    for (const [key, ops] of push.said) {
      const isNamed = named.has(nth++), isWrong = isNamed || !named.size;
      let left = new Map([...ops].map(([sub, op]) => [sub, word === "STALE" ? withoutContext(op) : null]));
      if (!isWrong) left = ops;
      else if (isNamed && [...ops].every(([sub, op]) => left.get(sub) === op)) left = new Map();
      for (const [sub, op] of ops) {
        amended ||= left.get(sub) !== op;
        if (left.get(sub)) inner(kept, key).set(sub, left.get(sub));
        else drop(key, sub, op);
      }
    }
    if (!amended) { // the same once more would be refused for ever
      for (const [key, ops] of kept) for (const [sub, op] of ops) drop(key, sub, op);
      kept = new Map();
    }
    this.putBack(kept);
  }

  takeChunk(chunk) {
    const asOf = revision(chunk, "asOf"), { restart } = chunk;
    const behind = { caughtUp: false, rowsLeft: Number(chunk.rowsLeft ?? 0) };
    if (restart) {
      const names = new Set(restart === "COMPACTED" ? chunk.restarted : []);
      for (const name of new Set([...this.rows.keys()].map(collectionOf))) {
        if (names.size && !names.has(name)) continue;
        this.pulls.set(name, (this.pulls.get(name) ?? 0) + 1);
        this.restarted.add(name);
      }
      if (restart === "LOST") this.loseHistory(asOf);
      if (this.askedWithAcked || this.acked.length) { // rows were left out: ask once more, with nothing acknowledged
        Object.assign(this, { acked: [], head: max(this.head, asOf) });
        if (restart === "LOST") Object.assign(this, { token: "", heldSince: 0n });
        return behind;
      }
    }
    Object.assign(this, { token: chunk.token ?? "", head: max(this.head, asOf) });
    this.put(asOf, rowsOf(chunk.keys));
    for (const it of chunk.inbox ?? []) this.takeMessage(it);
    if (chunk.caughtUp) {
      if (this.all) this.barrierOfAll = max(this.barrierOfAll, asOf);
      const names = new Set([...this.follow.filter((it) => it !== "*"), ...this.restarted, ...this.dead.keys()]);
      for (const name of names) this.reach(name, asOf);
      this.acked = this.acked.filter((it) => it > asOf);
    } else for (const name of chunk.caughtUpIn ?? []) this.reach(name, asOf);
    this.settleWhatArrived();
    return chunk.caughtUp ? { caughtUp: true, rowsLeft: 0 } : behind;
  }

  /** The collection is known as a whole: what a restarted pull has not delivered is gone, and so is what is dead. */
  reach(name, at) {
    this.barriers.set(name, max(this.barriers.get(name) ?? 0n, at));
    const drop = (key, sub, isGone) => {
      const row = this.row(key, sub);
      if (!row || row.asOf > at || !isGone(row) || !this.rows.get(key).delete(sub)) return;
      if (!this.rows.get(key).size) this.rows.delete(key);
    };
    for (const [key, sub] of this.dead.get(name)?.values() ?? []) drop(key, sub, (row) => isDead(row.state));
    this.dead.delete(name);
    if (!this.restarted.delete(name)) return;
    for (const [key, subs] of [...this.rows].filter(([key]) => collectionOf(key) === name)) {
      for (const sub of [...subs.keys()]) drop(key, sub, (row) => row.pull !== this.pulls.get(name));
    }
  }

  /** What is held may be of a history that the log has lost: it is shown on, and is no context any more. */
  loseHistory(answeredAt) {
    Object.assign(this, { head: answeredAt, barrierOfAll: 0n, delivered: 0n });
    this.barriers.clear();
    for (const subs of this.rows.values()) for (const row of subs.values()) row.asOf = 0n;
    if (this.sealed) Object.assign(this.sealed, { bound: null, isVoid: false });
    for (const [key, ops] of this.outbox) for (const [sub, op] of [...ops]) {
      const names = op.context !== undefined && op.context !== null;
      if (names && op.on === false && ops.delete(sub)) this.report(key, sub, op, "dropped", "LOST");
      else if (names && op.context !== OPEN) op.context = 0n;
    }
    this.putBack(new Map());
  }

  takeMessage({ messageId = "", sender = "", payload, ...it }) {
    const at = revision(it, "revision");
    if (at <= this.delivered || this.ids.has(messageId)) return;
    this.delivered = at;
    if (this.ids.add(messageId).size > NEWEST) this.ids.delete(this.ids.values().next().value);
    this.inbox.push({ revision: at, messageId, sender, payload: plain(payload) });
  }
}

const isDead = (state) => state === null || state === false;
const nameCost = (key) => 24 + size(collectionOf(key)) + size(nameOf(key));
const costOf = (key, ops) => [...ops].reduce((sum, [sub, op]) => sum + cost(key, sub, op), nameCost(key));
const bytesOf = (said) => [...said].reduce((sum, [key, ops]) => sum + costOf(key, ops), 0);

/** An upper bound of what a word takes in a request. */
function cost(key, sub, op) {
  if (op.once) return [...op.once.keys()].reduce((sum, id) => sum + 24 + size(id), 48);
  return 24 + size(sub) + ("value" in op ? 24 + size(op.value) : 0);
}

/** Says something more of a row: amounts add up, everything else is replaced. */
function merge(said, key, sub, op) {
  const ops = inner(said, key), before = ops.get(sub);
  if (!before || !op.once) return void ops.set(sub, op);
  before.amount += op.amount;
  for (const [id, amount] of op.once) if (!before.once.has(id)) before.once.set(id, amount);
}

/** What one push may say of a row, and what is left. */
function split(key, op) {
  if (!op.once) return [op, null];
  const amount = op.amount > AMOUNT_MAX ? AMOUNT_MAX : max(op.amount, -AMOUNT_MAX), once = [...op.once];
  const later = { amount: op.amount - amount, once: new Map(once.slice(ONCE_MAX)) };
  return [{ amount, once: new Map(once.slice(0, ONCE_MAX)) }, later.amount || later.once.size ? later : null];
}

/** What can be said again although the history behind its context was collected. */
function withoutContext(op) {
  if ("value" in op) return op.context === 0n ? null : { ...op, context: 0n };
  return op.on === false ? null : op;
}

/** The wire form of what was said of one key and type. */
function delta(key, ops) {
  const op = ops.get(""), seen = (context) => (typeof context === "bigint" ? { asOf: String(context) } : {});
  const change = {
    counter: () => ({
      [op.amount < 0n ? "subtract" : "add"]: String(op.amount < 0n ? -op.amount : op.amount),
      once: [...op.once].map(([id, amount]) => ({ id, amount: String(amount) })),
    }),
    set: () => {
      const removed = [...ops].filter(([, it]) => !it.on), contexts = new Set(removed.map(([, it]) => it.context));
      const of = (context) => removed.filter(([, it]) => it.context === context).map(([sub]) => sub);
      const remove = [...contexts].map((context) => ({ elements: of(context), ...seen(context) }));
      return { add: [...ops].filter(([, it]) => it.on).map(([sub]) => sub), remove };
    },
    flag: () => ({ on: op.on, ...seen(op.context) }),
    register: () => ({ value: op.value ?? undefined, stampMs: String(op.stampMs), ...seen(op.context) }),
  };
  return { collection: collectionOf(key), key: nameOf(key), [kindOf(key)]: change[kindOf(key)]() };
}

/** The rows that an acknowledgement leaves out because they are what was asked for; counters it always names. */
function askedFor(key, ops) {
  if (kindOf(key) === "counter") return [];
  return [...ops].map(([sub, op]) => [key, sub, "value" in op ? op.value : op.on]);
}

/** [key, element, state] of each row; types that this file does not know are skipped. */
function rowsOf(states = []) {
  return states.flatMap(({ collection = "", key = "", counter, set, register, flag }) => {
    const at = (kind) => keyOf(kind, collection, key);
    if (counter) return [[at("counter"), "", BigInt(counter.value ?? 0)]];
    if (flag) return [[at("flag"), "", flag.on ?? false]];
    if (register) return [[at("register"), "", Object.keys(register.value ?? {}).length ? register.value : null]];
    const elements = (names = [], isThere) => names.map((element) => [at("set"), element, isThere]);
    return [...elements(set?.present, true), ...elements(set?.removed, false)];
  });
}

/** STALE, OUTCOME_UNKNOWN, INVALID: decided; LATER: the same push may be sent again. */
function verdict({ reason = "", code }) {
  if (reason === "STALE" || reason === "OUTCOME_UNKNOWN") return reason;
  return reason === "QUOTA" || (!LATER.has(reason) && [3, 9, 11].includes(code)) ? "INVALID" : "LATER";
}

/** The content of a wire value: bytes, or what its text says in JSON, or the text itself. */
export function plain(value) {
  if (!value) return undefined;
  if ("data" in value) return Buffer.from(value.data, "base64");
  try { return JSON.parse(value.text ?? ""); } catch { return value.text; }
}
