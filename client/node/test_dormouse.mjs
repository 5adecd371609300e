// Tests of dormouse.mjs: the rules that both small clients share (../rules.json), and a real relay whose binary is named by
// DORMOUSE_TEST_RELAY. `cargo test -p dormouse-tests --test clients` builds one and runs this.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { ConfigError, Node, NotReached, Stale, WriteError } from "./dormouse.mjs";

const RULES = JSON.parse(readFileSync(new URL("../rules.json", import.meta.url)));
const SEED = Number(process.env.DORMOUSE_TEST_SEED ?? Math.floor(Math.random() * 2 ** 32));
const BINARY = process.env.DORMOUSE_TEST_RELAY;
console.error(`seed ${SEED}: DORMOUSE_TEST_SEED=${SEED} plays it again`);

/** Numbers below 1, the same for the same seed (mulberry32). */
function chances(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const idle = (follow = "*") => new Node({ DORMOUSE_COLLECTIONS: follow });
/** An invocation of a node that never calls. */
async function offline(node) {
  node.converse = async () => {};
  return node.wake();
}

describe("rules", () => {
  for (const rule of RULES) test(rule.name, () => play(rule));

  async function play(rule) {
    const node = idle((rule.follow ?? ["*"]).join(",")), awake = await offline(node), { replica } = node;
    const write = {
      add: (at, it) => awake.counter(at).add(it.n), once: (at, it) => awake.counter(at).addOnce(it.id, it.n),
      insert: (at, it) => awake.set(at).add(it.element), remove: (at, it) => awake.set(at).remove(it.element),
      put: (at, it) => awake.register(at).set(it.value), on: (at) => awake.flag(at).on(), off: (at) => awake.flag(at).off(),
    };
    const read = {
      counter: (at) => awake.counter(at).value, set: (at) => awake.set(at).elements(),
      register: (at) => awake.register(at).get(), flag: (at) => awake.flag(at).isOn(),
    };
    for (const step of rule.steps) {
      const [verb, value] = Object.entries(step)[0];
      if (verb in write) write[verb](value, step);
      else if (verb === "answer") replica.absorb(value);
      else if (verb === "see") assert.deepEqual(read[value](step.path) ?? null, step.is, JSON.stringify(step));
      else if (verb === "fates") assert.deepEqual(node.reports.map((it) => it.fate), value);
      else if (verb === "pending") assert.equal(Boolean(replica.sealed || replica.outbox.size), Boolean(value));
      else if (verb === "inbox") assert.deepEqual(awake.takeInbox().map((it) => it.messageId), value);
      else {
        assert.equal(verb, "send");
        replica.seal(value);
        const { send, ...wanted } = step;
        holds(JSON.parse(JSON.stringify(replica.outgoing(1 << 20))), wanted);
      }
    }
  }

  /** Everything that is wanted is there; lists are compared as wholes, whatever the order of removals. */
  function holds(sent, wanted) {
    for (const [name, value] of Object.entries(wanted)) {
      if (Array.isArray(value) && typeof value[0] === "object") {
        assert.equal(sent[name].length, value.length, name);
        const order = (a, b) => JSON.stringify(a.elements ?? "").localeCompare(JSON.stringify(b.elements ?? ""));
        const [is, wants] = [[...sent[name]].sort(order), [...value].sort(order)];
        is.forEach((it, nth) => holds(it, wants[nth]));
      } else if (value !== null && typeof value === "object" && !Array.isArray(value)) holds(sent[name], value);
      else assert.deepEqual(sent[name], value, name);
    }
  }

  test("a full outbox refuses, and what coalesces still passes", async () => {
    const awake = await offline(idle()), value = "x".repeat(200_000);
    let nth = 0;
    assert.throws(() => { for (; nth < 30; nth += 1) awake.register(`a/${nth}`).set(value); }, WriteError);
    awake.register("a/0").set(value);
    assert.equal(nth, 20);
  });

  test("a push stays within its bounds, and the rest waits", async () => {
    const node = idle(), awake = await offline(node), { replica } = node;
    for (let nth = 0; nth < 1_500; nth += 1) awake.set("a/s").add(String(nth));
    for (let nth = 0; nth < 3; nth += 1) awake.counter("a/n").add(2n ** 48n);
    let sent = 0;
    replica.seal("AAAAAAAAAAE=");
    while (replica.sealed) {
      const { push } = replica.outgoing(1), rows = push.deltas.reduce((sum, it) => sum + (it.set?.add.length ?? 1), 0);
      assert.ok(rows <= 1_024);
      sent += rows;
      replica.absorb({ pushed: { pushNo: push.pushNo, revision: String(10 + sent), asOf: String(10 + sent) } });
      replica.seal("AAAAAAAAAAI=");
    }
    assert.equal(sent, 1_503);
  });

  test("malformed writes and settings are refused", async () => {
    const node = idle(), awake = await offline(node);
    for (const path of ["ads", "Ads/a", "ads/", "ads/a\nb", `ads/${"x".repeat(513)}`, "@inbox/a"]) {
      assert.throws(() => awake.counter(path), WriteError, path);
    }
    for (const write of [
      () => awake.counter("a/n").add(2n ** 48n + 1n), () => awake.counter("a/n").add(0.5),
      () => awake.counter("a/n").addOnce("", 1), () => awake.set("a/s").add("x".repeat(1025)),
      () => awake.register("a/r").set("x".repeat(256 << 10)), () => awake.set("a/s").add("\ud800"),
      () => awake.register("a/r").set(undefined),
    ]) assert.throws(write, WriteError, String(write));
    assert.equal(node.replica.outbox.size, 0);
    for (const env of [{ DORMOUSE_BUDGET_MS: "soon" }, { DORMOUSE_COLLECTIONS: "Ads" }, { DORMOUSE_URL: "relay:7400" },
      { K_SERVICE: "ads" }]) assert.throws(() => new Node(env), ConfigError, JSON.stringify(env));
  });

  test("a function says what and where it is, and draws no identity before it wakes", () => {
    const node = new Node({ DORMOUSE_URL: "http://relay:7400", AWS_LAMBDA_FUNCTION_NAME: "ads", AWS_REGION: "eu-west-1",
      DORMOUSE_TAGS: "zone=a, region=own", DORMOUSE_COLLECTIONS: "ads,flags" });
    assert.deepEqual([node.config.group, node.config.follow], ["ads", ["ads", "flags"]]);
    assert.deepEqual(node.config.tags, { zone: "a", region: "own" });
    assert.equal(node.bootId, null);
  });
});

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const freePort = () => new Promise((found) => {
  const it = net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = it.address();
    it.close(() => found(port));
  });
});

