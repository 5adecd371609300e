"""What a node holds between two round trips: rows, its own writes, and how far it has come. Pure: no I/O, no clock, no
randomness. The rules are those of the Rust client (client/src/replica), for counters, sets, registers and flags.

A row is shown as it was last received, with every own write on top that it may not contain yet: what waits, and the one
sealed push unless the row's context shows that it was read after the push was bound. One push is under way at a time;
its number, id and deltas never change. Nothing is dropped without a report.
"""
import collections, json, re
from base64 import b64decode

OUTBOX, PUSH_ROWS, PUSH_BYTES, AMOUNT_MAX, ONCE_MAX = 4 << 20, 1_024, 1_000_000, 1 << 48, 1_000
OPEN = "open"  # a context that is taken when the push is sealed: an own delta of that row is under way
LATER = {"BUSY", "STARTING", "BEHIND", "LOG_UNREACHABLE", "STORE_FULL"}
Message = collections.namedtuple("Message", "revision message_id sender payload")
Report = collections.namedtuple("Report", "path kind element said fate reason")  # fate: dropped, unknown, repeated


class WriteError(ValueError): """A write was not taken; nothing has changed. Never because of the network."""


def dumps(value): return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
def number(message, name): return int(message.get(name, 0))


class Replica:
    """rows: {(collection, key, kind): {element: [as_of, pull, state]}}; outbox and sealed["said"] have the same shape and
    hold what was said. The element of what is no set is "". One push is under way; its number, id and deltas never change.
    """
    def __init__(self, follow):
        self.follow, self.all, self.node = follow, "*" in follow, None
        self.rows, self.pulls, self.restarted, self.dead = {}, collections.Counter(), set(), {}
        self.barriers, self.barrier_of_all = collections.Counter(), 0
        self.outbox, self.bytes, self.sealed, self.push_no = {}, 0, None, 0
        self.token, self.head, self.acked, self.held_since, self.asked_with_acked = "", 0, [], 0, False
        self.reports, self.told, self.inbox = collections.deque(maxlen=1_024), 0, collections.deque()
        self.delivered, self.ids = 0, collections.OrderedDict()

    def covers(self, name): return self.all or name in self.follow
    def barrier(self, name): return max(self.barriers[name], self.barrier_of_all) if self.covers(name) else 0
    def row(self, key, sub): return self.rows.get(key, {}).get(sub)

    def context(self, key, sub):
        """The revision at which a row is seen; None: not followed, whatever is there counts."""
        row = self.row(key, sub)
        return max(row[0] if row else 0, self.barrier(key[0])) if self.covers(key[0]) else None

    def under_way(self, key, sub):
        """What the sealed push says of a row that may lack it."""
        push = self.sealed
        if not push or push["void"]: return None
        bound, seen = push["bound"], self.context(key, sub)
        return push["said"].get(key, {}).get(sub) if bound is None or seen is None or seen < bound else None

    def own(self, key, sub):
        """Own words on a row, newest first."""
        said = self.outbox.get(key, {}).get(sub), self.under_way(key, sub)
        return [it for it in said if it] if self.covers(key[0]) else []

    def read(self, key, sub, nothing, of):
        """A row with own words on it; None: nothing is known."""
        row, own = self.row(key, sub), self.own(key, sub)
        if row is None and not own and not self.barrier(key[0]): return None
        return of(row[2] if row else nothing, own)

    def counter(self, key):
        said = lambda own: sum(it["amount"] + sum(it["once"].values()) for it in own)
        return self.read(key, "", 0, lambda held, own: held + said(own))

    def holds(self, key, sub): return self.read(key, sub, False, lambda held, own: own[0]["on"] if own else held)
    def register(self, key): return self.read(key, "", None, lambda held, own: own[0]["value"] if own else held)

    def elements(self, key):
        said = [self.outbox, self.sealed["said"] if self.sealed else {}, self.rows]
        names = {name for it in said for name in it.get(key, {})}
        found = sorted(name for name in names if self.holds(key, name))
        return found if found or self.barrier(key[0]) or self.rows.get(key) else None

    # Writes.
    def seen_at_call(self, key, sub):
        return OPEN if self.sealed and sub in self.sealed["said"].get(key, {}) else self.context(key, sub)

    def say(self, key, sub, op):
        before = self.outbox.get(key, {}).get(sub)
        grown = (0 if key in self.outbox else name_cost(key)) + cost(key, sub, op)
        if before: grown -= cost(key, sub, before) if key[2] != "counter" else cost(key, sub, {**op, "once": {}})
        waiting = self.bytes + (self.sealed["bytes"] if self.sealed else 0)
        if grown > 0 and waiting + grown > OUTBOX:
            raise WriteError(f"the outbox is full: {waiting} bytes wait, this needs {grown} more, the limit is {OUTBOX}")
        merge(self.outbox, key, sub, op)
        self.bytes += grown

    def put_back(self, earlier):
        """Puts in front what was said before all of what waits."""
        for key, ops in self.outbox.items():
            for sub, op in ops.items(): merge(earlier, key, sub, op)
        self.outbox = {key: ops for key, ops in earlier.items() if ops}
        self.bytes = bytes_of(self.outbox)

    def seal(self, push_id):
        """Seals what waits, the oldest first, as far as it fits into one push. Never before the process may be cloned."""
        if self.sealed: return
        said, rest, rows, room = {}, {}, PUSH_ROWS, PUSH_BYTES
        for key, ops in self.outbox.items():
            for sub, op in ops.items():
                part, later = split(key, op)
                price = cost(key, sub, part) + (0 if key in said else name_cost(key))
                if rows and price <= room:
                    rows, room = rows - 1, room - price
                    if part.get("ctx") == OPEN: part["ctx"] = self.context(key, sub)
                    if part.get("amount") != 0 or part["once"]: said.setdefault(key, {})[sub] = part
                else: later = op
                if later: rest.setdefault(key, {})[sub] = later
        self.outbox, self.bytes = rest, bytes_of(rest)
        if said:
            self.push_no += 1
            deltas = [delta(key, ops) for key, ops in said.items()]
            self.sealed = {"no": self.push_no, "id": push_id, "said": said, "deltas": deltas, "bytes": bytes_of(said),
                           "sent": 0, "bound": None, "void": False}

    def outgoing(self, max_bytes):
        """Push, pull and head of one transmission; to be called for each, retries too."""
        self.asked_with_acked, push = bool(self.acked), self.sealed
        pull = {"token": self.token, "collections": self.follow, "acked": [str(it) for it in self.acked],
                "maxBytes": max_bytes, "heldSince": str(0 if self.token else self.held_since)}
        request = {"pull": pull, "head": str(self.head)}
        if push:
            push["sent"] += 1
            request["push"] = {"pushNo": str(push["no"]), "pushId": push["id"], "deltas": push["deltas"],
                               "retried": push["sent"] > 1}
        return request

    # Answers.
    def absorb(self, answer):
        """Takes an answer in, in the order that the rules ask for. Returns (caught_up, rows_left) of a chunk, or None."""
        refused, chunk, fate = answer.get("pushRefused"), answer.get("chunk"), answer.get("settled")
        if refused and verdict(refused) == "OUTCOME_UNKNOWN":  # a matter of the old identity
            self.refuse(refused); refused = None
        if answer.get("lease", {}).get("nodeId"): self.take_lease(answer["lease"])
        if "pushed" in answer: self.take_ack(answer["pushed"])
        if refused: self.refuse(refused)
        lost = bool(chunk) and chunk.get("restart") == "LOST"
        if fate and not lost: self.settle(fate)
        progress = self.take_chunk(chunk) if chunk is not None else None
        if fate and lost: self.settle(fate)  # it is of the history that is left
        return progress

    def take_lease(self, lease):
        before, self.node = self.node, (lease["nodeId"], str(lease.get("incarnation", 0)))
        push, admission = self.sealed, lease.get("admission")
        if not push or not before: return
        if admission == "FORKED": self.sealed = None; self.put_back(push["said"])  # certainly not bound
        elif admission == "FORGOTTEN" or before[0] != self.node[0]:
            self.sealed = None
            if push["sent"] > 1 and not push["void"]: self.at_risk(push)
            else: self.put_back(push["said"])

    def at_risk(self, push):
        """Bound or not, nobody knows: what says the same however often is said again, plain amounts never."""
        for key, ops in push["said"].items():
            for sub, op in ops.items(): self.report(key, sub, op, "unknown" if key[2] == "counter" else "repeated", "")
        self.put_back({key: ops for key, ops in push["said"].items() if key[2] != "counter"})

    def report(self, key, sub, op, fate, reason):
        self.told += 1
        self.reports.append(Report(f"{key[0]}/{key[1]}", key[2], sub, op, fate, reason))

    def take_ack(self, ack):
        push = self.sealed
        if not push or push["no"] != number(ack, "pushNo"): return
        self.sealed, as_of = None, number(ack, "asOf")
        self.hold(as_of, (asked for it in push["said"].items() for asked in asked_for(*it)))
        self.hold(as_of, rows_of(ack.get("keys", ())))  # what differs from what was asked for comes second
        if len(self.acked) < 1_024: self.acked.append(number(ack, "revision"))
        self.head = max(self.head, as_of)

    def hold(self, as_of, rows):
        """Rows beside the backlog: before the first chunk a relay must learn how old the oldest of them is."""
        rows = [it for it in rows if self.covers(it[0][0])]
        if rows and not self.token: self.held_since = min(self.held_since or as_of, as_of)
        self.put(as_of, rows)

    def put(self, as_of, rows):
        for key, sub, state in rows:
            if not self.covers(key[0]): continue
            pull, held = self.pulls[key[0]], self.rows.setdefault(key, {})
            if sub not in held or as_of >= held[sub][0]: held[sub] = [as_of, pull, state]
            else: held[sub][1] = pull
            if state is None or state is False: self.dead.setdefault(key[0], []).append((key, sub))

    def settle(self, fate):
        """The fate of the last push; before the rows of the same answer become visible."""
        push, bound = self.sealed, None if fate.get("refused") else number(fate, "revision")
        self.head = max(self.head, bound or 0)
        if push and push["no"] == number(fate, "pushNo") and push["id"] == fate.get("pushId"):
            push["bound"], push["void"] = bound, bound is None
        self.settle_what_arrived()

    def settle_what_arrived(self):
        """A cursor beyond the push would not do: its row may have moved up and still be on its way."""
        push = self.sealed
        if push and push["bound"] is not None and all(self.barrier(key[0]) >= push["bound"] for key in push["said"]):
            self.sealed = None

    def refuse(self, refusal):
        word, push = verdict(refusal), self.sealed
        if word == "LATER" or not push: return
        self.sealed = None
        if word == "OUTCOME_UNKNOWN": return self.at_risk(push)
        fields = [re.search(r"deltas\[(\d+)]", it.get("field", "")) for it in refusal.get("violations", ())]
        named, kept = {int(it[1]) for it in fields if it}, {}
        for nth, (key, ops) in enumerate(push["said"].items()):
            left = {sub: without_context(key, op) if word == "STALE" else None for sub, op in ops.items()}
            if named and nth not in named: left = ops
            elif named and left == ops: left = {}
            for sub, op in ops.items():
                if left.get(sub): kept.setdefault(key, {})[sub] = left[sub]
                else: self.report(key, sub, op, "dropped", refusal.get("reason"))
        if kept == push["said"]:  # the same once more would be refused for ever
            for key, ops in kept.items():
                for sub, op in ops.items(): self.report(key, sub, op, "dropped", refusal.get("reason"))
            kept = {}
        self.put_back(kept)

    def take_chunk(self, chunk):
        as_of, restart = number(chunk, "asOf"), chunk.get("restart")
        behind = (False, number(chunk, "rowsLeft"))
        if restart:
            names = set(chunk.get("restarted", ())) if restart == "COMPACTED" else set()
            for name in {key[0] for key in self.rows if not names or key[0] in names}:
                self.pulls[name] += 1; self.restarted.add(name)
            if restart == "LOST": self.lose_history(as_of)
            if self.asked_with_acked or self.acked:  # rows were left out: ask once more, with nothing acknowledged
                self.acked, self.head = [], max(self.head, as_of)
                if restart == "LOST": self.token, self.held_since = "", 0
                return behind
        self.token, self.head = chunk.get("token", ""), max(self.head, as_of)
        self.put(as_of, rows_of(chunk.get("keys", ())))
        for it in chunk.get("inbox", ()): self.take_message(it)
        if chunk.get("caughtUp"):
            if self.all: self.barrier_of_all = max(self.barrier_of_all, as_of)
            for name in {*self.follow, *self.restarted, *self.dead} - {"*"}: self.reach(name, as_of)
            self.acked = [it for it in self.acked if it > as_of]
        else:
            for name in chunk.get("caughtUpIn", ()): self.reach(name, as_of)
        self.settle_what_arrived()
        return (True, 0) if chunk.get("caughtUp") else behind

    def reach(self, name, at):
        """The collection is known as a whole: what a restarted pull has not delivered is gone, and so is what is dead."""
        self.barriers[name] = max(self.barriers[name], at)
        is_dead = lambda row: row is not None and (row[2] is None or row[2] is False)
        gone = {it for it in self.dead.pop(name, ()) if is_dead(self.row(*it))}
        if name in self.restarted:
            self.restarted.discard(name)
            gone |= {(key, sub) for key, subs in self.rows.items() if key[0] == name
                     for sub, row in subs.items() if row[1] != self.pulls[name]}
        for key, sub in gone:
            if self.row(key, sub)[0] <= at: del self.rows[key][sub]
            if not self.rows[key]: del self.rows[key]

    def lose_history(self, answered_at):
        """What is held may be of a history that the log has lost: it is shown on, and is no context any more."""
        self.head, self.barrier_of_all, self.delivered = answered_at, 0, 0
        self.barriers.clear()
        for row in (row for subs in self.rows.values() for row in subs.values()): row[0] = 0
        if self.sealed: self.sealed["bound"], self.sealed["void"] = None, False
        for key, ops in list(self.outbox.items()):
            for sub, op in list(ops.items()):
                if op.get("ctx") is not None and not op.get("on", True):
                    self.report(key, sub, ops.pop(sub), "dropped", "LOST")
                elif op.get("ctx") not in (None, OPEN): op["ctx"] = 0
        self.put_back({})

    def take_message(self, it):
        revision, name = number(it, "revision"), it.get("messageId", "")
        if revision <= self.delivered or name in self.ids: return
        self.delivered, self.ids[name] = revision, None
        if len(self.ids) > 1_024: self.ids.popitem(last=False)
        self.inbox.append(Message(revision, name, it.get("sender", ""), plain(it.get("payload"))))


