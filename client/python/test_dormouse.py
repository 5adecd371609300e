"""Tests of dormouse.py: the rules that both small clients share (../rules.json), and a real relay whose binary is named
by DORMOUSE_TEST_RELAY. `cargo test -p dormouse-tests --test clients` builds one and runs this."""
import json, os, random, signal, socket, subprocess, sys, tempfile, threading, time, unittest, urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import dormouse
from dormouse_replica import Replica

RULES = json.loads((Path(__file__).parent.parent / "rules.json").read_text())
SEED = int(os.environ.get("DORMOUSE_TEST_SEED") or random.randrange(1 << 32))


class FakeNode:
    def __init__(self, follow): self.replica, self.complete = Replica(follow), None


class Rules(unittest.TestCase):
    def test_every_rule_that_both_clients_share(self):
        for rule in RULES:
            with self.subTest(rule["name"]): self.play(rule)

    def play(self, rule):
        node = FakeNode(rule.get("follow", ["*"]))
        awake, replica = dormouse.Awake(node, None), node.replica
        write = {"add": lambda at, it: awake.counter(at).add(it["n"]),
                 "once": lambda at, it: awake.counter(at).add_once(it["id"], it["n"]),
                 "insert": lambda at, it: awake.set(at).add(it["element"]),
                 "remove": lambda at, it: awake.set(at).remove(it["element"]),
                 "put": lambda at, it: awake.register(at).set(it["value"]),
                 "on": lambda at, it: awake.flag(at).on(), "off": lambda at, it: awake.flag(at).off()}
        read = {"counter": lambda at: awake.counter(at).value, "set": lambda at: awake.set(at).elements(),
                "register": lambda at: awake.register(at).get(), "flag": lambda at: awake.flag(at).is_on()}
        for step in rule["steps"]:
            verb = next(iter(step))
            if verb in write: write[verb](step[verb], step)
            elif verb == "answer": replica.absorb(step["answer"])
            elif verb == "see": self.assertEqual(read[step["see"]](step["path"]), step["is"], step)
            elif verb == "fates": self.assertEqual([it.fate for it in replica.reports], step["fates"])
            elif verb == "pending": self.assertEqual(bool(replica.sealed or replica.outbox), bool(step["pending"]), step)
            elif verb == "inbox": self.assertEqual([it.message_id for it in awake.take_inbox()], step["inbox"])
            else:
                self.assertEqual(verb, "send")
                replica.seal(step["send"])
                sent = json.loads(dormouse.dumps(replica.outgoing(1 << 20)))
                self.holds(sent, {name: value for name, value in step.items() if name != "send"})

    def holds(self, sent, wanted):
        """Everything that is wanted is there; lists are compared as wholes, whatever the order of removals."""
        for name, value in wanted.items():
            if isinstance(value, dict): self.holds(sent[name], value)
            elif isinstance(value, list) and value and isinstance(value[0], dict):
                self.assertEqual(len(sent[name]), len(value), name)
                order = lambda it: json.dumps(it.get("elements", ""))
                for one, other in zip(sorted(sent[name], key=order), sorted(value, key=order)): self.holds(one, other)
            else: self.assertEqual(sent[name], value, name)

    def test_a_full_outbox_refuses_and_what_coalesces_still_passes(self):
        awake = dormouse.Awake(FakeNode(["*"]), None)
        value = "x" * 200_000
        with self.assertRaises(dormouse.WriteError):
            for nth in range(30): awake.register(f"a/{nth}").set(value)
        awake.register("a/0").set(value)
        self.assertEqual(nth, 20)

    def test_a_push_stays_within_its_bounds_and_the_rest_waits(self):
        node = FakeNode(["*"])
        counted, elements = dormouse.Awake(node, None), dormouse.Awake(node, None).set("a/s")
        for nth in range(1_500): elements.add(str(nth))
        for _ in range(3): counted.counter("a/n").add(1 << 48)
        sent = 0
        while not sent or node.replica.sealed:
            node.replica.seal("AAAAAAAAAAE=")
            push = node.replica.outgoing(1)["push"]
            rows = sum(len(it["set"]["add"]) if "set" in it else 1 for it in push["deltas"])
            self.assertLessEqual(rows, 1_024)
            sent += rows
            as_of = str(10 + sent)
            node.replica.absorb({"pushed": {"pushNo": push["pushNo"], "revision": as_of, "asOf": as_of}})
            node.replica.seal("AAAAAAAAAAI=")
        self.assertEqual(sent, 1_503)

    def test_malformed_writes_and_settings_are_refused(self):
        awake = dormouse.Awake(FakeNode(["*"]), None)
        for path in ("ads", "Ads/a", "ads/", "ads/a\nb", "ads/" + "x" * 513, "@inbox/a"):
            with self.assertRaises(dormouse.WriteError, msg=path): awake.counter(path)
        for write in (lambda: awake.counter("a/n").add((1 << 48) + 1), lambda: awake.counter("a/n").add_once("", 1),
                      lambda: awake.set("a/s").add("x" * 1025), lambda: awake.register("a/r").set("x" * (256 << 10)),
                      lambda: awake.set("a/s").add("\ud800")):
            with self.assertRaises(ValueError): write()
        self.assertEqual(awake.node.replica.outbox, {})
        for env in ({"DORMOUSE_BUDGET_MS": "soon"}, {"DORMOUSE_COLLECTIONS": "Ads"}, {"DORMOUSE_URL": "relay:7400"}, {"K_SERVICE": "ads"}):
            with self.assertRaises(dormouse.ConfigError, msg=env): dormouse.Node(env)

    def test_a_function_says_what_and_where_it_is_and_draws_no_identity_before_it_wakes(self):
        node = dormouse.Node({"DORMOUSE_URL": "http://relay:7400", "AWS_LAMBDA_FUNCTION_NAME": "ads", "AWS_REGION": "eu-west-1",
                              "DORMOUSE_TAGS": "zone=a, region=own", "DORMOUSE_COLLECTIONS": "ads,flags"})
        self.assertEqual((node.config["group"], node.config["follow"]), ("ads", ["ads", "flags"]))
        self.assertEqual(node.config["tags"], {"zone": "a", "region": "own"})
        self.assertIsNone(node.boot_id)


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class Relay:
    """A real relay on ports of its own; killed without warning, and started again."""
    def __init__(self):
        self.dir, self.port, self.admin = tempfile.TemporaryDirectory(), free_port(), free_port()
        self.data = 0
        self.start()

    def start(self):
        env = {name: value for name, value in os.environ.items() if not name.startswith("DORMOUSE_")}
        env.update(DORMOUSE_LISTEN=f"127.0.0.1:{self.port}", DORMOUSE_ADMIN_LISTEN=f"127.0.0.1:{self.admin}",
                   DORMOUSE_DATA_DIR=f"{self.dir.name}/{self.data}", DORMOUSE_LOG="warn")
        self.process = subprocess.Popen([os.environ["DORMOUSE_TEST_RELAY"]], env=env, stdout=subprocess.DEVNULL)
        for _ in range(1_500):
            try: return urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5).close()
            except OSError:
                if self.process.poll() is not None: raise RuntimeError("the relay ended")
                time.sleep(0.02)
        raise RuntimeError("the relay did not become ready")

    def kill(self): self.process.kill(); self.process.wait()
    def close(self): self.kill(); self.dir.cleanup()

    def ask(self, call, message):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/dormouse.v1.{call}", json.dumps(message).encode(),
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer: return json.loads(answer.read())

    def rows(self, path): return self.ask("Mailbox/Read", {"keys": [path]}).get("keys", [])
    def count(self, path): return int(self.rows(path)[0]["counter"]["value"])


