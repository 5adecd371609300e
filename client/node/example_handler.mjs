// A function for AWS Lambda: put this file, dormouse.mjs and dormouse_replica.mjs into one zip, and set DORMOUSE_URL.
//
// Shows an advertisement as long as its budget lasts. The budget may be overshot by what others have not pushed yet.
import { Node } from "./dormouse.mjs";

const BUDGET = 1_000;
const node = new Node(); // no I/O, no identity: the process may be snapshotted and cloned

export async function handler(event, context) {
  const awake = await node.wake(context);
  const shown = awake.counter("ads/shown");
  const show = !shown.reached(BUDGET);
  if (show) shown.addOnce(context.awsRequestId, 1); // once, even if the platform invokes again
  (await awake.sleep()).warnIfUnsaved();
  return { show, view: awake.freshness().state };
}
