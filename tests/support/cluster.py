"""A cluster of real programs and real engines on this machine, for tests.

One bridge is the network of the test; the orchestrator listens on the bridge's address, every node is a network
namespace with an engine (dockerd) and an agent inside.  Nothing outside is touched: every name and address carries
the run's number, every process is remembered by its pid, every container dies with its engine.

    c = Cluster(nodes=2); c.up(); ...; c.down()          down() also runs when the test dies
"""
import atexit
import base64
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

from scenario import Skip, wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("DAVIT_BIN", os.path.join(ROOT, "build/dev/bin"))
PROGRAMS = ("davit-orchestrator", "davit-agent", "davit-init", "davit")
HELLO = "davit/hello:test"  # FROM scratch
HOLDER = "dev.davit.holder"  # label of a container that holds a ready network
TOOLS = "davit/tools:test"  # the same program, and busybox


def run(*command, check=True, **kw):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)
    if check and result.returncode:
        raise AssertionError(f"{' '.join(command)}: exit {result.returncode}: {result.stdout.strip()[-500:]}")
    return result.stdout


class Process:
    """A program of ours: its output in a file, ended by its own pid."""

    def __init__(self, name, command, log, env=None):
        self.name, self.command, self.log, self.env = name, [str(c) for c in command], log, env
        self.popen = None

    def start(self):
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env={**os.environ, **(self.env or {})}, start_new_session=True)
        return self

    @property
    def pid(self):
        return self.popen.pid if self.popen else 0

    def is_running(self):
        return self.popen is not None and self.popen.poll() is None

    def kill(self, signum=signal.SIGKILL):
        if self.is_running():
            self.popen.send_signal(signum)
        return self

    def stop(self, seconds=15):
        if not self.is_running():
            return
        self.popen.terminate()
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not end within {seconds} s after SIGTERM")
            self.popen.kill()
            self.popen.wait()

    def tail(self, lines=15):
        try:
            with open(self.log, errors="replace") as f:
                return "".join(f.readlines()[-lines:])
        except OSError:
            return ""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("engine", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode(errors="replace")

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.text[:300]!r}>"


def exchange(connection, method, path, body=None, headers=None):
    try:
        connection.request(method, path, body=body, headers=headers or {})
        r = connection.getresponse()
        return Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
    finally:
        connection.close()


