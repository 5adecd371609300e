// How long a warm wake takes on a kept connection: `node client/node/bench.mjs`, with a relay at DORMOUSE_URL.
import assert from "node:assert/strict";

import { Node } from "./dormouse.mjs";

const WAKES = 1_000, WARM = 100, KEYS = 100;
const node = new Node(process.env, { budget: 5_000 });
const all = [];
for (let nth = 0; nth < WAKES + WARM; nth += 1) {
  const began = performance.now(), awake = await node.wake(60_000);
  all.push(performance.now() - began);
  assert.equal(awake.freshness().state, "current");
  if (nth < KEYS) awake.counter(`bench/${nth}`).add(1);
  await awake.sleep();
}
const took = all.slice(WARM).sort((a, b) => a - b);
console.log(`node_wake_p50_ms ${took[WAKES / 2].toFixed(2)} ms`);
console.log(`node_wake_p99_ms ${took[(WAKES * 99) / 100].toFixed(2)} ms`);
