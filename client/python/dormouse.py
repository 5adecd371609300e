"""Dormouse for functions in Python 3.10 or newer: this file and dormouse_replica.py, the standard library, JSON over HTTP.

    node = dormouse.Node()                         # outside the handler: no I/O, no identity, may be snapshotted
    def handler(event, context):
        with node.wake(context) as awake:          # one round trip; never raises, at worst the view is old
            awake.counter("ads/shown").add_once(context.aws_request_id, 1)
            return awake.counter("ads/shown").value
        # leaving the block sleeps: one round trip that pushes what was written; what is not saved is warned of

Settings are those of the Rust client: DORMOUSE_URL, _TOKEN, _CA, _NAMESPACE, _GROUP, _TAGS, _COLLECTIONS, _BUDGET_MS.
A key that is not followed, or of which nothing was ever heard, reads as None. The rules are those of the Rust client too.

What this file does not do: other types than counter (without reset), set, register and flag; following and giving up
while it runs, members, `fetch`, `quiet`, `Write` and the other calls for back ends; overlapping invocations, threads (one
node is used by one thread at a time, one invocation after the other); anything in the background.
"""
import collections, http.client, json, math, os, random, re, ssl, sys, time
from base64 import b64encode
from urllib.parse import urlsplit

from dormouse_replica import AMOUNT_MAX, Message, Replica, Report, WriteError, dumps, number, plain

FIRST_ATTEMPT, IDLE = 0.150, 25.0  # seconds for a kept connection to prove itself; relays close what is silent for 30 s
CHUNK_LEAST, CHUNK_MOST, ANSWER_MAX, VALUE_MAX = 16 << 10, 1 << 20, 64 << 20, 256 << 10
STOP = {"unauthenticated", "permission_denied", "invalid_argument", "not_found", "failed_precondition"}
Freshness = collections.namedtuple("Freshness", "state age rows_left reason")  # current, catching_up, stale, never


class ConfigError(ValueError): """A setting breaks its rule. Nothing was contacted yet."""
class Stale(Exception): """The view is older than the program can accept."""
class NotReached(Exception): """No relay answered in time, or the connection broke twice."""


class Refused(Exception):
    """The relay said no; `word` is one of the contract's reasons."""
    def __init__(self, word, message): super().__init__(f"{word}: {message}"); self.word = word


class Line:
    """A kept connection. After any error that is no answer there is one retry on a new one: whatever is sent may be sent
    twice, and a connection that died during a freeze fails in any way, or just waits."""
    def __init__(self, url, token, ca):
        it = urlsplit(url)
        if it.scheme not in ("http", "https") or not it.hostname:
            raise ConfigError("DORMOUSE_URL: must be http://host:port")
        self.secure, self.host, self.port, self.ca = it.scheme == "https", it.hostname, it.port, ca
        self.headers = {"content-type": "application/json", "connect-protocol-version": "1"}
        if token: self.headers["authorization"] = "Bearer " + token
        self.kept, self.heard = None, (0.0, 0.0)

    def close(self):
        if self.kept: self.kept.close()
        self.kept = None

    def idle(self): return max(time.monotonic() - self.heard[0], time.time() - self.heard[1])

    def call(self, path, build, budget, proven=False):
        """Transmits what build(after_timeout) says, twice if need be, within the budget in seconds."""
        ends, second, late = time.monotonic() + budget, False, False
        while True:
            if self.kept and (not self.kept.sock or self.idle() > IDLE): self.close()
            left, kept = ends - time.monotonic(), self.kept is not None
            time_given = left if second or (kept and proven) else min(left / 2, FIRST_ATTEMPT) if kept else left / 2
            wait = None
            try:
                answer, wait = self.post(path, build(late), time_given)
                if not isinstance(answer, Exception): return answer
                error = answer
            except (OSError, http.client.HTTPException, ValueError) as broken:
                self.close()
                error, late = NotReached(f"{type(broken).__name__}: {broken}"), isinstance(broken, TimeoutError)
            left = ends - time.monotonic()
            if second or left <= (wait or 0): raise error
            if wait: time.sleep(wait)
            second = True

    def post(self, path, message, time_given):
        """(answer, None), or (error, seconds to wait before a retry); None: on a new connection, at once."""
        ends = time.monotonic() + time_given
        def left():
            if (it := ends - time.monotonic()) <= 0: raise TimeoutError("no answer in time")
            return it
        if not self.kept:
            if self.secure:
                pem = self.ca if self.ca and "-----BEGIN" in self.ca else None
                tls = ssl.create_default_context(cafile=None if pem else self.ca, cadata=pem)
                self.kept = http.client.HTTPSConnection(self.host, self.port, timeout=left(), context=tls)
            else: self.kept = http.client.HTTPConnection(self.host, self.port, timeout=left())
            self.kept.connect()
        self.kept.sock.settimeout(left())
        time_ms = str(int(time_given * 1000) + 1)
        self.kept.request("POST", path, dumps(message), {**self.headers, "connect-timeout-ms": time_ms})
        sock, answer, body = self.kept.sock, self.kept.getresponse(), bytearray()
        while True:
            sock.settimeout(left())
            if not (piece := answer.read1(1 << 16)): break
            body += piece
            if len(body) > ANSWER_MAX: raise ValueError("the answer is larger than 64 MiB")
        answer.close()  # all was read: the connection is free for the next call
        said = json.loads(body)
        self.heard = time.monotonic(), time.time()
        if answer.status == 200: return said, None
        error, wait = refusal_of(said)
        if wait is None: self.close()
        return error, wait