def name_cost(key): return 24 + len(dumps(key[0])) + len(dumps(key[1]))


def cost(key, sub, op):
    """An upper bound of what a word takes in a request."""
    if key[2] == "counter": return 48 + sum(24 + len(dumps(name)) for name in op["once"])
    return 24 + len(dumps(sub)) + (24 + len(dumps(op["value"])) if "value" in op else 0)


def bytes_of(said):
    return sum(name_cost(key) + sum(cost(key, *it) for it in ops.items()) for key, ops in said.items())


def merge(said, key, sub, op):
    """Says something more of a row: amounts add up, everything else is replaced."""
    before = said.setdefault(key, {}).get(sub)
    if before and key[2] == "counter":
        before["amount"] += op["amount"]
        for name, amount in op["once"].items(): before["once"].setdefault(name, amount)
    else: said[key][sub] = op


def split(key, op):
    """What one push may say of a row, and what is left."""
    if key[2] != "counter": return op, None
    amount, once = max(-AMOUNT_MAX, min(AMOUNT_MAX, op["amount"])), list(op["once"].items())
    later = {"amount": op["amount"] - amount, "once": dict(once[ONCE_MAX:])}
    return {"amount": amount, "once": dict(once[:ONCE_MAX])}, later if later["amount"] or later["once"] else None


