"""What the benches measure in: one network namespace of their own, and in it an engine, Davit, nginx, HAProxy, the load.

    with World(args) as w: w.start_davit(); ...; w.load(url, connections=32, seconds=2)

Everything lives in that namespace (made by unshare, so it goes with its processes), in one temporary directory, and
in containers of an engine that ends with us.  The path's processes are pinned to --path-cpus; the load, the function,
the engine and this program to --load-cpus.  Each process is remembered by its pid and dies with this program."""
import argparse
import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("DAVIT_BUILD", f"{ROOT}/build/release")
os.environ.setdefault("DAVIT_BIN", f"{BUILD}/bin")
sys.path.insert(0, f"{ROOT}/tests/support")
from cluster import HELLO, PROGRAMS, Cluster, Process, exchange, metric_sum, run  # noqa: E402
from scenario import Skip, wait_until  # noqa: E402
import http.client  # noqa: E402

CLONE_NEWNET = 0x40000000
FUNCTION = "davit/bench:test"
NGINX_PORT, HAPROXY_PORT = 8181, 8182
FILES = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65536)


def options(doc, **defaults):
    """The options that all benches have; `defaults` of more of them: name=(default, help)."""
    cpus = sorted(os.sched_getaffinity(0))
    p = argparse.ArgumentParser(description=doc.split("\n", maxsplit=1)[0])
    p.add_argument("--json", action="store_true", help="one JSON object on standard output")
    p.add_argument("--smoke", action="store_true", help="a few seconds that show the bench works; figures mean nothing")
    p.add_argument("--path-cpus", default=str(cpus[0]), help="what nginx, HAProxy, Davit may use (%(default)s)")
    p.add_argument("--load-cpus", default=str(cpus[-1]), help="what load and function may use (%(default)s)")
    p.add_argument("--nice", type=int, default=0, help="niceness of all that is measured; -10 where other programs run, too")
    p.add_argument("--perf", metavar="DIR", help="write profiles of gateway and agent there (needs perf)")
    for name, (default, text) in defaults.items():
        p.add_argument("--" + name.replace("_", "-"), type=type(default), default=default, help=f"{text} (%(default)s)")
    return p


def cpu_list(text):
    out = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        out.update(range(int(first), int(last or first) + 1))
    return out


def favour(pid, nice):
    """Where sessions are scheduled as groups, a process's own niceness only counts among its session."""
    if nice:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/autogroup", "w") as f:
            f.write(str(nice))


def own_network():
    """From here on this program and its children are in a network of their own, with nothing but loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise Skip("a network namespace of our own: " + os.strerror(ctypes.get_errno()))
    run("ip", "link", "set", "lo", "up")


def cpu_ns(pids):
    """CPU time that the processes have used, all threads, in nanoseconds (in 10 ms steps where the kernel counts no finer)."""
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                try:
                    with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                        total += int(f.read().split()[0])
                except FileNotFoundError:
                    with open(f"/proc/{pid}/task/{task}/stat") as f:
                        fields = f.read().rsplit(") ", 1)[1].split()
                    total += (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return total


def memory(pid, field="VmRSS"):
    """Resident bytes now (VmRSS) or at the most since reset_peak (VmHWM)."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(field + ":"))


def reset_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")


def busy_share(cpus):
    """A context: .value is how busy these processors were, 0..1."""
    return _Busy(cpus)


class _Busy:
    def __init__(self, cpus):
        self.cpus, self.value = {f"cpu{c}" for c in cpus}, 0.0

    def _read(self):
        with open("/proc/stat") as f:
            rows = [[int(x) for x in line.split()[1:9]] for line in f if line.split()[0] in self.cpus]
        return sum(map(sum, rows)), sum(r[3] + r[4] for r in rows)

    def __enter__(self):
        self.before = self._read()
        return self

    def __exit__(self, *exc):
        total, idle = (after - before for after, before in zip(self._read(), self.before))
        self.value = 1 - idle / total if total else 0.0


SPIN = """
import time
end = last = time.perf_counter_ns()
end, gaps = end + SECONDS * 10**9, []
while last < end:
    now = time.perf_counter_ns()
    if now - last > 500_000:
        gaps.append(now - last)
    last = now
print(len(gaps), sum(gaps))
"""


def machine_stalls(cpus, seconds=2):
    """How often a program that only looks at the clock is stopped for over 0.5 ms while all these processors are busy, and
    for how long together: what the machine, or the host of a virtual one, takes for itself."""
    spin = SPIN.replace("SECONDS", str(seconds))
    started = [subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(c), sys.executable, "-c", spin],
                                stdout=subprocess.PIPE, text=True) for c in sorted(cpus)]
    seen = [[int(x) for x in p.communicate()[0].split()] for p in started]
    return {"per_s": round(sum(n for n, _ in seen) / seconds, 1), "ms_per_s": round(sum(ns for _, ns in seen) / 1e6 / seconds, 2)}


def median(values):
    return statistics.median(values)


def ratio(a, b):
    """None where there is nothing to divide by: a smoke on a busy machine may see no answer in time."""
    return round(a / b, 3) if b else None