def refusal_of(said):
    """The error that a body of Connect tells of, and what is to be done."""
    code, message = said.get("code", "unknown"), said.get("message", "")
    told = {it.get("type", "").rsplit(".", 1)[-1]: it.get("debug", {}) for it in said.get("details", ())}
    wrong = told.get("BadRequest", {}).get("fieldViolations", ())
    fields = [f"{it.get('field')}: {it.get('description')}" for it in wrong]
    word, delay = told.get("ErrorInfo", {}).get("reason"), told.get("RetryInfo", {}).get("retryDelay")
    message = ": ".join([message, *(["; ".join(fields)] if fields else [])])
    if code in STOP or (code == "resource_exhausted" and not delay): return Refused(word or code, message), math.inf
    error = Refused(word, message) if word else NotReached(f"{code}: {message}")
    comes_back = delay and code in ("resource_exhausted", "unavailable")
    return error, float(delay.rstrip("s")) * random.uniform(1, 1.5) if comes_back else None


def settings(env):
    """What the environment says; ConfigError names the variable that breaks its rule."""
    var = lambda name: env.get(name) or None
    platform = next((env[it] for it in ("AWS_LAMBDA_FUNCTION_NAME", "K_SERVICE") if env.get(it)), None)
    url = var("DORMOUSE_URL")
    if not url and platform:
        raise ConfigError("DORMOUSE_URL: required inside a function: no relay runs on this machine")
    pairs = lambda text: (it.strip().partition("=") for it in text.split(",") if it.strip())
    tags = {"region": var("AWS_REGION"), "version": var("AWS_LAMBDA_FUNCTION_VERSION"),
            "memory": var("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")}
    tags.update((name.strip(), value.strip()) for name, _, value in pairs(var("DORMOUSE_TAGS") or ""))
    follow = [it.strip() for it in (var("DORMOUSE_COLLECTIONS") or "*").split(",") if it.strip()]
    for it in follow:
        if it != "*" and not re.fullmatch(r"[a-z0-9._-]{1,64}", it):
            raise ConfigError(f"DORMOUSE_COLLECTIONS: {it!r} is neither * nor 1-64 of [a-z0-9._-]")
    program = os.path.splitext(os.path.basename(sys.argv[0] or "unnamed"))[0]
    group = var("DORMOUSE_GROUP") or re.sub(r"[^A-Za-z0-9._-]", "-", platform or program)[:64] or "unnamed"
    budget = var("DORMOUSE_BUDGET_MS") or "500"
    if not budget.isdigit() or not 1 <= int(budget) <= 60_000:
        raise ConfigError("DORMOUSE_BUDGET_MS: must be 1 to 60000")
    return {"url": url or "http://127.0.0.1:7400", "token": var("DORMOUSE_TOKEN"), "ca": var("DORMOUSE_CA"),
            "namespace": var("DORMOUSE_NAMESPACE") or "", "group": group, "follow": follow, "budget": int(budget) / 1000,
            "tags": {name: value for name, value in tags.items() if value}}