def without_context(key, op):
    """What can be said again although the history behind its context was collected."""
    if "value" in op: return {**op, "ctx": 0} if op["ctx"] != 0 else None
    return op if op.get("on", True) else None


def delta(key, ops):
    """The wire form of what was said of one key and type."""
    collection, name, kind = key
    op, seen = ops.get("", {}), lambda it: {} if it.get("ctx") is None else {"asOf": str(it["ctx"])}
    if kind == "counter":
        once = [{"id": it, "amount": str(amount)} for it, amount in op["once"].items()]
        change = {"add" if op["amount"] >= 0 else "subtract": str(abs(op["amount"])), "once": once}
    elif kind == "set":
        contexts = {it["ctx"] for it in ops.values() if not it["on"]}
        removed = lambda ctx: [sub for sub, it in ops.items() if not it["on"] and it["ctx"] == ctx]
        change = {"add": [sub for sub, it in ops.items() if it["on"]],
                  "remove": [{"elements": removed(ctx), **seen({"ctx": ctx})} for ctx in contexts]}
    elif kind == "flag": change = {"on": op["on"], **seen(op)}
    else: change = {"stampMs": str(op["stamp"]), **({"value": op["value"]} if op["value"] else {}), **seen(op)}
    return {"collection": collection, "key": name, kind: change}


