"""What a container takes of its machine, as the kernel counts it: cgroup v1 and v2."""
import os


def cgroup_usage(pid):
    """Of the cgroup that the process is in.  memory: what is charged, less what the kernel would give up first.  held: what
    its pages and the kernel's objects take; the charge is up to 256 KiB a processor ahead of that (the kernel charges in
    batches and keeps the rest for the next page)."""
    with open(f"/proc/{pid}/cgroup") as f:
        groups = dict(line.strip().split(":", 2)[1:] for line in f)
    memory_v1 = next((f"/sys/fs/cgroup/memory{p}" for c, p in groups.items() if "memory" in c.split(",")), None)
    if memory_v1:
        cpu = next(f"/sys/fs/cgroup/{c}{p}" for c, p in groups.items() if "cpuacct" in c.split(","))
        if not os.path.exists(cpu):
            cpu = next(f"/sys/fs/cgroup/cpuacct{p}" for c, p in groups.items() if "cpuacct" in c.split(","))
        total, stat = number(f"{memory_v1}/memory.usage_in_bytes"), table(f"{memory_v1}/memory.stat")
        kernel = number(f"{memory_v1}/memory.kmem.usage_in_bytes")
        return {"memory": total - stat.get("total_inactive_file", 0), "held": stat["total_rss"] + stat["total_cache"] + kernel,
                "limit": number(f"{memory_v1}/memory.limit_in_bytes"), "cpu_us": number(f"{cpu}/cpuacct.usage") // 1000}
    path = "/sys/fs/cgroup" + groups[""]
    total, stat = number(f"{path}/memory.current"), table(f"{path}/memory.stat")
    return {"memory": total - stat["inactive_file"], "held": stat["anon"] + stat["file"] + stat["kernel"],
            "limit": number(f"{path}/memory.max"), "cpu_us": table(f"{path}/cpu.stat")["usage_usec"]}


def container_memory(pid):
    """Bytes that the container of this process holds: its cgroup's, and its shim's own (not shared with other shims)."""
    return {"cgroup": cgroup_usage(pid)["held"], "shim": private_memory(parent(pid))}


def private_memory(pid):
    """Resident bytes that no other process has."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return sum(int(line.split()[1]) * 1024 for line in f if line.startswith("Private_"))


def parent(pid):
    with open(f"/proc/{pid}/stat") as f:
        return int(f.read().rsplit(") ", 1)[1].split()[1])


def number(path):
    with open(path) as f:
        return int(f.read())


def table(path):
    with open(path) as f:
        return {k: int(v) for k, v in (line.split() for line in f)}