class Engine:
    def __init__(self, directory, namespace=None, tag=""):
        self.socket = os.path.join(directory, "docker.sock")
        self.directory, self.namespace, self.tag = directory, namespace, tag
        self.process = None
        self.wrap = []  # words in front of its command line

    def start(self):
        os.makedirs(self.directory, exist_ok=True)
        pidfile = os.path.join(self.directory, "docker.pid")
        # Those of an engine that was killed: where nobody reaps orphans its dead containerd would pass for alive.
        for stale in (pidfile, os.path.join(self.directory, "exec/containerd/containerd.pid")):
            if os.path.exists(stale):
                os.unlink(stale)
        command = [*self.wrap, "dockerd", "--icc=false", "--data-root", f"{self.directory}/root", "--exec-root", f"{self.directory}/exec",
                   "-H", f"unix://{self.socket}", "--pidfile", pidfile,
                   "--containerd-namespace", self.tag, "--containerd-plugins-namespace", self.tag + "-plugins"]
        if self.namespace:
            command = ["nsenter", f"--net=/run/netns/{self.namespace}", *command]
        self.process = Process("dockerd", command, f"{self.directory}/dockerd.log").start()

    def wait(self):
        wait_until("dockerd answers", self.answers, 60, every=0.1)

    def answers(self):
        if not self.process.is_running():
            raise AssertionError("dockerd ended: " + self.process.tail())
        return self.call("GET", "/_ping").status == 200

    def call(self, method, path, body=None, headers=None):
        if body is not None and not isinstance(body, (bytes, str)):
            body, headers = json.dumps(body), {"Content-Type": "application/json"}
        return exchange(UnixConnection(self.socket), method, path, body, headers)

    def containers(self, label="dev.davit.node", running_only=False):
        """Those with the label, but for the holders of ready networks (which have a label of their own: `holders`)."""
        return [c for c in self._list(label, running_only) if HOLDER not in c["Labels"]]

    def holders(self):
        return self._list(HOLDER, False)

    def _list(self, label, running_only):
        filters = urllib.parse.quote(json.dumps({"label": [label]}))
        return self.call("GET", f"/containers/json?all={'false' if running_only else 'true'}&filters={filters}").json

    def pid_of(self, container):
        return self.call("GET", f"/containers/{container}/json").json["State"]["Pid"]

    def import_image(self, tar, image, entrypoint=None):
        changes = [f"ENTRYPOINT {json.dumps(entrypoint)}"] if entrypoint else []
        repo, tag = image.split(":")
        query = urllib.parse.urlencode([("fromSrc", "-"), ("repo", repo), ("tag", tag)] + [("changes", c) for c in changes])
        with open(tar, "rb") as f:
            a = self.call("POST", f"/images/create?{query}", f.read(), {"Content-Type": "application/x-tar"})
        if a.status != 200 or "error" in a.text:
            raise AssertionError(f"import of {image}: {a}")

    def clear(self):
        """Remove what is left and begin to stop."""
        if not self.process or not self.process.is_running():
            return
        try:
            for c in self.containers() + self.holders():
                self.call("DELETE", f"/containers/{c['Id']}?force=true&v=true")
        except (OSError, ValueError) as e:
            print(f"{self.tag}: containers could not be removed: {e}")
        self.process.kill(signal.SIGTERM)

    def stop(self):
        if self.process:
            self.process.stop(30)
        self.end_leftovers()

    def end_leftovers(self):
        """A killed dockerd leaves its containerd, and that leaves shims: they carry our directory in their command line."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read()
            except OSError:
                continue
            if (self.directory + "/exec").encode() in words and int(pid) != os.getpid():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass


class Node:
    def __init__(self, cluster, index):
        self.cluster, self.index = cluster, index
        self.name = f"n{index}"
        self.namespace = f"{cluster.tag}-{self.name}"
        self.address = f"{cluster.prefix}.{10 + index}"
        self.directory = os.path.join(cluster.directory, self.name)
        self.engine = Engine(self.directory + "/engine", self.namespace, self.namespace)
        self.agent = None
        self.options = []  # more words of the agent's command line, at every start

    def network_up(self):
        c, host, inside = self.cluster, f"{self.cluster.tag}v{self.index}", self.namespace
        run("ip", "netns", "add", inside)
        run("ip", "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", inside)
        run("ip", "link", "set", host, "master", c.bridge, "up")
        run("ip", "-n", inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        run("ip", "-n", inside, "link", "set", "eth0", "up")
        run("ip", "-n", inside, "link", "set", "lo", "up")

    def start_agent(self, *extra):
        os.makedirs(self.directory, exist_ok=True)
        enter = ["nsenter", f"--net=/run/netns/{self.namespace}"] if self.namespace else []
        command = [*enter, *self.cluster.wrap("agent"), f"{BIN}/davit-agent", "--orchestrator", self.cluster.url,
                   "--name", self.name, "--listen", f"{self.address}:8090", "--metrics-listen", f"{self.address}:8083",
                   "--docker", f"unix://{self.engine.socket}", "--state-dir", f"{self.directory}/agent", *self.options, *extra]
        self.agent = Process(f"agent {self.name}", command, f"{self.directory}/agent.log",
                             {"DAVIT_JOIN_TOKEN": self.cluster.join_token()}).start()
        return self.agent

    def metrics(self):
        return metrics_of(http.client.HTTPConnection(self.address, 8083, timeout=10))

    def wait_pools(self, networks=8, primed=0, seconds=60):
        """The pools are full and nothing is being made: what comes next has the machine to itself."""
        def full():
            m = self.metrics()
            at = {s: metric_sum(m, "davit_agent_networks", state=s) for s in ("making", "ready", "closing", "removing")}
            return (at["ready"] >= networks and not at["making"] + at["closing"] + at["removing"]
                    and metric_sum(m, "davit_agent_primed_ready") >= primed and not metric_sum(m, "davit_agent_primed_making"))
        wait_until(f"networks and sandboxes of {self.name} are ready", full, seconds, every=0.02)


def metrics_of(connection):
    """Prometheus text -> {(name, ((label, value), ...)): number}."""
    out = {}
    for line in exchange(connection, "GET", "/metrics").text.splitlines():
        if not line or line.startswith("#"):
            continue
        head, value = line.rsplit(" ", 1)
        name, _, labels = head.partition("{")
        pairs = []
        for part in filter(None, labels.rstrip("}").replace('",', '"\n').split("\n")):
            key, _, text = part.partition("=")
            pairs.append((key, text.strip('"')))
        out[(name, tuple(sorted(pairs)))] = float(value)
    return out


def metric_sum(metrics, name, **labels):
    found = [v for (n, pairs), v in metrics.items() if n == name and all(dict(pairs).get(k) == w for k, w in labels.items())]
    if not found:
        raise AssertionError(f"no metric {name}{labels}; there are {sorted({n for n, _ in metrics})}")
    return sum(found)


class Cluster:
    def __init__(self, nodes=2):
        if os.geteuid() != 0:
            raise Skip("network namespaces and engines of our own need root")
        for program in ("dockerd", "ip", "nsenter"):
            if not shutil.which(program):
                raise Skip(f"{program} is not installed")
        for program in PROGRAMS:
            if not os.access(f"{BIN}/{program}", os.X_OK):
                raise AssertionError(f"{BIN}/{program} was not built")
        number = os.getpid() % 250 + 1
        while os.path.exists(f"/sys/class/net/dvt{number}"):
            number = number % 250 + 1
        self.tag = self.bridge = f"dvt{number}"
        self.prefix = f"10.214.{number}"
        self.address = f"{self.prefix}.1"
        self.url = f"http://{self.address}:8080"
        self.directory = tempfile.mkdtemp(prefix="davit-test-", dir=os.environ.get("DAVIT_TEST_DIR", "/var/tmp"))
        os.chmod(self.directory, 0o755)
        self.nodes = [Node(self, i + 1) for i in range(nodes)]
        self.orchestrator = None
        self._is_down = False
        atexit.register(self.down)
        for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(s, lambda number, frame: sys.exit(128 + number))

    # ---- up and down

    def up(self):
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.address}/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        for node in self.nodes:
            node.network_up()
        images = self.build_images()
        for node in self.nodes:
            node.engine.start()
        for node in self.nodes:
            node.engine.wait()
            for image, tar in images.items():
                node.engine.import_image(tar, image, ["/hello"])
        self.start_orchestrator()
        for node in self.nodes:
            node.start_agent()
        self.wait_ready()
        return self

    def build_images(self):
        hello, work = f"{self.directory}/hello", f"{self.directory}/tools"
        run("gcc", "-O2", "-static", "-pthread", "-s", "-o", hello, f"{ROOT}/deploy/examples/hello/hello.c")
        os.makedirs(f"{work}/bin")
        shutil.copy(shutil.which("busybox"), f"{work}/bin/busybox")
        shutil.copy(hello, f"{work}/hello")
        for name in ("sh", "sleep", "wc", "cat", "env", "head", "dd", "tr"):
            os.symlink("busybox", f"{work}/bin/{name}")
        run("tar", "-C", self.directory, "-cf", f"{hello}.tar", "hello")
        run("tar", "-C", work, "-cf", f"{work}.tar", "bin", "hello")
        return {HELLO: f"{hello}.tar", TOOLS: f"{work}.tar"}

    def wrap(self, program):
        """Words in front of the command line of `program` ("orchestrator", "agent")."""
        return []

    def start_orchestrator(self, *extra):
        command = [*self.wrap("orchestrator"), f"{BIN}/davit-orchestrator", "--listen", f"{self.address}:8080",
                   "--metrics-listen", f"{self.address}:8082", "--state-dir", f"{self.directory}/orchestrator", *extra]
        self.orchestrator = Process("orchestrator", command, f"{self.directory}/orchestrator.log").start()
        wait_until("the orchestrator answers", self._orchestrator_answers, 20)

    def _orchestrator_answers(self):
        if not self.orchestrator.is_running():
            raise AssertionError("the orchestrator ended: " + self.orchestrator.tail())
        return self.call("GET", "/healthz").status == 200

    def wait_ready(self, seconds=20):
        wait_until(f"{len(self.nodes)} nodes ready", lambda: self.ready_nodes() == len(self.nodes), seconds)

    def ready_nodes(self):
        return sum(n["state"] == "ready" for n in self.api("GET", "/v1/nodes").json["nodes"])

    def down(self):
        if self._is_down:
            return
        self._is_down = True
        for process in [n.agent for n in self.nodes] + [self.orchestrator]:
            if process:
                process.stop()
        for node in self.nodes:
            node.engine.clear()
        for node in self.nodes:
            node.engine.stop()
            if node.namespace:
                run("ip", "netns", "delete", node.namespace, check=False)
        if self.bridge:
            run("ip", "link", "delete", self.bridge, check=False)
        with open("/proc/mounts") as f:
            mounts = [line.split()[1] for line in f if line.split()[1].startswith(self.directory)]
        for mount in sorted(mounts, reverse=True):
            run("umount", "-l", mount, check=False)
        if os.environ.get("DAVIT_KEEP"):
            print("kept", self.directory)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def show_logs(self):
        for process in [self.orchestrator] + [n.agent for n in self.nodes]:
            if process:
                for line in process.tail(20).splitlines():
                    print(f"| {process.name}: {line}")

    # ---- talking to it

    def secret(self, name):
        with open(f"{self.directory}/orchestrator/{name}") as f:
            return f.read().strip()

    def join_token(self):
        return self.secret("join-token")

    def call(self, method, path, body=None, headers=None, timeout=70):
        return exchange(http.client.HTTPConnection(self.address, 8080, timeout=timeout), method, path, body, headers)

    def api(self, method, path, body=None, headers=None):
        """With the admin's password."""
        basic = base64.b64encode(f"admin:{self.secret('admin-password')}".encode()).decode()
        headers = {"Authorization": "Basic " + basic, **(headers or {})}
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        return self.call(method, path, body, headers)

    def invoke(self, name, path="", body=b"", method="POST", headers=None, timeout=70):
        return self.call(method, f"/function/{name}{path}", body, headers, timeout)

    def deploy(self, name, image=HELLO, **spec):
        a = self.api("POST", "/v1/functions", {"name": name, "image": image, **spec})
        if a.status != 201:
            raise AssertionError(f"deploy of {name}: {a}")
        return a.json

    def describe(self, name):
        a = self.api("GET", f"/v1/functions/{name}")
        if a.status != 200:
            raise AssertionError(f"describe {name}: {a}")
        return a.json

    def remove(self, name):
        self.api("DELETE", f"/v1/functions/{name}")
        wait_until(f"no container of {name}", lambda: not self.containers(name), 30)

    def containers(self, name=None, running_only=False, ns="default"):
        """Of one function or of all, over every engine: [(node, container)]."""
        label = f"dev.davit.function={name}.{ns}" if name else "dev.davit.node"
        return [(n, c) for n in self.nodes for c in n.engine.containers(label, running_only)]

    def metrics(self):
        return metrics_of(http.client.HTTPConnection(self.address, 8082, timeout=10))

    def cli(self, *words, stdin=None, check=True):
        env = {**os.environ, "HOME": self.directory, "DAVIT_URL": self.url, "DAVIT_PASSWORD": self.secret("admin-password")}
        env.pop("XDG_CONFIG_HOME", None)
        r = subprocess.run([f"{BIN}/davit", *words], input=stdin or "", capture_output=True, text=True, env=env, timeout=120)
        if check and r.returncode:
            raise AssertionError(f"davit {' '.join(words)}: exit {r.returncode}: {r.stdout}{r.stderr}")
        return r


class Trickle:
    """Requests one after another while the cluster is disturbed; each outcome is kept."""

    def __init__(self, cluster, name, every=0.1, timeout=30):
        self.cluster, self.name, self.every, self.timeout = cluster, name, every, timeout
        self.outcomes = []  # (when, status or the exception's name)
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.ending.set()
        self.thread.join(self.timeout + 5)

    def _run(self):
        while not self.ending.is_set():
            try:
                status = self.cluster.invoke(self.name, timeout=self.timeout).status
            except (OSError, http.client.HTTPException) as e:
                status = type(e).__name__
            self.outcomes.append((time.monotonic(), status))
            self.ending.wait(self.every)

    def good_since(self, when, count=5):
        """The last `count` outcomes are all 200 and began after `when`."""
        last = self.outcomes[-count:]
        return len(last) == count and last[0][0] > when and all(s == 200 for _, s in last)
