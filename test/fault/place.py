# SPDX-License-Identifier: GPL-2.0-only
"""Where the tests of faults take place: a pid, mount and net namespace of their own, whose first process
is the test. Whoever else is in there was started by it, and all that anybody leaves behind shows."""
import ctypes
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test/cycle"))
import snapshot  # noqa: E402

CRIU = os.environ.get("CRIU", str(ROOT / "criu/criu"))
MK = os.environ.get("MK", str(ROOT / "test/mk/mk"))
INJECT = str(ROOT / "test/fault/inject")
MOVER = str(ROOT / "test/fault/mover")
HANG_SEC = 20
POLL_SEC = 0.001
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG = 1
MNT_DETACH = 2
SIGSUSPEND = 130  # rt_sigsuspend(2)
PF_EXITING = 4
WATCHED = ("/run", "/dev/shm")
REMOUNT, RDONLY = 0x20, 0x1


class Wrong(Exception):
    pass


def need(condition, text):
    if not condition:
        raise Wrong(text)


def enter():
    """This process stays outside and gives its status; the first one inside goes on. False: not to be had."""
    if LIBC.unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET):
        return False
    pid = os.fork()
    if pid:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a job in the background ignores some
        signal.signal(number, signal.SIG_DFL)
    for call in (["mount", "--make-rprivate", "/"], ["mount", "-t", "proc", "proc", "/proc"]):
        subprocess.run(call, check=True)
    for folder in WATCHED:
        mount_tmpfs(folder)
    os.mkdir("/run/mount")  # mount(8) would make it
    return True


def mount_tmpfs(folder, flags=0, options=""):
    if LIBC.mount(b"tmpfs", str(folder).encode(), b"tmpfs", flags, options.encode()):
        raise OSError(ctypes.get_errno(), f"mount {folder} {options}")


def unmount(folder):
    LIBC.umount2(str(folder).encode(), MNT_DETACH)


# ---- processes ----

def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def others():
    return [int(n) for n in os.listdir("/proc") if n.isdigit() and int(n) != os.getpid()]


def state_of(pid):
    return snapshot.stat_fields(f"/proc/{pid}/stat").get(3, "X")


def living():
    reap()
    return [pid for pid in others() if state_of(pid) not in "ZX"]


def await_true(what, condition):
    deadline = time.monotonic() + HANG_SEC
    while True:
        value = condition()
        if value:
            return value
        need(time.monotonic() < deadline, f"not within {HANG_SEC} s: {what}")
        time.sleep(POLL_SEC)


def are_dying(pids):
    """Some have been sent a SIGKILL and are not dead yet."""
    for pid in pids:
        status = snapshot.read(f"/proc/{pid}/status")
        flags = snapshot.stat_fields(f"/proc/{pid}/stat").get(9, "0")
        pending = re.findall(r"(?:SigPnd|ShdPnd):\s*([0-9a-f]+)", status)
        if int(flags) & PF_EXITING or any(int(p, 16) >> signal.SIGKILL - 1 & 1 for p in pending):
            return True
    return False


def is_of_criu(pid):
    return snapshot.read(f"/proc/{pid}/comm").startswith("criu")


def survivors():
    """Who lives on when the dying are dead, and those are done that criu has made for itself (task/letgo.c)."""
    await_true("the dying are dead", lambda: not are_dying(living()) and not any(map(is_of_criu, living())))
    return living()


def all_are_gone():
    reap()
    return not others()


def end_all():
    for _ in range(1000):
        for pid in others():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        if all_are_gone():
            return
        time.sleep(POLL_SEC)
    raise Wrong(f"processes that cannot be killed: {describe(others())}")


def describe(pids):
    def one(pid):
        status = {l.split(":")[0]: l.split(":", 1)[1].strip() for l in snapshot.read(f"/proc/{pid}/status").splitlines() if ":" in l}
        return (f"{pid} ({status.get('Name')}) {status.get('State')}, traced by {status.get('TracerPid')}, "
                f"in call {snapshot.read(f'/proc/{pid}/syscall').strip()}, "
                f"{snapshot.read(f'/proc/{pid}/wchan').strip()}")
    return "; ".join(one(pid) for pid in pids)


# ---- what is there besides processes ----