def build():
    """The release build of this tree, unless DAVIT_BUILD names another that is there already."""
    if "DAVIT_BUILD" in os.environ:
        return
    run("cmake", "--preset", "release", "-DDAVIT_TESTS=ON", cwd=ROOT)  # the quick start leaves it without tests
    run("cmake", "--build", "--preset", "release", "--target", *PROGRAMS, "davit-load", cwd=ROOT)


class Loads:
    """What can be sent to a cluster: davit-load on --load-cpus."""

    load_program = f"{BUILD}/bench/davit-load"

    def load(self, url, connections=1, seconds=2.0, *, rate=0, warmup=0.2, extra=()):
        return self.finish(self.begin_load(url, connections, seconds, rate=rate, warmup=warmup, extra=extra))

    def begin_load(self, url, connections=1, seconds=2.0, *, rate=0, warmup=0.2, extra=()):
        command = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", self.args.load_cpus, self.load_program,
                   "-c", connections, "-d", seconds, "-w", warmup, "-r", rate, *extra, url]
        process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True, start_new_session=True)
        favour(process.pid, self.args.nice)
        return process

    @staticmethod
    def finish(process):
        out = process.communicate()[0]
        if process.returncode:
            raise AssertionError(f"davit-load ended with {process.returncode}")
        return json.loads(out)


