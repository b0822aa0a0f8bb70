"""HTTP end to end: what clients and functions say to each other passes gateway and agent unchanged where it should,
and is refused where two readers could take it differently.  The function is davit-probe, which behaves on demand."""
import base64
import concurrent.futures
import json
import os
import shutil
import socket
import subprocess
import threading
import time

from cluster import BIN, Cluster, run
from scenario import Skip, equal, main, scenario, wait_until
from wire import Bad, Wire, chunked

PROBE = "davit/probe:test"
MIB = 1 << 20
cluster = None


def up():
    global cluster
    cluster = Cluster(nodes=1)
    run("tar", "-C", BIN, "-cf", f"{cluster.directory}/probe.tar", "davit-probe")
    cluster.up()
    cluster.nodes[0].engine.import_image(f"{cluster.directory}/probe.tar", PROBE, ["/davit-probe"])
    for name, spec in (("probe", {"timeout": "30s", "scale": {"min": 1, "max": 1, "concurrency": 200}}),
                       ("hasty", {"timeout": "400ms", "scale": {"min": 1, "max": 1, "concurrency": 1}})):
        cluster.deploy(name, image=PROBE, **spec)
    for name in ("probe", "hasty"):
        wait_until(f"{name} is ready", lambda: cluster.describe(name)["status"]["ready"] == 1, 20)


def wire(timeout=20):
    return Wire(cluster.address, 8080, timeout)


def at(path, function="probe"):
    return f"/function/{function}{path}"


def one(method, path, *fields, body=None, function="probe"):
    """A request on a connection of its own."""
    with wire() as w:
        w.request(method, at(path, function), *fields, body=body)
        return w.reply(method)


def seen():
    return json.loads(one("GET", "/seen").body)


def fnv_of_zeros(n):
    return 2166136261 * pow(16777619, n, 1 << 32) % (1 << 32)


def problem(reply, status, code, hop):
    equal(reply.status, status, f"status of {reply}")
    equal(reply.get("content-type"), "application/problem+json")
    told = json.loads(reply.body)
    equal((told["status"], told["code"], told["hop"]), (status, code, hop), f"what {told} says")
    assert told["detail"] and reply.get("x-call-id") == told["call_id"], told
    return told


# ---- bodies, both ways

@scenario
def bodies_with_a_length_come_back_whole_on_one_connection():
    with wire() as w:
        for size in (0, 1, 4095, 16383, 16384, 16385, 65535, 65536, 300000, 3 * MIB):
            body = os.urandom(size)
            w.request("POST", at("/echo"), body=body)
            r = w.reply()
            equal((r.status, r.framing, len(r.body)), (200, "length", size))
            assert r.body == body, f"another body of {size} bytes came back"


@scenario
def chunked_bodies_come_back_whole_and_chunked():
    with wire() as w:
        for pieces in ([], [b"x"], [b"a" * n for n in (1, 15, 16, 4096, 70000)], [os.urandom(50000) for _ in range(40)]):
            w.request("POST", at("/echo"), "Transfer-Encoding: chunked")
            threading.Thread(target=w.send, args=(chunked(*pieces),), daemon=True).start()
            r = w.reply()
            equal((r.status, r.framing, len(r.body)), (200, "chunked", sum(map(len, pieces))))
            assert r.body == b"".join(pieces), "another body came back"


@scenario
def chunks_cut_at_every_byte_arrive():
    body = chunked(b"hello", b" ", b"world", trailers="X-End: yes\r\n")
    with wire() as w:
        w.request("POST", at("/trailers"), "Transfer-Encoding: chunked")
        for i in range(len(body)):
            w.send(body[i:i + 1])
            if i % 8 == 0:
                time.sleep(0.001)
        r = w.reply()
        equal((r.status, r.text), (200, "X-End: yes\r\n"), "the request's trailers")
        equal(dict(r.trailers)["x-bytes"], "11")


@scenario
def trailers_pass_both_ways():
    with wire() as w:
        w.request("POST", at("/trailers"), "Transfer-Encoding: chunked", "TE: trailers", "Trailer: X-One")
        w.send(chunked(b"body", trailers="X-One: 1\r\nX-Two: zwei, drei\r\n"))
        r = w.reply()
        equal(r.text, "X-One: 1\r\nX-Two: zwei, drei\r\n")
        equal([n for n, _ in r.trailers], ["x-sum", "x-bytes"])
        w.request("GET", at("/chunked"))  # the connection is in step
        equal(w.reply().status, 200)


@scenario
def chunk_extensions_are_dropped_on_the_way_in_both_directions():
    with wire() as w:
        w.request("GET", at("/chunked?n=4&ext=1"))
        equal(w.reply().text, "----------")
        w.request("POST", at("/echo"), "Transfer-Encoding: chunked")
        w.send(b'5;a=b;c="d e"\r\nhello\r\n0;last\r\n\r\n')
        equal(w.reply().text, "hello")


@scenario
def answers_without_a_length_arrive_whole_and_the_clients_connection_lives_on():
    with wire() as w:
        for minor in (0, 1):
            w.request("GET", at(f"/close?minor={minor}"))
            r = w.reply()
            equal((r.status, r.framing, r.text), (200, "chunked", "until the connection ends\n"))


