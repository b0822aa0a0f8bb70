"""HTTP/1.1 over a plain socket, byte by byte: what a test wants to say is sent as it stands, what comes is judged
strictly and never repaired."""
import socket
import time


class Bad(AssertionError):
    """What came is not valid HTTP, or not whole."""


class Head:
    def __init__(self, text):
        lines = text.split("\r\n")
        first = lines[0].split(" ", 2)
        if len(first) < 2 or not first[0].startswith("HTTP/1.") or not first[1].isdigit():
            raise Bad(f"no status line: {lines[0]!r}")
        self.version, self.status = first[0], int(first[1])
        self.fields = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name.strip() != name or "\n" in line or "\r" in line:
                raise Bad(f"no field: {line!r}")
            self.fields.append((name.lower(), value.strip()))

    def all(self, name):
        return [v for n, v in self.fields if n == name]

    def get(self, name):
        found = self.all(name)
        if len(found) > 1:
            raise Bad(f"{name} more than once: {found}")
        return found[0] if found else None


class Reply:
    """A final answer: head, body, trailers, the informational heads before it, how its body was framed."""

    def __init__(self, head, interim):
        self.head, self.interim = head, interim
        self.status, self.get, self.all = head.status, head.get, head.all
        self.body, self.framing, self.trailers = b"", "none", []

    @property
    def text(self):
        return self.body.decode(errors="replace")

    def __repr__(self):
        return f"<{self.status} {self.text[:300]!r}>"


class Wire:
    def __init__(self, address, port, timeout=20):
        self.socket = socket.create_connection((address, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kept = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def request(self, method, target, *fields, body=None, version="1.1"):
        """A request with a Host; a length when there is a body."""
        lines = [f"{method} {target} HTTP/{version}", "Host: probe.test", *fields]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))

    # ---- reading

    def more(self):
        data = self.socket.recv(1 << 18)
        self.kept += data
        return len(data)

    def take(self, n):
        while len(self.kept) < n:
            if not self.more():
                raise Bad(f"the connection ended {n - len(self.kept)} bytes early")
        data, self.kept = self.kept[:n], self.kept[n:]
        return data

    def until(self, mark):
        while mark not in self.kept:
            if not self.more():
                raise Bad(f"the connection ended before {mark!r}, after {self.kept[-200:]!r}")
        data, _, self.kept = self.kept.partition(mark)
        return data

    def line(self):
        return self.until(b"\r\n")

    def head(self):
        return Head(self.until(b"\r\n\r\n").decode("latin-1"))

    def chunks(self):
        """Every chunk as it comes; afterwards self.trailers is what followed the last one."""
        while True:
            size = self.line()
            if not size or any(c not in b"0123456789abcdefABCDEF" for c in size):
                raise Bad(f"no chunk size: {size!r}")
            if int(size, 16) == 0:
                break
            yield self.take(int(size, 16))
            if self.take(2) != b"\r\n":
                raise Bad("a chunk is longer than it said")
        self.trailers = []
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(": ")
            self.trailers.append((name.lower(), value))

    def start(self, method="GET"):
        """Head of the final answer; its body is left to the caller."""
        interim = []
        while True:
            head = self.head()
            if head.status >= 200 or head.status == 101:
                break
            interim.append(head)
        reply = Reply(head, interim)
        if head.all("content-length") and head.all("transfer-encoding") and method != "HEAD":
            raise Bad("both lengths")
        if method == "HEAD" or head.status in (101, 204, 304):
            pass
        elif head.get("transfer-encoding"):
            reply.framing = head.get("transfer-encoding")
        elif head.get("content-length") is not None:
            reply.framing = "length"
        else:
            reply.framing = "close"
        return reply

    def reply(self, method="GET"):
        reply = self.start(method)
        if reply.framing == "chunked":
            reply.body = b"".join(self.chunks())
            reply.trailers = self.trailers
        elif reply.framing == "length":
            reply.body = self.take(int(reply.get("content-length")))
        elif reply.framing == "close":
            while self.more():
                pass
            reply.body, self.kept = self.kept, b""
        return reply

    def ends(self, within=5):
        """The other side closes, and says nothing before."""
        self.socket.settimeout(within)
        begin = time.monotonic()
        try:
            n = self.more()
        except ConnectionError:
            return True
        except socket.timeout:
            raise Bad(f"the connection is still open after {time.monotonic() - begin:.1f} s") from None
        if n or self.kept:
            raise Bad(f"bytes that nobody asked for: {self.kept[:200]!r}")
        return True


def chunked(*pieces, trailers=""):
    """A chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces if p) + b"0\r\n" + trailers.encode() + b"\r\n"