class World(Loads, Cluster):
    """A cluster of one node whose parts all share one network."""

    def __init__(self, args):
        for program in ("taskset", "setpriv", "gcc"):
            if not shutil.which(program):
                raise Skip(f"{program} is not installed")
        super().__init__(nodes=1)
        self.args = args
        self.path_cpus, self.load_cpus = cpu_list(args.path_cpus), cpu_list(args.load_cpus)
        self.address, self.bridge = "127.0.0.1", None
        self.url = f"http://{self.address}:8080"
        self.node = self.nodes[0]
        self.node.namespace = self.node.engine.namespace = None
        self.node.address = self.address
        self.engine = self.node.engine
        self.engine.wrap = ["setpriv", "--pdeathsig", "TERM"]
        self.proxies = []

    def __enter__(self):
        os.sched_setaffinity(0, self.load_cpus)
        os.nice(self.args.nice)
        own_network()
        images = self.build_images()
        self.engine.start()
        self.engine.wait()
        for image, (tar, entrypoint) in images.items():
            self.engine.import_image(tar, image, entrypoint)
        return self

    def __exit__(self, *exc):
        if exc[0] and exc[0] is not SystemExit:
            self.show_logs()
        self.down()

    def down(self):
        if not self._is_down:
            for proxy in self.proxies:
                proxy.stop()
        super().down()

    # ---- what is measured

    def build_images(self):
        images = {}
        for image, name, source in ((HELLO, "hello", "deploy/examples/hello/hello.c"),
                                    (FUNCTION, "function", "tests/bench/function.c")):
            run("gcc", "-O2", "-static", "-pthread", "-s", "-D_GNU_SOURCE", "-o", f"{self.directory}/{name}", f"{ROOT}/{source}")
            run("tar", "-C", self.directory, "-cf", f"{self.directory}/{name}.tar", name)
            images[image] = (f"{self.directory}/{name}.tar", [f"/{name}"])
        return images

    def wrap(self, program):
        """Of the path: ends with us, runs on the path's processors."""
        return ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", self.args.path_cpus]

    def start_davit(self, seconds=20):
        loops = str(len(self.path_cpus))
        self.start_orchestrator("--gateway-threads", loops)
        self.node.start_agent("--loops", loops)
        for pid in (self.gateway_pid, self.agent_pid):
            favour(pid, self.args.nice)
        self.wait_ready(seconds)

    @property
    def gateway_pid(self):
        return self.orchestrator.pid

    @property
    def agent_pid(self):
        return self.node.agent.pid

    def deploy_warm(self, name, image=FUNCTION, concurrency=2000, **spec):
        """A function with one replica that stays; its container's address."""
        spec.setdefault("cpu", "always")  # others ask it directly, and Davit would think it idle
        spec.setdefault("scale", {}).update({"min": 1, "max": 1, "concurrency": concurrency, "queue_max": 10000})
        self.deploy(name, image, **spec)
        address = self.wait_warm(name)
        self.node.wait_pools()  # the engine has nothing left to do beside us
        return address

    def wait_warm(self, name, seconds=60):
        wait_until(f"{name} is warm", lambda: self.describe(name)["status"]["ready"] >= 1, seconds)
        replica = self.describe(name)["replicas"][0]
        return self._settle(replica["container"], replica["address"])  # its network may be a holder's

    def start_plain(self, image=FUNCTION):
        """The function without Davit: a container of the engine's own."""
        container = self.engine.call("POST", "/containers/create", {
            "Image": image, "Env": ["PORT=8080"], "Labels": {"dev.davit.node": "bench"}}).json["Id"]
        self.engine.call("POST", f"/containers/{container}/start")
        return self._settle(container)

    def _settle(self, container, address=None):
        """Pin the container's processes to the load's side; its address once it answers."""
        state = self.engine.call("GET", f"/containers/{container}/json").json
        for task in os.listdir(f"/proc/{state['State']['Pid']}/task"):
            os.sched_setaffinity(int(task), self.load_cpus)
        if not address:
            networks = state["NetworkSettings"]["Networks"].values()
            address = next(f"{n['IPAddress']}:8080" for n in networks if n["IPAddress"])
        self.wait_answers(*address.rsplit(":", 1))
        return address

    def wait_answers(self, host, port, path="/"):
        def answers():
            return exchange(http.client.HTTPConnection(host, port, timeout=5), "GET", path).status == 200
        wait_until(f"http://{host}:{port}{path} answers 200", answers, 20)

    def start_nginx(self, upstream):
        """One hop: workers for the path's processors, connections to the function kept alive, no log."""
        directory = f"{self.directory}/nginx"
        os.makedirs(f"{directory}/tmp", exist_ok=True)
        temp = "".join(f"  {kind}_temp_path {directory}/tmp;\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(f"{directory}/nginx.conf", "w") as f:
            f.write(f"""daemon off;
user root;
pid {directory}/nginx.pid;
error_log {directory}/error.log error;
worker_processes {len(self.path_cpus)};
worker_rlimit_nofile {FILES};
events {{ worker_connections {FILES // 2}; }}
http {{
{temp}  access_log off;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  upstream function {{
    server {upstream};
    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }}
  server {{
    listen 127.0.0.1:{NGINX_PORT} backlog=4096{' reuseport' if len(self.path_cpus) > 1 else ''};
    location / {{
      proxy_pass http://function;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
    location /streamed/ {{  # nothing by way of the disk
      proxy_pass http://function/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
""")
        return self._start_proxy("nginx", ["nginx", "-e", f"{directory}/error.log", "-c", f"{directory}/nginx.conf"], NGINX_PORT)

    def start_haproxy(self, upstream):
        directory = f"{self.directory}/haproxy"
        os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/haproxy.cfg", "w") as f:
            f.write(f"""global
  maxconn {FILES // 2 - 100}
  nbthread {len(self.path_cpus)}
defaults
  mode http
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
listen function
  bind 127.0.0.1:{HAPROXY_PORT} backlog 4096
  server function {upstream} pool-max-conn -1
""")
        return self._start_proxy("haproxy", ["haproxy", "-db", "-f", f"{directory}/haproxy.cfg"], HAPROXY_PORT)

    def _start_proxy(self, name, command, port):
        if not shutil.which(name):
            raise Skip(f"{name} is not installed")
        proxy = Process(name, [*self.wrap(name), *command], f"{self.directory}/{name}.log").start()
        favour(proxy.pid, self.args.nice)
        self.proxies.append(proxy)
        try:
            self.wait_answers("127.0.0.1", port)
        except AssertionError as e:
            raise AssertionError(f"{e}: {proxy.tail()}") from e
        return proxy

    # ---- what the gateway sees

    def wait_queue(self, function, at_least):
        wait_until(f"{at_least} requests wait for {function}",
                   lambda: metric_sum(self.metrics(), "davit_gateway_waiting", function=f"{function}.default") >= at_least, 10)

    def wait_connections(self, at_least):
        wait_until(f"{at_least} connections are open", lambda: metric_sum(self.metrics(), "davit_gateway_connections") >= at_least, 60)


def family(process):
    """Its pid and its children's: nginx serves from workers."""
    pids = [process.pid]
    for task in os.listdir(f"/proc/{process.pid}/task"):
        with open(f"/proc/{process.pid}/task/{task}/children") as f:
            pids += [int(p) for p in f.read().split()]
    return pids


class Profile:
    """`perf record` of one process while the context lasts; nothing when no directory was asked for."""

    def __init__(self, directory, name, pid):
        self.directory, self.name, self.pid, self.process = directory, name, pid, None

    def __enter__(self):
        if self.directory:
            os.makedirs(self.directory, exist_ok=True)
            self.process = subprocess.Popen(["perf", "record", "-q", "-g", "-o", f"{self.directory}/{self.name}.data", "-p", str(self.pid)],
                                            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *exc):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()


def table(rows, header):
    cells = [header] + [["-" if c is None else c if isinstance(c, str) else f"{c:,.0f}" if abs(c) >= 1000 else f"{c:.2f}" if isinstance(c, float) else str(c)
                         for c in row] for row in rows]
    widths = [max(len(r[i]) for r in cells) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))) for r in cells)


def bench(measure, show, parser, make=World):
    """Run one bench: measure(world, args) -> result; printed as JSON or by show(result)."""
    args = parser.parse_args()
    begin = time.monotonic()
    try:
        build()
        with make(args) as world:
            result = measure(world, args)
    except Skip as e:
        sys.exit(f"{parser.prog}: {e}")
    result["took_s"] = round(time.monotonic() - begin, 1)
    result["is_smoke"] = args.smoke
    if args.json:
        print(json.dumps(result))
    else:
        show(result)
    return result