class Proxy:
    """Between a function and its relay. `cut(nth)`: whether the answer to the nth request is cut off after the relay has
    given it. freeze(): the connections that are there fall silent, and nobody is told."""
    def __init__(self, relay, cut=lambda nth: False):
        self.relay, self.cut, self.answers, self.connections, self.frozen = relay, cut, 0, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try: client = self.listener.accept()[0]
            except OSError: return
            self.connections += 1
            try: relay = socket.create_connection(("127.0.0.1", self.relay.port), 5)
            except OSError: client.close(); continue
            relay.settimeout(None)
            for it in (client, relay): it.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for way in ((client, relay, False), (relay, client, True)):
                threading.Thread(target=self.carry, args=(*way, self.connections), daemon=True).start()

    def carry(self, source, sink, is_answer, number):
        try:
            while piece := source.recv(1 << 16):
                if number <= self.frozen: continue
                if is_answer:
                    self.answers += 1
                    if self.cut(self.answers): break
                sink.sendall(piece)
        except OSError: pass
        if number <= self.frozen: return
        for it in (source, sink):
            try: it.shutdown(socket.SHUT_RDWR)
            except OSError: pass
        source.close()

    def freeze(self): self.frozen = self.connections
    def close(self): self.listener.close()


@unittest.skipUnless(os.environ.get("DORMOUSE_TEST_RELAY"), "DORMOUSE_TEST_RELAY names no relay")
class Calls(unittest.TestCase):
    def setUp(self):
        self.relay = Relay()
        self.addCleanup(self.relay.close)

    def node(self, proxy=None, **env):
        url = proxy.url if proxy else f"http://127.0.0.1:{self.relay.port}"
        node = dormouse.Node({"DORMOUSE_URL": url, "DORMOUSE_GROUP": "small", "DORMOUSE_BUDGET_MS": "5000", **env})
        self.addCleanup(node.line.close)
        return node

    def proxy(self, *cut):
        proxy = Proxy(self.relay, *cut)
        self.addCleanup(proxy.close)
        return proxy

    def wake(self, node):
        """Awake with a complete view; answers may have been lost on the way."""
        for _ in range(50):
            awake = node.wake(60)
            if awake.freshness().state == "current": return awake
        self.fail(f"{awake.freshness()}, seed {SEED}")

    def save(self, awake):
        for _ in range(50):
            if awake.sleep().state != "unsaved": return
        self.fail(f"never saved, seed {SEED}")

    def test_two_clients_converge(self):
        a, b = self.node(), self.node()
        awake = self.wake(a)
        awake.counter("ads/shown").add(3)
        awake.set("carts/é 1").add("apple \"\\ ü")
        awake.register("cfg/x").set({"deep": [1, None, "é"]})
        awake.flag("ops/paused").on()
        self.assertEqual(awake.sleep()[0::2], ("saved", "FSYNC", None))
        awake = self.wake(b)
        self.assertEqual(awake.counter("ads/shown").value, 3)
        self.assertEqual(awake.set("carts/é 1").elements(), ["apple \"\\ ü"])
        self.assertEqual(awake.register("cfg/x").get(), {"deep": [1, None, "é"]})
        self.assertTrue(awake.flag("ops/paused").is_on())
        self.assertFalse(awake.counter("ads/shown").reached(4))
        awake.counter("ads/shown").add(-1)
        awake.register("cfg/x").delete()
        awake.flag("ops/paused").off()
        awake.sleep()
        awake = self.wake(a)
        seen = awake.counter("ads/shown").value, awake.register("cfg/x").get(), awake.flag("ops/paused").is_on()
        self.assertEqual(seen, (2, None, False))
        self.assertEqual(awake.sleep().state, "nothing")
        states = self.relay.ask("Membership/CountMembers", {"groupBy": ["state"]})["counts"]
        self.assertEqual([(it["by"]["state"], it["members"]) for it in states], [("ASLEEP", "2")])

    def test_an_add_wins_over_a_remove_that_had_not_seen_it(self):
        a, b = self.node(), self.node()
        awake = self.wake(a)
        awake.set("carts/1").add("apple")
        awake.set("carts/1").add("pear")
        awake.sleep()
        of_a, of_b = self.wake(a), self.wake(b)
        of_b.set("carts/1").remove("apple")
        of_b.set("carts/1").remove("pear")
        of_a.set("carts/1").add("apple")
        of_a.sleep(), of_b.sleep()
        for node in (a, b): self.assertEqual(self.wake(node).set("carts/1").elements(), ["apple"])

    def test_a_remove_after_an_own_add_whose_answer_was_lost_removes_it(self):
        lost = set()
        proxy = self.proxy(lambda nth: nth in lost)
        node = self.node(proxy)
        awake = self.wake(node)
        awake.set("carts/1").add("apple")
        lost.update((proxy.answers + 1, proxy.answers + 2))
        self.assertEqual(awake.sleep().state, "unsaved")
        self.assertEqual(self.rows_of_set(), ["apple"])
        awake.set("carts/1").remove("apple")
        self.assertEqual(awake.set("carts/1").elements(), [])
        self.save(awake)
        self.assertEqual(self.rows_of_set(), [])

    def rows_of_set(self):
        rows = self.relay.rows("carts/1")
        return rows[0]["set"].get("present", []) if rows else []

    def test_increments_whose_answers_are_lost_count_once(self):
        chance = random.Random(SEED)
        proxy = self.proxy(lambda nth: chance.random() < 0.5)
        node, cut = self.node(proxy), 40
        for nth in range(cut):
            awake = node.wake(60)
            awake.counter("ads/shown").add(1)
            awake.counter("ads/once").add_once(f"request-{nth // 2}", 1)
            awake.sleep()
        self.save(node.wake(60))
        self.assertGreater(proxy.connections, 10)
        self.assertEqual((self.relay.count("ads/shown"), self.relay.count("ads/once")), (cut, cut // 2), f"seed {SEED}")
        awake = self.wake(node)
        self.assertEqual(awake.counter("ads/shown").value, cut, f"seed {SEED}")
        self.assertEqual(list(node.reports), [])

    def test_a_relay_that_is_killed_between_wake_and_sleep_loses_nothing(self):
        node = self.node()
        awake = self.wake(node)
        awake.counter("ads/shown").add(1)
        self.assertEqual(awake.sleep().state, "saved")
        awake = self.wake(node)
        awake.counter("ads/shown").add(1)
        self.relay.kill()
        self.relay.start()
        self.assertEqual(awake.sleep().state, "saved")
        self.assertEqual(self.relay.count("ads/shown"), 2)

    def test_without_a_relay_a_function_runs_on_what_it_knows(self):
        node, new = self.node(DORMOUSE_BUDGET_MS="300"), self.node(DORMOUSE_BUDGET_MS="300")
        awake = self.wake(node)
        awake.counter("ads/shown").add(5)
        awake.sleep()
        self.relay.kill()
        awake = node.wake(60)
        self.assertEqual((awake.freshness().state, awake.counter("ads/shown").value), ("stale", 5))
        self.assertIsInstance(awake.freshness().reason, dormouse.NotReached)
        awake.counter("ads/shown").add(1)
        slept = awake.sleep()
        self.assertEqual((slept.state, slept.deltas), ("unsaved", 1))
        awake.require(3600)
        nothing = new.wake()
        self.assertEqual((nothing.freshness().state, nothing.counter("ads/shown").value), ("never", None))
        with self.assertRaises(dormouse.Stale): nothing.require(3600)
        self.relay.start()
        self.assertEqual(self.wake(node).counter("ads/shown").value, 6)
        self.assertEqual(self.relay.count("ads/shown"), 6)

    def test_a_kept_connection_that_fell_silent_is_replaced(self):
        proxy = self.proxy()
        node = self.node(proxy)
        self.save(self.wake(node))
        self.assertEqual(proxy.connections, 1)
        proxy.freeze()
        began = time.monotonic()
        self.assertEqual(node.wake(60).freshness().state, "current")
        self.assertEqual(proxy.connections, 2)
        self.assertLess(time.monotonic() - began, 2.5, "half of the budget: the first attempt had a short one")

    def test_a_wiped_log_is_noticed_and_what_waits_goes_to_the_new_one(self):
        node = self.node()
        awake = self.wake(node)
        awake.set("carts/1").add("old")
        self.save(awake)
        self.relay.kill()
        self.relay.data = 1
        self.relay.start()
        awake = node.wake(60)
        awake.set("carts/1").add("new")
        self.save(awake)
        self.assertEqual(self.wake(node).set("carts/1").elements(), ["new"])
        self.assertEqual(self.rows_of_set(), ["new"])

    def test_a_backlog_of_several_chunks_is_pulled_in_one_wake(self):
        writer, reader = self.node(), self.node()
        awake = self.wake(writer)
        names = [f"{nth:05}-" + "x" * 600 for nth in range(3_000)]
        for name in names: awake.set("carts/1").add(name)
        self.save(awake)
        awake = reader.wake(600)
        self.assertEqual(awake.freshness().state, "current")
        self.assertEqual(awake.set("carts/1").elements(), names)
        self.assertGreater(reader.beat, 1)

    def test_a_refused_write_is_told(self):
        node = self.node()
        awake = self.wake(node)
        awake.node.replica.say(("Bad", "key", "counter"), "", {"amount": 1, "once": {}})  # past the handle's own check
        awake.counter("ads/shown").add(1)
        slept = awake.sleep()
        self.assertEqual((slept.state, [it.path for it in node.reports], node.reports[0].reason), ("unsaved", ["Bad/key"], "FIELD_INVALID"))
        self.assertEqual(self.relay.count("ads/shown"), 1)

    def test_a_message_arrives_with_the_next_wake_once(self):
        node = self.node()
        self.save(self.wake(node))
        send = {"nodeId": node.replica.node[0], "messageId": "m", "sender": "me", "payload": {"text": "[1]"}}
        self.relay.ask("Mailbox/Send", send)
        awake = self.wake(node)
        self.assertEqual([it[1:] for it in awake.take_inbox()], [("m", "me", [1])])
        self.assertEqual(awake.take_inbox() + self.wake(node).take_inbox(), [])

    def test_random_histories_over_a_line_that_loses_answers_converge(self):
        chance = random.Random(SEED)
        proxies = [self.proxy(lambda nth: chance.random() < 0.25) for _ in range(3)]
        nodes, total = [self.node(it) for it in proxies], 0
        for _ in range(60):
            awake = chance.choice(nodes).wake(60)
            for _ in range(chance.randrange(4)):
                what, name = chance.randrange(7), f"all/{chance.randrange(3)}"
                if what == 0: n = chance.randrange(-3, 9); awake.counter("all/sum").add(n); total += n
                elif what <= 2: awake.set(name).add(chance.choice("abc"))
                elif what <= 4: awake.set(name).remove(chance.choice("abc"))
                elif what == 5: awake.register(name).set(chance.randrange(100))
                else: chance.choice([awake.flag(name).on, awake.flag(name).off])()
            if chance.random() < 0.8: awake.sleep()
        for node in nodes: self.save(node.wake(60))
        def view(awake): return [(awake.set(it).elements(), awake.register(it).get(), awake.flag(it).is_on())
                                 for it in ("all/0", "all/1", "all/2")] + [awake.counter("all/sum").value]
        views = [view(self.wake(it)) for it in [*nodes, self.node()]]
        self.assertEqual(views, [views[-1]] * 4, f"seed {SEED}")
        self.assertEqual(views[-1][-1], total, f"seed {SEED}")
        self.assertEqual([list(it.reports) for it in nodes], [[]] * 3, f"seed {SEED}")

    def test_the_example_handler_counts_each_request_once(self):
        os.environ.update(DORMOUSE_URL=f"http://127.0.0.1:{self.relay.port}", DORMOUSE_BUDGET_MS="5000")
        self.addCleanup(lambda: [os.environ.pop(it) for it in ("DORMOUSE_URL", "DORMOUSE_BUDGET_MS")])
        import example_handler
        self.addCleanup(example_handler.node.line.close)
        class Context:
            def __init__(self, name): self.aws_request_id = name
            def get_remaining_time_in_millis(self): return 60_000
        answers = [example_handler.handler({}, Context(name)) for name in ("one", "two", "two")]
        self.assertEqual(answers, [{"show": True, "view": "current"}] * 3)
        self.assertEqual(self.relay.count("ads/shown"), 2)


if __name__ == "__main__":
    print(f"seed {SEED}: DORMOUSE_TEST_SEED={SEED} plays it again", file=sys.stderr)
    unittest.main()