@scenario
def both_directions_stream_at_once():
    size, back = 24 * MIB, 0
    piece = os.urandom(MIB)
    with wire() as w:
        w.request("POST", at("/echo"), f"Content-Length: {size}")
        sender = threading.Thread(target=lambda: [w.send(piece) for _ in range(size // MIB)], daemon=True)
        sender.start()
        r = w.start()
        equal((r.status, r.framing), (200, "length"))
        while back < size:
            assert w.take(MIB) == piece, f"bytes differ after {back}"
            back += MIB
        sender.join(5)


@scenario
def a_body_waits_with_its_client_until_there_is_a_replica():
    cluster.deploy("asleep", image=PROBE)
    size = 6 * MIB
    with wire() as w:
        w.request("POST", at("/sum", "asleep"), "Transfer-Encoding: chunked", "Expect: 100-continue")
        equal(w.head().status, 100)
        w.send(chunked(*[bytes(MIB)] * 6))
        equal(json.loads(w.reply().body), {"bytes": size, "sum": fnv_of_zeros(size)})
    cluster.remove("asleep")


# ---- back-pressure

def judge_memory(grown, limit, pid):
    """Of a sanitizer's build, known by its address space, nothing is asked: it keeps what was freed."""
    print("grown by", grown, "KiB")
    if memory_kb(pid, "VmSize") < 1 << 30:
        assert max(grown) <= limit, f"memory of gateway and agent grew by {grown} KiB, more than {limit}"


def memory_kb(pid, what):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(what + ":"))


class Memory:
    """The most that gateway and agent held above what they held at the start."""

    def __init__(self):
        self.pids = {"gateway": cluster.orchestrator.pid, "agent": cluster.nodes[0].agent.pid}
        self.before = {n: memory_kb(p, "VmRSS") for n, p in self.pids.items()}
        self.most = dict(self.before)
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self.ending.wait(0.01):
            for n, p in self.pids.items():
                self.most[n] = max(self.most[n], memory_kb(p, "VmRSS"))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *exc):
        self.ending.set()
        self.thread.join()
        if kind:
            return
        judge_memory([self.most[n] - self.before[n] for n in ("gateway", "agent")], 1024, self.pids["agent"])


def read_big(w, size):
    """Read and check the pattern of /big, everything but the head."""
    pattern = bytes(range(251)) * (2 * MIB // 251)
    got = 0
    while got < size:
        if not w.kept and not w.more():
            raise Bad(f"ended after {got} of {size} bytes")
        data, w.kept = w.kept[:MIB], w.kept[MIB:]
        i = got % 251
        assert pattern[i:i + len(data)] == data, f"wrong bytes behind {got}"
        got += len(data)
    equal(got, size)


@scenario
def a_slow_reader_of_200_mb_holds_them_nowhere():
    size = 200 * MIB
    one("GET", "/big?bytes=4000000")  # buffers that stay are there
    with Memory(), wire() as w:
        w.request("GET", at(f"/big?bytes={size}"))
        equal(w.start().status, 200)
        time.sleep(1)  # takes nothing
        for _ in range(20):
            w.more()
            time.sleep(0.01)
        read_big(w, size)


@scenario
def a_slow_function_lets_200_mb_wait_with_the_client():
    size = 200 * MIB
    sent = [0]
    with Memory(), wire() as w:
        w.request("POST", at("/slow-read?ms=1000"), f"Content-Length: {size}")

        def send_all():
            piece = bytes(MIB)
            while sent[0] < size:
                w.send(piece)
                sent[0] += MIB

        sender = threading.Thread(target=send_all, daemon=True)
        sender.start()
        time.sleep(0.8)
        assert sent[0] < 64 * MIB, f"{sent[0]} bytes went away while the function read none"
        r = w.reply()
        equal((r.status, json.loads(r.body)), (200, {"bytes": size, "sum": fnv_of_zeros(size)}))


@scenario
def fifty_slow_readers_cost_their_buffers_only():
    one("GET", "/big?bytes=4000000")
    pids = (cluster.orchestrator.pid, cluster.nodes[0].agent.pid)
    before = [memory_kb(p, "VmRSS") for p in pids]
    wires = [wire() for _ in range(50)]
    for w in wires:
        w.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        w.request("GET", at("/big?bytes=50000000&framing=1"))
    time.sleep(1)
    grown = [memory_kb(p, "VmRSS") - b for p, b in zip(pids, before)]
    for w in wires:
        w.close()
    judge_memory(grown, 50 * 256, pids[1])


# ---- event by event

def event_times(path, pieces):
    with wire() as w:
        w.request("GET", at(path))
        r = w.start()
        equal((r.status, r.framing), (200, "chunked"))
        got, times = [], []
        for c in w.chunks():
            got.append(c)
            times.append(time.monotonic())
    equal(got, pieces)
    return r, [b - a for a, b in zip(times, times[1:])]


@scenario
def server_sent_events_arrive_one_by_one():
    r, gaps = event_times("/sse?n=4&ms=150", [b"data: %d\n\n" % i for i in range(4)])
    equal(r.get("content-type"), "text/event-stream")
    assert all(0.08 < g < 0.6 for g in gaps), f"events came {gaps} s after each other, not 0.15"


@scenario
def lines_of_json_arrive_one_by_one():
    _, gaps = event_times("/ndjson?n=4&ms=100", [b'{"n":%d}\n' % i for i in range(4)])
    assert all(0.05 < g < 0.5 for g in gaps), gaps


@scenario
def a_request_is_passed_on_as_it_comes():
    with wire() as w:
        w.request("POST", at("/echo"), "Transfer-Encoding: chunked")
        equal(w.start().status, 200)
        chunks = w.chunks()
        for i in range(5):
            w.send(b"3\r\nev%d\r\n" % i)
            equal(next(chunks), b"ev%d" % i)
        w.send(b"0\r\n\r\n")
        equal(list(chunks), [])


# ---- heads before and without bodies

@scenario
def a_client_that_expects_100_continue_is_told_once_and_before_its_body():
    with wire() as w:
        w.request("POST", at("/100"), "Expect: 100-continue", "Content-Length: 4")
        heads = [w.head(), w.head()]
        equal(sorted(h.status for h in heads), [100, 103])
        w.send("abcd")
        r = w.reply()
        equal((r.status, r.interim), (200, []))
        equal(json.loads(r.body)["bytes"], 4)


@scenario
def a_refused_request_is_not_told_to_continue():
    with wire() as w:
        w.request("POST", at("/echo", "nobody"), "Expect: 100-continue", "Content-Length: 1000000")
        r = w.reply()
        equal((r.status, r.interim), (404, []))
        assert w.ends()


@scenario
def early_hints_pass_with_their_fields_but_not_to_http_1_0():
    with wire() as w:
        w.request("GET", at("/100"))
        r = w.reply()
        hints = [h for h in r.interim if h.status == 103]
        equal([(h.get("link"), h.get("x-hint")) for h in hints], [("</style.css>; rel=preload", "1")])
        equal(len(r.interim), 1, f"informational answers to a request without Expect: {[h.status for h in r.interim]}")
    with wire() as w:
        w.request("GET", at("/100"), version="1.0")
        equal(w.reply().interim, [])


@scenario
def head_tells_the_length_and_sends_no_body():
    with wire() as w:
        for path, length in (("/head", "12345"), ("/big?bytes=77", "77"), ("/status/404", None), ("/204", None)):
            w.request("HEAD", at(path))
            r = w.reply("HEAD")
            equal(r.status, 404 if "404" in path else 204 if "204" in path else 200, path)
            if length:
                equal(r.get("content-length"), length)
        w.request("HEAD", at("/head", "nobody"))
        equal(w.reply("HEAD").status, 404)
        w.request("GET", at("/head"))
        equal(len(w.reply().body), 12345)


@scenario
def answers_without_content_have_none():
    with wire() as w:
        w.request("GET", at("/204"))
        r = w.reply()
        equal((r.status, r.get("content-length"), r.get("transfer-encoding"), r.get("x-empty")), (204, None, None, "yes"))
        w.request("GET", at("/304"))
        r = w.reply()
        equal((r.status, r.get("etag"), r.get("content-length")), (304, '"as-before"', "42"))
        w.request("DELETE", at("/204"))
        equal(w.reply().status, 204)


@scenario
def every_status_passes():
    with wire() as w:
        for status in (200, 201, 202, 203, 206, 300, 301, 302, 307, 308, 400, 401, 403, 404, 405, 409, 410, 413, 418, 422,
                       429, 431, 451, 499, 500, 501, 502, 503, 504, 511, 599):
            w.request("POST", at(f"/status/{status}"), body=b"x")
            r = w.reply()
            equal((r.status, r.text), (status, f"status {status}\n"))


@scenario
def fields_keep_their_order_and_those_of_one_hop_are_dropped():
    r = one("GET", "/cookies")
    equal(r.all("set-cookie"), ["a=1; Path=/", "b=2; Expires=Wed, 21 Oct 2099 07:28:00 GMT", "c=3"])
    equal(r.all("x-twice"), ["one", "two"])
    equal([r.get("x-only-here"), r.get("keep-alive")], [None, None], "fields of the function's hop")
    told = one("GET", "/headers", "Connection: X-Mine", "X-Mine: hop", "Keep-Alive: timeout=1", "X-Kept: yes",
               "Proxy-Authorization: secret", "Cookie: a=b; c=d", "X-Twice: 1", "X-Twice: 2", "X-Bytes: \u00e4").text
    lines = [line.lower() for line in told.split("\r\n")]
    assert "x-kept: yes" in lines and "cookie: a=b; c=d" in lines and "host: probe.test" in lines, told
    assert lines.index("x-twice: 1") < lines.index("x-twice: 2"), told
    for gone in ("x-mine", "keep-alive", "proxy-authorization"):
        assert not any(line.startswith(gone + ":") for line in lines), f"{gone} reached the function: {told}"
    for name in ("x-call-id", "traceparent", "x-forwarded-for", "x-forwarded-host"):
        assert sum(line.startswith(name + ":") for line in lines) == 1, f"{name} in {told}"


@scenario
def a_body_of_no_bytes_is_told_from_no_body():
    for method, body, wanted in (("POST", b"", ["content-length: 0"]), ("GET", None, []), ("DELETE", None, []), ("PUT", b"x", ["content-length: 1"])):
        told = one(method, "/headers", body=body).text.lower().split("\r\n")
        equal([line for line in told if line.startswith(("content-length", "transfer-encoding"))], wanted, method)


@scenario
def every_answer_names_its_call_and_its_times():
    for r in (one("GET", "/status/200"), one("GET", "/garbage"), one("GET", "/x", function="nobody")):
        assert r.get("x-call-id") and r.get("traceparent") and "queue;dur=" in r.get("server-timing"), r.head.fields


@scenario
def http_1_0_clients_are_answered_in_their_way():
    for path in ("/chunked", "/close"):
        with wire() as w:
            w.request("GET", at(path), version="1.0")
            r = w.reply()
            equal((r.status, r.framing, r.get("transfer-encoding")), (200, "close", None), path)
            assert r.text in ("-" * 15, "until the connection ends\n"), r
    with wire() as w:
        for _ in range(2):
            w.request("GET", at("/head"), "Connection: keep-alive", version="1.0")
            r = w.reply()
            equal((r.framing, len(r.body), r.get("connection")), ("length", 12345, "keep-alive"))
    with wire() as w:
        w.send(f"GET {at('/status/200')} HTTP/1.0\r\n\r\n")  # no Host
        equal(w.reply().status, 200)


# ---- upgrades

def upgrade(w, path="/upgrade", *fields):
    w.request("GET", at(path), "Connection: keep-alive, Upgrade", "Upgrade: raw/1", *fields)
    return w.start()


@scenario
def after_101_bytes_pass_raw_both_ways():
    with wire() as w:
        r = upgrade(w)
        equal((r.status, r.get("upgrade"), r.get("connection").lower()), (101, "raw/1", "upgrade"))
        for data in (b"\x00\xff\r\n\r\nGET / HTTP/1.1\r\n", b"x", os.urandom(100000)):
            w.send(data)
            assert w.take(len(data)) == data, "other bytes came back"
        size, piece = 16 * MIB, os.urandom(MIB)
        threading.Thread(target=lambda: [w.send(piece) for _ in range(size // MIB)], daemon=True).start()
        for _ in range(size // MIB):
            assert w.take(MIB) == piece
        w.socket.shutdown(socket.SHUT_WR)
        assert w.ends()


@scenario
def what_stands_behind_either_head_of_an_upgrade_is_not_lost():
    with wire() as w:
        equal(upgrade(w, "/upgrade?greet=1").status, 101)
        equal(w.take(11), b"first words")
    with wire() as w:
        w.send(f"GET {at('/upgrade')} HTTP/1.1\r\nHost: p\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\neager")
        equal(w.start().status, 101)
        equal(w.take(5), b"eager")


@scenario
def a_refused_upgrade_is_an_answer_like_any_other():
    with wire() as w:
        r = upgrade(w, "/upgrade?refuse=1")
        equal((r.status, w.take(int(r.get("content-length")))), (403, b"no upgrade\n"))
        w.request("GET", at("/status/200"))
        equal(w.reply().status, 200)


@scenario
def an_upgraded_connection_outlives_the_functions_deadline():
    with wire() as w:
        w.request("GET", at("/upgrade", "hasty"), "Connection: Upgrade", "Upgrade: raw")
        equal(w.start().status, 101)
        time.sleep(0.8)
        w.send("still here")
        equal(w.take(10), b"still here")


# ---- limits and targets

@scenario
def heads_within_the_limits_pass_and_beyond_them_are_refused():
    wide = "X-Wide: " + "w" * 55000
    equal(wide in one("GET", "/headers", wide).text, True, "a field of 55,000 bytes")
    many = [f"X-{i}: {i}" for i in range(80)]
    told = one("GET", "/headers", *many).text
    assert all(m in told for m in many), "one of 80 fields is missing"
    long = "/headers/" + "p" * 15000
    assert one("GET", long).text.startswith(f"GET {long} HTTP/1.1\r\n"), "a target of 15,000 bytes"
    for fields, target, status in (([wide, wide], "/headers", 431), ([f"X-{i}: {i}" for i in range(120)], "/headers", 431),
                                   ([], "/headers/" + "p" * 20000, 414)):
        with wire() as w:
            w.request("GET", at(target), *fields)
            equal(w.reply().status, status)
            assert w.ends()


@scenario
def an_answers_head_beyond_the_limits_is_a_bad_answer():
    for head in ("X-Wide: " + "w" * 70000 + "\r\n", "".join(f"X-{i}: v\r\n" for i in range(120))):
        r = one("POST", "/say?close=1", body=f"HTTP/1.1 200 OK\r\n{head}Content-Length: 0\r\n\r\n".encode())
        problem(r, 502, "function_broken", "function")


@scenario
def an_answers_large_head_passes():
    wide = "w" * 50000
    r = one("POST", "/say?close=1", body=f"HTTP/1.1 200 OK\r\nX-Wide: {wide}\r\nContent-Length: 0\r\n\r\n".encode())
    equal((r.status, r.get("x-wide") == wide), (200, True))


@scenario
def targets_pass_untouched():
    for rest in ("/headers/a%2Fb/../%2e%2e/./x//y", "/headers/%00%ff%C3%A4?q=%20+&&=;x=%zz", "/headers/..", "/headers/~!$&'()*+,;=:@",
                 "/headers?x=/../..", "/headers/a|b\"<>^`{}"):
        told = one("GET", rest)
        equal(told.text.split("\r\n")[0], f"GET {rest} HTTP/1.1")
    basic = "Authorization: Basic " + base64.b64encode(f"admin:{cluster.secret('admin-password')}".encode()).decode()
    with wire() as w:
        w.request("GET", "/v1/functions/probe/invoke/headers/%2e/../x?namespace=default&y", basic)
        told = w.reply().text
        assert told.startswith("GET /headers/%2e/../x?namespace=default&y HTTP/1.1\r\n") and "Basic" not in told, told
    with wire() as w:
        w.send(f"GET http://elsewhere.test{at('/headers/x')} HTTP/1.1\r\nHost: probe.test\r\n\r\n")
        told = w.reply().text
        assert told.startswith("GET /headers/x HTTP/1.1\r\n") and "\r\nHost: elsewhere.test\r\n" in told, told


# ---- what could be read in two ways is refused

def refused(name, raw, statuses=(400,)):
    with wire(5) as w:
        w.send(raw)
        r = w.reply()
        assert r.status in statuses, f"{name}: {r}"
        assert w.ends(), name


@scenario
def ambiguous_requests_are_refused_and_their_connection_is_closed():
    target, hidden = at("/sum"), f"GET {at('/seen')} HTTP/1.1\r\nHost: p\r\n\r\n"
    before = seen()["requests"]
    post = f"POST {target} HTTP/1.1\r\n"
    for name, raw, *statuses in (
            ("both lengths", f"{post}Host: p\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            ("both lengths, the other way round", f"{post}Host: p\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{hidden}"),
            ("two lengths", f"{post}Host: p\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde{hidden}"),
            ("the same length twice", f"{post}Host: p\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd{hidden}"),
            ("a list of lengths", f"{post}Host: p\r\nContent-Length: 4, 4\r\n\r\nabcd{hidden}"),
            ("a signed length", f"{post}Host: p\r\nContent-Length: +4\r\n\r\nabcd{hidden}"),
            ("a hexadecimal length", f"{post}Host: p\r\nContent-Length: 0x4\r\n\r\nabcd{hidden}"),
            ("an empty length", f"{post}Host: p\r\nContent-Length: \r\n\r\n{hidden}"),
            ("a length beyond all numbers", f"{post}Host: p\r\nContent-Length: 99999999999999999999\r\n\r\n{hidden}"),
            ("an unknown coding", f"{post}Host: p\r\nTransfer-Encoding: gzip\r\n\r\n{hidden}", 400, 501),
            ("chunked twice", f"{post}Host: p\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n{hidden}", 400, 501),
            ("chunked, then another", f"{post}Host: p\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}", 400, 501),
            ("two coding fields", f"{post}Host: p\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{hidden}", 400, 501),
            ("a coding that looks like chunked", f"{post}Host: p\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{hidden}", 400, 501),
            ("a coding in HTTP/1.0", f"POST {target} HTTP/1.0\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            ("obs-fold", f"{post}Host: p\r\nX-Folded: a\r\n b\r\n\r\n"),
            ("a fold before the first field", f"{post} X: a\r\nHost: p\r\n\r\n"),
            ("a bare LF behind a field", f"{post}Host: p\nX: y\r\n\r\n"),
            ("a bare LF behind the request line", f"POST {target} HTTP/1.1\nHost: p\r\n\r\n"),
            ("bare LFs at the end of the head", f"{post}Host: p\r\n\nX: y\r\n\r\n"),
            ("a bare CR in a field", f"{post}Host: p\r\nX: a\rb\r\n\r\n"),
            ("NUL in a field", f"{post}Host: p\r\nX: a\0b\r\n\r\n"),
            ("space before a colon", f"{post}Host: p\r\nContent-Length : 4\r\n\r\nabcd"),
            ("space in a field's name", f"{post}Host: p\r\nX Y: 4\r\n\r\n"),
            ("a field without a name", f"{post}Host: p\r\n: 4\r\n\r\n"),
            ("a field without a colon", f"{post}Host: p\r\nnothing\r\n\r\n"),
            ("no Host", f"{post}X: y\r\n\r\n"),
            ("two Hosts", f"{post}Host: p\r\nHost: p\r\n\r\n"),
            ("a bad Host", f"{post}Host: p/../q\r\n\r\n"),
            ("two spaces in the request line", f"POST  {target} HTTP/1.1\r\nHost: p\r\n\r\n"),
            ("space behind the version", f"POST {target} HTTP/1.1 \r\nHost: p\r\n\r\n"),
            ("no version", f"POST {target}\r\nHost: p\r\n\r\n"),
            ("a control character in the target", f"POST {target}\x01 HTTP/1.1\r\nHost: p\r\n\r\n"),
            ("another version", f"POST {target} HTTP/2.0\r\nHost: p\r\n\r\n", 505),
            ("another protocol", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ):
        refused(name, raw.encode("latin-1"), statuses or (400,))
    equal(seen()["requests"] - before, 1, "requests that reached the function besides the question itself")


@scenario
def bad_chunks_are_refused_and_their_connection_is_closed():
    for name, body in (("no hexadecimal size", "xyz\r\nhello\r\n0\r\n\r\n"), ("an empty size", "\r\nhello\r\n0\r\n\r\n"),
                       ("a signed size", "-5\r\nhello\r\n0\r\n\r\n"), ("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
                       ("a size beyond all numbers", "fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
                       ("space before the size", " 5\r\nhello\r\n0\r\n\r\n"), ("space behind the size", "5 \r\nhello\r\n0\r\n\r\n"),
                       ("a chunk longer than its size", "4\r\nhello\r\n0\r\n\r\n"), ("a chunk shorter than its size", "6\r\nhello\r\n0\r\n\r\n"),
                       ("a bare LF behind the size", "5\nhello\r\n0\r\n\r\n"), ("a bare LF behind the data", "5\r\nhello\n0\r\n\r\n"),
                       ("a bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"), ("extensions without end", "5;" + "e" * 5000 + "\r\nhello\r\n0\r\n\r\n"),
                       ("a length in the trailers", "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n"),
                       ("a coding in the trailers", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
                       ("a folded trailer", "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"), ("trailers without end", "0\r\n" + "X: " + "t" * 20000 + "\r\n\r\n")):
        refused(name, f"POST {at('/sum')} HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n{body}".encode())


@scenario
def ambiguous_answers_are_refused():
    ok = "HTTP/1.1 200 OK\r\n"
    for name, raw in (("both lengths", f"{ok}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
                      ("two lengths", f"{ok}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
                      ("a bad length", f"{ok}Content-Length: many\r\n\r\nabc"),
                      ("another coding", f"{ok}Transfer-Encoding: gzip\r\n\r\nabc"),
                      ("obs-fold", f"{ok}X: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
                      ("space before a colon", f"{ok}Content-Length : 0\r\n\r\n"),
                      ("no status", "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
                      ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
                      ("101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")):
        r = one("POST", "/say?close=1", body=raw.encode())
        assert r.status == 502, f"{name}: {r}"
        problem(r, 502, "function_broken", "function")
    problem(one("GET", "/garbage"), 502, "function_broken", "function")


@scenario
def an_answer_that_breaks_off_is_seen_to_be_incomplete():
    for body in (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
                 b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n"):
        try:
            r = one("POST", "/say?close=1", body=body)
        except (Bad, ConnectionError):
            continue
        assert r.status == 502, f"a broken answer came as a whole one: {r}"
    try:
        r = one("GET", "/break?after=5000")
        raise AssertionError(f"a broken answer came as a whole one: {r}")
    except (Bad, ConnectionError):
        pass
    problem(one("GET", "/break?after=0"), 502, "function_broken", "function")


@scenario
def bytes_behind_an_answer_are_nobodys_answer():
    twice = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    with wire() as w:
        for _ in range(5):
            w.request("POST", at("/say"), body=twice)
            equal(w.reply().text, "ok")
            w.request("GET", at("/status/200"))
            equal(w.reply().text, "status 200\n")


# ---- connections

@scenario
def pipelined_requests_are_answered_in_their_order():
    with wire() as w:
        batch = b""
        for i in range(20):
            if i % 3 == 0:
                batch += f"GET {at(f'/status/2{i:02}')} HTTP/1.1\r\nHost: p\r\n\r\n".encode()
            elif i % 3 == 1:
                batch += f"POST {at('/echo')} HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n{i:02}".encode()
            else:
                batch += f"POST {at('/echo')} HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{i:02}\r\n0\r\n\r\n".encode()
        w.send(batch)
        for i in range(20):
            r = w.reply()
            if i % 3 == 0:
                equal(r.status, 204 if i == 4 else 200 + i)
            else:
                equal((r.status, r.text), (200, f"{i:02}"))


@scenario
def a_connection_goes_on_after_errors():
    with wire() as w:
        for path, function, status in (("/x", "nobody", 404), ("/break?after=0", "probe", 502), ("/garbage", "probe", 502),
                                       ("/sleep?ms=5000", "hasty", 504), ("/status/500", "probe", 500), ("/404", "probe", 404)):
            w.request("POST", at(path, function), body=b"some body")
            equal(w.reply().status, status, path)
            w.request("GET", at("/status/200"))
            equal(w.reply().status, 200, f"after {path}")
        w.request("BREW", at("/status/200"))
        r = w.reply()
        equal(r.status, 405)
        assert "GET" in r.get("allow")
        w.request("GET", at("/status/200"), "Connection: close")
        equal(w.reply().get("connection"), "close")
        assert w.ends()


@scenario
def connections_to_the_function_are_kept_and_used_again():
    first = int(one("GET", "/status/200").get("x-probe-connection"))
    numbers = [int(one("POST", "/echo", body=b"x").get("x-probe-connection")) for _ in range(30)]
    assert len(set(numbers)) <= 3, f"30 requests one after another took the connections {sorted(set(numbers))} (before: {first})"


@scenario
def connections_that_must_not_be_used_again_are_not():
    ok = "Content-Length: 2\r\n\r\nok"
    for raw in (f"HTTP/1.1 200 OK\r\nConnection: close\r\n{ok}", f"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n{ok}",
                f"HTTP/1.0 200 OK\r\n{ok}", f"HTTP/1.1 200 OK\r\n{ok}more than that", f"HTTP/1.1 200 OK\r\n{ok}\r\n"):
        for _ in range(3):
            equal(one("POST", "/say?last=1", body=raw.encode()).text, "ok")
    with wire() as w:  # the function does not read on
        w.request("POST", at("/early?keep=1"), "Content-Length: 8000000")
        equal(w.reply().status, 413)
    equal(seen()["again"], 0, "requests on connections that were over")


@scenario
def a_function_that_closes_after_every_answer_fails_nobody():
    def call(i):
        method, body = ("POST", b"body") if i % 2 else ("GET", None)
        return one(method, "/half-close", body=body).status

    equal([call(i) for i in range(40)], [200] * 40, "one after another")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        got = list(pool.map(call, range(200)))
    equal(got, [200] * 200, "16 at once")


@scenario
def an_answer_may_come_before_its_request_is_complete():
    for keep in (0, 1):
        with wire() as w:
            w.request("POST", at(f"/early?keep={keep}"), "Content-Length: 8000000")
            r = w.reply()
            equal((r.status, r.text), (413, "too much, whatever it was\n"), "before a byte of the body was sent")
        with wire() as w:
            w.request("POST", at(f"/early?keep={keep}"), "Content-Length: 8000000")
            try:
                w.send(bytes(8000000))
            except OSError:
                pass  # a server may close once it has answered; its answer must be there all the same
            equal(w.reply().status, 413, "while the body was sent")
        with wire() as w:
            w.request("POST", at(f"/early?keep={keep}"), body=bytes(1000))
            equal(w.reply().status, 413, "with a small body")
    equal(one("GET", "/status/200").status, 200)


def cut_grows(begin, what):
    before = seen()["cut"]
    w = wire()
    begin(w)
    wait_until("the function has it", lambda: True, 1)
    time.sleep(0.2)
    equal(seen()["cut"], before, f"{what}: cut before the client left")
    w.close()
    wait_until(f"the function sees that the client left: {what}", lambda: seen()["cut"] == before + 1, 3)


@scenario
def a_client_that_leaves_is_cancelled_in_the_function():
    cut_grows(lambda w: w.request("GET", at("/sleep?ms=10000")), "while it waits for the answer")
    cut_grows(lambda w: w.request("GET", at("/big?bytes=500000000")), "in the middle of an answer")
    cut_grows(lambda w: w.request("POST", at("/sum"), "Content-Length: 1000"), "in the middle of its body")
    cut_grows(lambda w: w.request("GET", at("/sse?n=1000&ms=50")), "in the middle of events")
    cut_grows(upgrade, "upgraded")


@scenario
def a_waiting_client_that_leaves_is_forgotten_at_once():
    with wire() as first, wire() as gone, wire() as last:
        first.request("GET", at("/sse?n=3&ms=100", "hasty"))
        first.start()
        gone.request("GET", at("/status/200", "hasty"))
        last.request("GET", at("/status/200", "hasty"))
        gone.close()
        list(first.chunks())
        equal(last.reply().status, 200)


# ---- functions that fail

@scenario
def a_function_that_exits_inside_a_request_is_502_with_the_reason():
    cluster.deploy("mortal", image=PROBE, scale={"min": 1, "max": 1})
    wait_until("mortal is ready", lambda: cluster.describe("mortal")["status"]["ready"] == 1, 20)
    told = problem(one("GET", "/exit", function="mortal"), 502, "function_broken", "function")
    why = "the function's process ended during the request: its process ended with exit code 7"
    equal((told["function"], told["detail"]), ("mortal.default", why))
    wait_until("it is served again", lambda: one("GET", "/status/200", function="mortal").status == 200, 15)
    told = problem(one("GET", "/exit", function="mortal"), 502, "function_broken", "function")  # on a connection used before
    equal(told["detail"], why)
    cluster.remove("mortal")


@scenario
def a_deadline_is_504_and_names_the_hop():
    begin = time.monotonic()
    before = seen()
    problem(one("GET", "/sleep?ms=5000", function="hasty"), 504, "function_timeout", "function")
    took = time.monotonic() - begin
    assert 0.35 < took < 1.5, f"a deadline of 400 ms took {took:.2f} s"
    equal(one("GET", "/status/200", function="hasty").status, 200, "the slot is free again")
    with wire() as w:  # concurrency is 1: one inside, one waits
        w.request("GET", at("/upgrade", "hasty"), "Connection: Upgrade", "Upgrade: raw")
        equal(w.start().status, 101)
        problem(one("GET", "/status/200", function="hasty"), 504, "queue_timeout", "queue")
    wait_until("the slot is free again", lambda: one("GET", "/status/200", function="hasty").status == 200, 3)
    assert before


@scenario
def a_deadline_in_the_middle_of_an_answer_breaks_it_off():
    begin = time.monotonic()
    try:
        r = one("GET", "/sse?n=100&ms=50", function="hasty")
        raise AssertionError(f"an answer beyond its deadline came as a whole one: {r}")
    except (Bad, ConnectionError):
        assert time.monotonic() - begin < 1.5


# ---- real clients

def curl(*words, data=None):
    if not shutil.which("curl"):
        raise Skip("curl is not installed")
    r = subprocess.run(["curl", "-sS", "--max-time", "20", *words], input=data, capture_output=True, timeout=30)
    equal(r.returncode, 0, f"curl {' '.join(words)}: {r.stderr.decode()}")
    return r.stdout


@scenario
def curl_gets_posts_uploads_and_follows_events():
    url = cluster.url + "/function/probe"
    body = os.urandom(2 * MIB)
    equal(curl("--data-binary", "@-", f"{url}/echo", data=body) == body, True, "2 MiB posted with Expect: 100-continue")
    equal(curl("-T", "-", f"{url}/echo", data=body) == body, True, "2 MiB uploaded in chunks")
    equal(curl("-T", "-", "-X", "POST", f"{url}/sum", data=bytes(MIB)), b'{"bytes":%d,"sum":%d}\n' % (MIB, fnv_of_zeros(MIB)))
    equal(curl("-N", f"{url}/sse?n=3&ms=10"), b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
    assert b"content-length: 12345" in curl("-I", f"{url}/head").lower()
    equal(curl("--http1.0", f"{url}/chunked?n=3"), b"------")
    equal(curl("-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n", f"{url}/status/201", "--next", "-sS", "-o", "/dev/null", "-w",
               "%{http_code} %{num_connects}\n", f"{url}/204"), b"201 1\n204 0\n", "two requests on one connection")
    equal(curl("--path-as-is", f"{url}/headers/../x/%2e%2e").split(b"\r\n")[0], b"GET /headers/../x/%2e%2e HTTP/1.1")


WEBSOCKET_CLIENT = """
const WebSocket = require('ws');
const ws = new WebSocket(process.argv[2]);
const sent = ['hello', 'ü'.repeat(1000), Buffer.alloc(100000, 7)];
let got = 0, pong = false;
ws.on('open', () => { ws.ping('p'); for (const s of sent) ws.send(s); });
ws.on('pong', d => { pong = d.toString() === 'p'; });
ws.on('message', (data, isBinary) => {
  const want = sent[got++];
  if (isBinary !== Buffer.isBuffer(want) || !Buffer.from(want).equals(data)) { console.error('message', got, 'differs'); process.exit(1); }
  if (got === sent.length) ws.close(4000, 'done');
});
ws.on('close', (code, reason) => { console.log(got, pong, code, reason.toString()); });
ws.on('error', e => { console.error(e.message); process.exit(1); });
"""


@scenario
def a_websocket_client_talks_to_the_function():
    if not shutil.which("npm") or not shutil.which("node"):
        raise Skip("npm is not installed: no WebSocket client")
    directory = f"{cluster.directory}/ws"
    os.makedirs(directory)
    try:
        r = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", directory, "ws@8"], capture_output=True, text=True,
                           timeout=40, stdin=subprocess.DEVNULL, env={**os.environ, "HOME": directory})
    except subprocess.TimeoutExpired:
        raise Skip("npm did not fetch the package ws within 40 s") from None
    if r.returncode:
        raise Skip(f"npm cannot fetch the package ws: {r.stderr.strip()[-200:]}")
    with open(f"{directory}/client.js", "w") as f:
        f.write(WEBSOCKET_CLIENT)
    url = cluster.url.replace("http", "ws", 1) + "/function/probe/ws"
    r = subprocess.run(["node", f"{directory}/client.js", url], capture_output=True, text=True, timeout=20, cwd=directory)
    equal((r.returncode, r.stdout), (0, "3 true 4000 done\n"), r.stderr)


@scenario
def both_programs_have_lived_through_it_and_end_cleanly():
    for process in (cluster.nodes[0].agent, cluster.orchestrator):
        assert process.is_running(), f"{process.name} ended on the way: {process.tail()}"
        process.stop()
        equal(process.popen.returncode, 0, f"exit code of {process.name} ({process.tail(5)})")  # sanitizers speak up here


main(up, lambda: cluster and cluster.down(), lambda: cluster and cluster.show_logs())