def asked_for(key, ops):
    """The rows that an acknowledgement leaves out because they are what was asked for; counters it always names."""
    state = lambda op: op["value"] if key[2] == "register" else op["on"]
    return [(key, sub, state(op)) for sub, op in ops.items()] if key[2] != "counter" else []


def rows_of(states):
    """(key, element, state) of each row; types that this file does not know are skipped."""
    for it in states:
        name = it.get("collection", ""), it.get("key", "")
        if "counter" in it: yield (*name, "counter"), "", number(it["counter"], "value")
        if "flag" in it: yield (*name, "flag"), "", it["flag"].get("on", False)
        if "register" in it: yield (*name, "register"), "", it["register"].get("value") or None
        for side, is_there in (("present", True), ("removed", False)):
            for element in it.get("set", {}).get(side, ()): yield (*name, "set"), element, is_there


def verdict(refusal):
    """STALE, OUTCOME_UNKNOWN, INVALID: decided; LATER: the same push may be sent again."""
    word = refusal.get("reason", "")
    if word in ("STALE", "OUTCOME_UNKNOWN"): return word
    decided = word == "QUOTA" or (word not in LATER and refusal.get("code") in (3, 9, 11))
    return "INVALID" if decided else "LATER"


def plain(value):
    """The content of a wire value: bytes, or what its text says in JSON, or the text itself."""
    if not value: return None
    if "data" in value: return b64decode(value["data"])
    try: return json.loads(value.get("text", ""))
    except ValueError: return value.get("text")
