"""How long a warm wake takes on a kept connection: `python3 client/python/bench.py`, with a relay at DORMOUSE_URL."""
import time

import dormouse

WAKES, WARM, KEYS = 1_000, 100, 100
node = dormouse.Node(budget=5.0)
took = []
for nth in range(WAKES + WARM):
    began = time.perf_counter()
    awake = node.wake(60)
    took.append(1_000 * (time.perf_counter() - began))
    assert awake.freshness().state == "current", awake.freshness()
    if nth < KEYS: awake.counter(f"bench/{nth}").add(1)
    awake.sleep()
took = sorted(took[WARM:])
print(f"python_wake_p50_ms {took[WAKES // 2]:.2f} ms")
print(f"python_wake_p99_ms {took[WAKES * 99 // 100]:.2f} ms")