def netfilter_tables():
    """As nf_tables tells them over netlink, and those of the older interface."""
    found = [f for f in ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")
             for _ in snapshot.read(f).splitlines() if "unreadable" not in _]
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as s:  # NETLINK_NETFILTER
            s.settimeout(HANG_SEC)
            s.send(struct.pack("=IHHIIBBH", 20, 10 << 8 | 1, 0x301, 1, 0, 0, 0, 0))  # NFT_MSG_GETTABLE, dump
            while True:
                data = s.recv(65536)
                while data:
                    size, kind = struct.unpack("=IH", data[:6])
                    if kind in (2, 3):  # an error: no nf_tables here; the end
                        return found
                    found.append("table " + data[20:size].hex())
                    data = data[size + 3 & ~3:]
    except OSError:
        return found


class World:
    """
    Mounts, tables of netfilter, and all files below some folders. Of sockets whose process is dead only names
    that are new count: a restore binds such a name again, and when it fails then it is gone.
    """

    def __init__(self, folders, passed_over=r"\.log$|\.status$|/images/|^/run/criu-tracking"):
        self.folders, self.passed_over = [str(f) for f in folders], re.compile(passed_over)
        self.before = self.look()

    def files(self):
        for folder in self.folders:
            for d, names, files in os.walk(folder):
                for n in names + files:
                    path = os.path.join(d, n)
                    if not self.passed_over.search(path):
                        st = os.lstat(path)
                        yield f"file {path} {st.st_mode:o} {st.st_ino if not os.path.isdir(path) else ''}"

    def look(self):
        seen = {"mount " + l for l in snapshot.read("/proc/self/mountinfo").splitlines()
                if not l.split()[4].endswith(("/images", "/disk"))}  # the tests mount those
        seen |= set(self.files())
        seen |= {f"netfilter {t}" for t in netfilter_tables()}
        return seen

    def sockets(self):
        """When no process is there nobody has a socket."""
        return [l.split()[-1] for l in snapshot.read("/proc/net/unix").splitlines()[1:]]

    def changes(self):
        now = self.look()
        sockets = {l.split(" 14")[0] for l in self.before if re.search(r" 14\d{4} ", l)}
        gone = {l for l in self.before - now if l.split(" 14")[0] not in sockets}
        new = {l for l in now - self.before if l.split(" 14")[0] not in sockets}
        return sorted("gone: " + l for l in gone) + sorted("new: " + l for l in new)

    def must_be_as_before(self, when):
        changes = self.changes()
        need(not changes, f"{when}: {changes[:6]}")


# ---- a tree ----

MEMBERS = (
    ("regs", "threads=0"),
    ("threads", "n=5"),
    ("timers",),
    ("unixsk", "dir={dir}"),
    ("pipes",),
    ("epolls",),
    ("signals", "pending=1"),
    ("mem", "dir={dir}", "size=400000", "maps=3", "shm=65536"),
    ("ghost", "dir={dir}"),
    ("remap", "dir={dir}"),
    ("tree", "dir={dir}", "depth=1", "width=2", "zombies=1", "stopped=19"),
)
SMALL = (("threads", "n=2"), ("unixsk", "dir={dir}"), ("ghost", "dir={dir}"), ("mem", "dir={dir}", "size=65536", "maps=3"))


# Lines of status that change by themselves.
CHANGING = re.compile("Vm|Rss|Hugetlb|State:.[RS]|SigQ|FDSize|voluntary_ctxt|nonvoluntary_ctxt")


class Member:
    """A process of test/mk. Its own checks are counted, also in images."""

    def __init__(self, name, status):
        self.name, self.status, self.pid, self.checks = name, status, 0, 0

    def lines(self):
        text = snapshot.read(self.status)
        return text[:text.rfind("\n") + 1].splitlines()

    def said(self, words):
        return next((l for l in self.lines() if l.startswith(words)), None)


