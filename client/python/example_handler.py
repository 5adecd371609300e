"""A function for AWS Lambda: put this file, dormouse.py and dormouse_replica.py into one zip, and set DORMOUSE_URL.

Shows an advertisement as long as its budget lasts. The budget may be overshot by what others have not pushed yet."""
import dormouse

BUDGET = 1_000
node = dormouse.Node()  # no I/O, no identity: the process may be snapshotted and cloned


def handler(event, context):
    with node.wake(context) as awake:
        shown = awake.counter("ads/shown")
        show = not shown.reached(BUDGET)
        if show: shown.add_once(context.aws_request_id, 1)  # once, even if the platform invokes again
        return {"show": show, "view": awake.freshness().state}