/** A real relay on ports of its own; killed without warning, and started again. */
class Relay {
  static async start() {
    const it = new Relay();
    Object.assign(it, { dir: mkdtempSync(join(tmpdir(), "dormouse-")), data: 0, port: await freePort(), admin: await freePort() });
    await it.start();
    return it;
  }

  async start() {
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("DORMOUSE_")));
    Object.assign(env, { DORMOUSE_LISTEN: `127.0.0.1:${this.port}`, DORMOUSE_ADMIN_LISTEN: `127.0.0.1:${this.admin}`,
      DORMOUSE_DATA_DIR: join(this.dir, String(this.data)), DORMOUSE_LOG: "warn" });
    this.process = spawn(BINARY, { env, stdio: ["ignore", "ignore", "inherit"] });
    for (let nth = 0; nth < 1_500; nth += 1) {
      const page = await fetch(`http://127.0.0.1:${this.admin}/readyz`).catch(() => null);
      await page?.arrayBuffer();
      if (page?.ok) return;
      if (this.process.exitCode !== null) break;
      await pause(20);
    }
    throw new Error("the relay did not become ready");
  }

  async kill() {
    const gone = new Promise((done) => this.process.once("exit", done));
    this.process.kill("SIGKILL");
    await gone;
  }

  async close() {
    await this.kill();
    rmSync(this.dir, { recursive: true });
  }

  async ask(call, message) {
    const request = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(message) };
    const answer = await fetch(`http://127.0.0.1:${this.port}/dormouse.v1.${call}`, request);
    assert.equal(answer.status, 200);
    return answer.json();
  }

  async rows(path) { return (await this.ask("Mailbox/Read", { keys: [path] })).keys ?? []; }
  async count(path) { return Number((await this.rows(path))[0].counter.value); }
  async elements(path) { return (await this.rows(path))[0]?.set?.present ?? []; }
}