class Tree:
    """Members below a shell that waits for them: threads, sockets, timers, a busy vector loop."""

    DUMP = ("--link-remap",)

    def __init__(self, top, members=MEMBERS):
        self.dir = pathlib.Path(top)
        self.dir.mkdir()
        self.members, script = [], []
        for number, words in enumerate(members):
            name = f"{words[0]}{number}"
            place = self.dir / name
            place.mkdir()
            m = Member(name, self.dir / f"{name}.status")
            self.members.append(m)
            script.append(" ".join([MK] + [w.format(dir=place) for w in words] + [f"status={m.status}", "&"]))
        null = open("/dev/null", "r+")
        self.root = subprocess.Popen(["sh", "-c", "\n".join(script) + "\nwait\n"], stdin=null, stdout=null, stderr=null,
                                     start_new_session=True, cwd="/").pid
        for m in self.members:
            line = await_true(f"{m.name} is ready", lambda: m.said("ready ") or m.said("skip") or m.said("error"))
            need(line.startswith("ready "), f"{m.name}: {line}")
            m.pid = int(line.split()[1])

    def is_restless(self):
        spinning = [m.pid for m in self.members if m.name.startswith("regs")]
        for pid in snapshot.tree(self.root):
            if snapshot.is_zombie(pid) or snapshot.is_stopped(pid):
                continue
            states = [state_of(tid) for tid in snapshot.tids(pid)]
            if not any(snapshot.is_serving(pid, tid) or snapshot.is_reading(pid, tid) for tid in snapshot.tids(pid)) or \
               sum(s != "S" for s in states) > (pid in spinning):
                return describe([pid])
        return None

    def await_rest(self):
        await_true("the tree is at rest", lambda: not self.is_restless())

    def is_volatile(self, pid, line):
        """
        Signals of the volley of timers that the member for them starts. And the mask of who is stopped in a
        sigsuspend: it is the temporary one, or, until it goes on, its own if it was a tracee meanwhile.
        """
        if line.startswith("SigBlk:"):
            return snapshot.is_stopped(pid) and snapshot.read(f"/proc/{pid}/syscall").startswith(f"{SIGSUSPEND} ")
        return "Pnd:" in line and any(m.pid == pid and m.name.startswith("timers") for m in self.members)

    def look(self):
        """All of status, mappings and descriptors, as it stands: for a tree that nobody may touch."""
        self.await_rest()
        seen = {}
        for pid in snapshot.tree(self.root):
            seen[f"maps of {pid}"] = snapshot.read(f"/proc/{pid}/maps").splitlines()
            seen[f"timers of {pid}"] = snapshot.read(f"/proc/{pid}/timers").splitlines()
            for tid in snapshot.tids(pid):
                seen[f"status of {tid}"] = [l for l in snapshot.read(f"/proc/{pid}/task/{tid}/status").splitlines()
                                            if not CHANGING.match(l) and not self.is_volatile(pid, l)]
            for fd in os.listdir(f"/proc/{pid}/fd") if not snapshot.is_zombie(pid) else []:
                info = [l for l in snapshot.read(f"/proc/{pid}/fdinfo/{fd}").splitlines() if not l.startswith(("it_value", "ticks"))]
                seen[f"descriptor {fd} of {pid}"] = [snapshot.link(f"/proc/{pid}/fd/{fd}"), *info]
        return seen

    def snapshot(self):
        """What is the same in a restored tree."""
        self.await_rest()
        return [l for l in snapshot.take(self.root, "idle")
                if "deleted" not in l and not self.is_volatile(int(l.split(" ")[0]) if l[0].isdigit() else 0, l)]

    def must_be_alone(self, when):
        """Of all processes only those of the tree are left."""
        strangers = set(living()) - set(snapshot.tree(self.root))
        need(not strangers, f"{when}: others than the tree: {describe(strangers)}")

    def must_look_like(self, before, when, but=()):
        now = self.look()
        for key in sorted(before.keys() | now.keys()):
            if int(key.split()[-1]) in but:
                continue
            old, new = before.get(key, []), now.get(key, [])
            need(old == new, f"{when}: {key}: was {[l for l in old if l not in new]}, is {[l for l in new if l not in old]}; "
                 f"{describe([p for p in [int(key.split()[-1])] if os.path.exists(f'/proc/{p}')])}")
        self.must_be_alone(when)

    def must_be_restored(self, before, when):
        now = self.snapshot()
        gone, new = set(before) - set(now), set(now) - set(before)
        need(before == now, f"{when}: /proc differs: gone {sorted(gone)[:6]}, new {sorted(new)[:6]}")
        self.must_be_alone(when)

    def check(self, when):
        """All members look themselves whether all they have is as it was."""
        for m in self.members:
            m.checks += 1
            os.kill(m.pid, signal.SIGUSR1)
        for m in self.members:
            line = await_true(f"{when}: check {m.checks} of {m.name}, {describe([m.pid])}", lambda: m.said(f"check {m.checks} "))
            need(line == f"check {m.checks} ok", f"{when}: {m.name} says: {line}")

    def mark(self):
        """At a dump: what the files of the members are then."""
        return [(m.checks, m.status.stat().st_size) for m in self.members]

    def rewind(self, mark):
        """Before a restore: the files are as they were at the dump."""
        for m, (checks, size) in zip(self.members, mark):
            os.truncate(m.status, size)
            m.checks = checks