class Node:
    """A function, hence a member: one per process, made outside the handler. What it pushes it keeps until it is told
    what became of it; `reports` (newest 1,024) says which writes, or parts, did not end as the program was told."""
    def __init__(self, env=os.environ, **changed):
        self.config = {**settings(env), **changed}
        self.line = Line(self.config["url"], self.config["token"], self.config["ca"])
        self.replica, self.boot_id, self.beat, self.send_tags = Replica(self.config["follow"]), None, 0, True
        self.chunk, self.complete, self.rows_left, self.failed = CHUNK_MOST, None, None, NotReached("no answer yet")
        self.last_ack = None

    reports = property(lambda self: self.replica.reports)

    def wake(self, left=None):
        """Begins an invocation: joins or renews, pushes what waits, pulls what was missed, within the budget and a fifth
        of what is left. `left`: a Lambda context, or seconds; 0 or less: unknown. Never raises."""
        awake = None
        try:
            awake = Awake(self, left)
            self.converse(awake.budget(), awake.next, lambda: self.rows_left is None)
        except Exception as error:  # whatever it is, the handler runs on what is known
            self.failed = error
        return awake or Awake(self, None)

    def leave(self, reason=""):
        """Ends the membership and pushes what waits, for a process that is told of its end."""
        try:
            if self.boot_id: self.converse(self.config["budget"], lambda: {"leaving": {"reason": reason}}, lambda: True)
        except (NotReached, Refused): pass  # the lease says the same somewhat later

    def converse(self, budget, says, enough):
        """Calls until it is enough, an error, or the end of the budget; the latter is an error only at first."""
        ends, proven = time.monotonic() + budget, False
        while not proven or (not enough() and time.monotonic() < ends):
            try: self.sync(ends - time.monotonic(), says, proven)
            except NotReached:
                if not proven or "awake" not in says(): raise
                return  # what has arrived counts, and how much is missing is known
            proven = True

    def sync(self, budget, says, proven):
        """One round trip."""
        if not self.boot_id: self.boot_id = b64encode(os.urandom(16)).decode()
        call_id, push_id = (b64encode(os.urandom(8)).decode() for _ in range(2))
        asked_at, ends = (time.monotonic(), time.time()), time.monotonic() + budget
        replica, config = self.replica, self.config
        def build(late):
            if late: self.chunk = CHUNK_LEAST
            self.beat += 1
            replica.seal(push_id)
            node_id, incarnation = replica.node or ("", "0")
            node = {"bootId": self.boot_id, "nodeId": node_id, "incarnation": incarnation, "group": config["group"]}
            if self.send_tags or not node_id: node["tags"] = config["tags"]
            size = self.chunk if "awake" in says() else CHUNK_LEAST
            return {"namespace": config["namespace"], "node": node, "beat": str(self.beat), "callId": call_id, **says(),
                    **replica.outgoing(size)}
        try: answer = self.line.call("/dormouse.v1.Mailbox/Sync", build, budget, proven)
        except NotReached:
            if time.monotonic() >= ends: self.chunk = max(self.chunk // 2, CHUNK_LEAST)
            raise
        progress, pull_refused = replica.absorb(answer), answer.get("pullRefused")
        self.send_tags = answer.get("lease", {}).get("sendTags", False)
        if "pushed" in answer: self.last_ack = number(answer["pushed"], "revision"), answer["pushed"].get("durability")
        self.failed = pull_refused and Refused(pull_refused.get("reason"), pull_refused.get("message"))
        self.rows_left = progress[1] if progress and not progress[0] else None
        if progress and progress[0]: self.complete = asked_at
        if progress and "awake" in says(): self.chunk = min(self.chunk * 2, CHUNK_MOST)
        refused = answer.get("pushRefused")
        if refused and replica.sealed: raise Refused(refused.get("reason"), refused.get("message"))
        if replica.sealed and not refused and "awake" not in says():
            raise NotReached("the relay said nothing of the push")


class Awake:
    """One invocation, from wake to sleep. Without sleep its writes go with the next wake."""
    def __init__(self, node, left):
        if hasattr(left, "get_remaining_time_in_millis"): left = left.get_remaining_time_in_millis() / 1000
        self.node, self.wrote = node, False
        self.ends = time.monotonic() + left if left and left > 0 else None

    def __enter__(self): return self
    def __exit__(self, *_): self.sleep().warn_if_unsaved()
    def left(self): return max(0.0, self.ends - time.monotonic()) if self.ends else None
    def next(self): return {"awake": {"remainingMs": int((self.left() or 0) * 1000)}}
    def budget(self): return min(self.node.config["budget"], (self.left() or float("inf")) / 5)
    def counter(self, path): return Counter(self, path, "counter")
    def set(self, path): return Set(self, path, "set")
    def register(self, path): return Register(self, path, "register")
    def flag(self, path): return Flag(self, path, "flag")

    def freshness(self):
        """How much the view can be trusted. `age`: seconds since the view was last complete."""
        node = self.node
        age = node.complete and max(time.monotonic() - node.complete[0], time.time() - node.complete[1])
        if not node.failed and node.rows_left is not None: return Freshness("catching_up", age, node.rows_left, None)
        state = "never" if node.complete is None else "stale" if node.failed else "current"
        return Freshness(state, age, 0, node.failed)

    def require(self, max_age):
        """For code that would rather fail than act on a view older than so many seconds. Raises Stale."""
        now = self.freshness()
        if now.age is None or now.age > max_age: raise Stale(f"the view is {now.age} s old: {now.reason}")

    def take_inbox(self):
        """Messages to this node that nobody has taken yet, in order; each once."""
        arrived, self.node.replica.inbox = list(self.node.replica.inbox), collections.deque()
        return arrived

    def sleep(self):
        """Ends the invocation: pushes what was written and declares sleep, in one round trip as a rule. Never raises."""
        node, replica, error = self.node, self.node.replica, None
        told, idle = replica.told, lambda: not replica.outbox and not replica.sealed
        try: node.converse(self.budget(), lambda: {"asleep": {}}, idle)
        except Exception as broken: error = broken  # what is not saved is kept
        if not idle():
            said = replica.outbox, replica.sealed["said"] if replica.sealed else {}
            waits = sum(len(ops) for it in said for ops in it.values())
            return Slept("unsaved", None, None, waits, error or NotReached("the budget is used up"))
        if replica.told > told:
            return Slept("unsaved", None, None, replica.told - told, Refused("REFUSED", "see node.reports"))
        if not self.wrote: return Slept("nothing", None, None, 0, None)
        return Slept("saved", *(node.last_ack or (replica.head, None)), 0, None)


class Slept(collections.namedtuple("Slept", "state revision durability deltas reason")):
    """How an invocation's writes ended: saved, nothing, or unsaved: kept, and lost if the process is killed."""
    def warn_if_unsaved(self):
        if self.state == "unsaved":
            print(f"dormouse: {self.deltas} writes are not saved: {self.reason}", file=sys.stderr)


class Handle:
    """A key of one type: collection/key. Reads see own writes at once."""
    def __init__(self, awake, path, kind):
        collection, _, name = path.partition("/")
        fits = re.fullmatch(r"[a-z0-9._-]{1,64}", collection) and 1 <= len(name.encode()) <= 512
        if not fits or re.search(r"[\0-\x1f\x7f-\x9f]", name):
            raise WriteError(f"{path!r}: a path is collection/key: 1-64 of [a-z0-9._-], 1-512 bytes without controls")
        self.awake, self.replica, self.key = awake, awake.node.replica, (collection, name, kind)

    def say(self, sub, op):
        self.replica.say(self.key, sub, op)
        self.awake.wrote = True

    def switch(self, sub, on):
        self.say(sub, {"on": on, "ctx": None if on else self.replica.seen_at_call(self.key, sub)})


class Counter(Handle):
    """Additions add up."""
    value = property(lambda self: self.replica.counter(self.key))

    def reached(self, at_least):
        """Known to have reached it; may overshoot by what others have not pushed yet."""
        value = self.value
        return value is not None and value >= at_least

    def add(self, n):
        """Adds n, which may be negative; at most 2^48."""
        if abs(n) > AMOUNT_MAX: raise WriteError(f"an amount is at most 2^48, this one is {n}")
        if n: self.say("", {"amount": n, "once": {}})

    def add_once(self, name, n):
        """Adds n once per id (1-64 bytes), whoever repeats it, also another process; ids are remembered for an hour."""
        if abs(n) > AMOUNT_MAX or not 1 <= len(name.encode()) <= 64:
            raise WriteError("an amount is at most 2^48, an id has 1-64 bytes")
        push = self.replica.sealed
        said = push and not push["void"] and push["said"].get(self.key, {}).get("")
        if not said or name not in said["once"]: self.say("", {"amount": 0, "once": {name: n}})


class Set(Handle):
    """Texts of at most 1 KiB; an add wins over a remove that had not seen it."""
    def contains(self, element): return self.replica.holds(self.key, element)
    def elements(self): return self.replica.elements(self.key)
    def add(self, element): self.change(element, True)
    def remove(self, element): self.change(element, False)

    def change(self, element, on):
        if len(element.encode()) > 1024: raise WriteError("an element is at most 1 KiB")
        self.switch(element, on)


class Register(Handle):
    """The last write; one that saw the winner wins whatever the clocks."""
    def get(self): return plain(self.replica.register(self.key))
    def set(self, value): self.put({"text": dumps(value).decode()})
    def delete(self): self.put(None)

    def put(self, value):
        if value and (size := len(value["text"].encode())) > VALUE_MAX:
            raise WriteError(f"a value is at most {VALUE_MAX} bytes, this one has {size}")
        seen = self.replica.seen_at_call(self.key, "")
        self.say("", {"value": value, "stamp": int(time.time() * 1000), "ctx": seen})


class Flag(Handle):
    """On wins over an off that had not seen it."""
    def is_on(self): return self.replica.holds(self.key, "")
    def on(self): self.switch("", True)
    def off(self): self.switch("", False)