/**
 * Between a function and its relay. `cut(nth)`: whether the answer to the nth request is cut off after the relay has given
 * it. freeze(): the connections that are there fall silent, and nobody is told.
 */
class Proxy {
  constructor(relay, cut = () => false) {
    Object.assign(this, { answers: 0, connections: 0, frozen: 0, open: new Set() });
    this.server = net.createServer((client) => {
      const number = (this.connections += 1), behind = net.connect(relay.port, "127.0.0.1");
      const end = () => { if (number > this.frozen) { client.destroy(); behind.destroy(); } };
      for (const it of [client, behind]) {
        this.open.add(it.setNoDelay());
        it.on("error", end).on("close", end);
      }
      client.on("data", (piece) => { if (number > this.frozen) behind.write(piece); });
      behind.on("data", (piece) => {
        if (number <= this.frozen) return;
        this.answers += 1;
        if (cut(this.answers)) end();
        else client.write(piece);
      });
    });
  }

  async listen() {
    await new Promise((done) => this.server.listen(0, "127.0.0.1", done));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  freeze() { this.frozen = this.connections; }
  close() {
    this.server.close();
    for (const it of this.open) it.destroy();
  }
}

describe("calls", { skip: !BINARY && "DORMOUSE_TEST_RELAY names no relay" }, () => {
  const called = (name, body) => test(name, async (t) => {
    const relay = await Relay.start();
    t.after(() => relay.close());
    const node = (proxy, more) => {
      const made = new Node({ DORMOUSE_URL: proxy?.url ?? `http://127.0.0.1:${relay.port}`, DORMOUSE_GROUP: "small",
        DORMOUSE_BUDGET_MS: "5000", ...more });
      t.after(() => made.line.close());
      return made;
    };
    const proxy = async (cut) => {
      const it = await new Proxy(relay, cut).listen();
      t.after(() => it.close());
      return it;
    };
    await body({ relay, node, proxy });
  });

  /** Awake with a complete view; answers may have been lost on the way. */
  async function wake(node) {
    for (let nth = 0; nth < 50; nth += 1) {
      const awake = await node.wake(60_000);
      if (awake.freshness().state === "current") return awake;
    }
    throw new Error(`never current: ${node.failed}, seed ${SEED}`);
  }

  async function save(awake) {
    for (let nth = 0; nth < 50; nth += 1) if ((await awake.sleep()).state !== "unsaved") return;
    throw new Error(`never saved, seed ${SEED}`);
  }

  called("two clients converge", async ({ relay, node }) => {
    const a = node(), b = node();
    let awake = await wake(a);
    awake.counter("ads/shown").add(3);
    awake.set("carts/é 1").add('apple "\\ ü');
    awake.register("cfg/x").set({ deep: [1, null, "é"] });
    awake.flag("ops/paused").on();
    const slept = await awake.sleep();
    assert.deepEqual([slept.state, slept.durability], ["saved", "FSYNC"]);
    awake = await wake(b);
    assert.equal(awake.counter("ads/shown").value, 3);
    assert.deepEqual(awake.set("carts/é 1").elements(), ['apple "\\ ü']);
    assert.deepEqual(awake.register("cfg/x").get(), { deep: [1, null, "é"] });
    assert.deepEqual([awake.flag("ops/paused").isOn(), awake.counter("ads/shown").reached(4)], [true, false]);
    awake.counter("ads/shown").add(-1);
    awake.register("cfg/x").delete();
    awake.flag("ops/paused").off();
    await awake.sleep();
    awake = await wake(a);
    const seen = [awake.counter("ads/shown").value, awake.register("cfg/x").get(), awake.flag("ops/paused").isOn()];
    assert.deepEqual(seen, [2, undefined, false]);
    assert.equal((await awake.sleep()).state, "nothing");
    const { counts } = await relay.ask("Membership/CountMembers", { groupBy: ["state"] });
    assert.deepEqual(counts.map((it) => [it.by.state, it.members]), [["ASLEEP", "2"]]);
  });

  called("an add wins over a remove that had not seen it", async ({ node }) => {
    const a = node(), b = node(), awake = await wake(a);
    for (const it of ["apple", "pear"]) awake.set("carts/1").add(it);
    await awake.sleep();
    const ofA = await wake(a), ofB = await wake(b);
    for (const it of ["apple", "pear"]) ofB.set("carts/1").remove(it);
    ofA.set("carts/1").add("apple");
    await ofA.sleep();
    await ofB.sleep();
    for (const it of [a, b]) assert.deepEqual((await wake(it)).set("carts/1").elements(), ["apple"]);
  });

  called("a remove after an own add whose answer was lost removes it", async ({ relay, node, proxy }) => {
    const lost = new Set(), line = await proxy((nth) => lost.has(nth)), awake = await wake(node(line));
    awake.set("carts/1").add("apple");
    lost.add(line.answers + 1).add(line.answers + 2);
    assert.equal((await awake.sleep()).state, "unsaved");
    assert.deepEqual(await relay.elements("carts/1"), ["apple"]);
    awake.set("carts/1").remove("apple");
    assert.deepEqual(awake.set("carts/1").elements(), []);
    await save(awake);
    assert.deepEqual(await relay.elements("carts/1"), []);
  });

  called("increments whose answers are lost count once", async ({ relay, node, proxy }) => {
    const chance = chances(SEED), line = await proxy(() => chance() < 0.5), it = node(line), rounds = 40;
    for (let nth = 0; nth < rounds; nth += 1) {
      const awake = await it.wake(60_000);
      awake.counter("ads/shown").add(1);
      awake.counter("ads/once").addOnce(`request-${nth >> 1}`, 1);
      await awake.sleep();
    }
    await save(await it.wake(60_000));
    assert.ok(line.connections > 10);
    assert.deepEqual([await relay.count("ads/shown"), await relay.count("ads/once")], [rounds, rounds / 2], `seed ${SEED}`);
    assert.equal((await wake(it)).counter("ads/shown").value, rounds, `seed ${SEED}`);
    assert.deepEqual(it.reports, []);
  });

  called("a relay that is killed between wake and sleep loses nothing", async ({ relay, node }) => {
    const it = node();
    for (const restarts of [false, true]) {
      const awake = await wake(it);
      awake.counter("ads/shown").add(1);
      if (restarts) {
        await relay.kill();
        await relay.start();
      }
      assert.equal((await awake.sleep()).state, "saved");
    }
    assert.equal(await relay.count("ads/shown"), 2);
  });

  called("without a relay a function runs on what it knows", async ({ relay, node }) => {
    const it = node(null, { DORMOUSE_BUDGET_MS: "300" });
    let awake = await wake(it);
    awake.counter("ads/shown").add(5);
    await awake.sleep();
    await relay.kill();
    awake = await it.wake(60_000);
    assert.deepEqual([awake.freshness().state, awake.counter("ads/shown").value], ["stale", 5]);
    assert.ok(awake.freshness().reason instanceof NotReached);
    awake.counter("ads/shown").add(1);
    const slept = await awake.sleep();
    assert.deepEqual([slept.state, slept.deltas], ["unsaved", 1]);
    awake.require(3_600_000);
    const nothing = await node(null, { DORMOUSE_BUDGET_MS: "300" }).wake();
    assert.deepEqual([nothing.freshness().state, nothing.counter("ads/shown").value], ["never", undefined]);
    assert.throws(() => nothing.require(3_600_000), Stale);
    await relay.start();
    assert.equal((await wake(it)).counter("ads/shown").value, 6);
    assert.equal(await relay.count("ads/shown"), 6);
  });

  called("a kept connection that fell silent is replaced", async ({ node, proxy }) => {
    const line = await proxy(), it = node(line);
    await save(await wake(it));
    assert.equal(line.connections, 1);
    line.freeze();
    const began = performance.now();
    assert.equal((await it.wake(60_000)).freshness().state, "current");
    assert.equal(line.connections, 2);
    assert.ok(performance.now() - began < 2_500, "half of the budget: the first attempt had a short one");
  });

  called("a wiped log is noticed, and what waits goes to the new one", async ({ relay, node }) => {
    const it = node();
    let awake = await wake(it);
    awake.set("carts/1").add("old");
    await save(awake);
    await relay.kill();
    relay.data = 1;
    await relay.start();
    awake = await it.wake(60_000);
    awake.set("carts/1").add("new");
    await save(awake);
    assert.deepEqual((await wake(it)).set("carts/1").elements(), ["new"]);
    assert.deepEqual(await relay.elements("carts/1"), ["new"]);
  });

  called("a backlog of several chunks is pulled in one wake", async ({ node }) => {
    const awake = await wake(node()), reader = node();
    const names = Array.from({ length: 3_000 }, (_, nth) => `${String(nth).padStart(5, "0")}-${"x".repeat(600)}`);
    for (const name of names) awake.set("carts/1").add(name);
    await save(awake);
    const read = await reader.wake(600_000);
    assert.equal(read.freshness().state, "current");
    assert.deepEqual(read.set("carts/1").elements(), names);
    assert.ok(reader.beat > 1n);
  });

  called("a refused write is told", async ({ relay, node }) => {
    const it = node(), awake = await wake(it);
    it.replica.say("counter Bad/key", "", { amount: 1n, once: new Map() }); // past the handle's own check
    awake.counter("ads/shown").add(1);
    assert.equal((await awake.sleep()).state, "unsaved");
    assert.deepEqual(it.reports.map((report) => [report.path, report.reason]), [["Bad/key", "FIELD_INVALID"]]);
    assert.equal(await relay.count("ads/shown"), 1);
  });

  called("a message arrives with the next wake, once", async ({ relay, node }) => {
    const it = node();
    await save(await wake(it));
    await relay.ask("Mailbox/Send", { nodeId: it.replica.node.nodeId, messageId: "m", sender: "me", payload: { text: "[1]" } });
    const awake = await wake(it);
    assert.deepEqual(awake.takeInbox().map((one) => [one.messageId, one.sender, one.payload]), [["m", "me", [1]]]);
    assert.deepEqual([...awake.takeInbox(), ...(await wake(it)).takeInbox()], []);
  });

  called("random histories over a line that loses answers converge", async ({ node, proxy }) => {
    const chance = chances(SEED), below = (n) => Math.floor(chance() * n), nodes = [];
    for (let nth = 0; nth < 3; nth += 1) nodes.push(node(await proxy(() => chance() < 0.25)));
    let total = 0;
    for (let round = 0; round < 60; round += 1) {
      const awake = await nodes[below(3)].wake(60_000);
      for (let writes = below(4); writes > 0; writes -= 1) {
        const what = below(7), name = `all/${below(3)}`, n = below(12) - 3;
        if (what === 0) { awake.counter("all/sum").add(n); total += n; }
        else if (what <= 2) awake.set(name).add("abc"[below(3)]);
        else if (what <= 4) awake.set(name).remove("abc"[below(3)]);
        else if (what === 5) awake.register(name).set(below(100));
        else if (chance() < 0.5) awake.flag(name).on();
        else awake.flag(name).off();
      }
      if (chance() < 0.8) await awake.sleep();
    }
    for (const it of nodes) await save(await it.wake(60_000));
    const view = (awake) => ["all/0", "all/1", "all/2"].map((it) =>
      [awake.set(it).elements(), awake.register(it).get(), awake.flag(it).isOn()]).concat(awake.counter("all/sum").value);
    const views = [];
    for (const it of [...nodes, node()]) views.push(view(await wake(it)));
    assert.deepEqual(views, Array(4).fill(views[3]), `seed ${SEED}`);
    assert.equal(views[3].at(-1), total, `seed ${SEED}`);
    assert.deepEqual(nodes.map((it) => it.reports), [[], [], []], `seed ${SEED}`);
  });

  called("the example handler counts each request once", async ({ relay }) => {
    Object.assign(process.env, { DORMOUSE_URL: `http://127.0.0.1:${relay.port}`, DORMOUSE_BUDGET_MS: "5000" });
    const { handler } = await import("./example_handler.mjs"), answers = [];
    for (const awsRequestId of ["one", "two", "two"]) {
      answers.push(await handler({}, { awsRequestId, getRemainingTimeInMillis: () => 60_000 }));
    }
    assert.deepEqual(answers, Array(3).fill({ show: true, view: "current" }));
    assert.equal(await relay.count("ads/shown"), 2);
  });
});
