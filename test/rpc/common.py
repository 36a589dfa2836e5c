# SPDX-License-Identifier: GPL-2.0-only
"""What tests of requests share: protobuf by hand, clients, services, programs to be dumped, and the
runner. A test is a function of its temporary folder."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
CRIU = os.environ.get("CRIU", str(ROOT / "criu/criu"))
PATIENCE_SEC = 20
EMPTY, DUMP, RESTORE, CHECK, PRE_DUMP, _, NOTIFY = range(7)
CPUINFO_DUMP, CPUINFO_CHECK, FEATURE_CHECK, VERSION, WAIT_PID = 7, 8, 9, 10, 11
SINGLE_PRE_DUMP = 13
# numbers of fields
REQ = dict(type=1, opts=2, notify_success=3, keep_open=4, features=5, pid=6)
OPTS = dict(images_dir_fd=1, pid=2, leave_running=3, shell_job=7, log_level=9, log_file=10, notify_scripts=12, parent_img=14,
            track_mem=15,            tcp_established=5, cpu_cap=20, inherit_fd=27, external=37, timeout=45, config_file=51,
            pre_dump_mode=61, pidfd_store_sk=62)
RESP = dict(type=1, success=2, dump=3, restore=4, notify=5, cr_errno=7, features=8, cr_errmsg=9, version=10)
tests = []


class Bad(Exception):
    pass


class Skip(Exception):
    pass


def need(condition, text):
    if not condition:
        raise Bad(text)


def test(function):
    tests.append(function)
    return function


# ---- protobuf ----

def varint(n):
    n &= (1 << 64) - 1
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def message(numbers, **fields):
    out = b""
    for name, value in fields.items():
        for v in value if isinstance(value, list) else [value]:
            if isinstance(v, str):
                v = v.encode()
            key = numbers[name] << 3
            out += varint(key | 2) + varint(len(v)) + v if isinstance(v, bytes) else varint(key) + varint(int(v))
    return out


def take_varint(data, pos):
    n = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        n |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return n, pos


def parse(data):
    fields, pos = {}, 0
    while pos < len(data):
        key, pos = take_varint(data, pos)
        value, pos = take_varint(data, pos)
        if key & 7 == 2:
            value, pos = data[pos:pos + value], pos + value
        fields[key >> 3] = value
    return fields


class Answer:
    def __init__(self, data):
        self.fields = parse(data)
        self.type = self.fields.get(1)
        self.success = self.fields.get(2)
        self.text = self.fields.get(9, b"").decode()

    def part(self, name):
        return parse(self.fields.get(RESP[name], b""))

    def __repr__(self):
        return f"type {self.type} success {self.success} {self.text!r}"


# ---- clients and targets ----

class Client:
    def __init__(self, fd):
        self.sock = fd
        self.sock.settimeout(PATIENCE_SEC)
        self.stages = []

    def send(self, type, **fields):
        self.sock.send(message(REQ, type=type, **fields))

    def receive(self, agree=lambda stage: True):
        """The answer, after all notifications were acknowledged."""
        while True:
            data = self.sock.recv(1 << 20)
            need(data, "the connection was closed without an answer")
            a = Answer(data)
            if a.type != NOTIFY:
                return a
            stage = a.part("notify")[1].decode()
            self.stages.append((stage, a.part("notify").get(2)))
            self.send(NOTIFY, notify_success=agree(stage))

    def ask(self, type, agree=lambda stage: True, **fields):
        self.send(type, **fields)
        return self.receive(agree)


class Worker(Client):
    def __init__(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen([CRIU, "swrk", str(theirs.fileno())], pass_fds=[theirs.fileno()],
                                        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        theirs.close()
        super().__init__(ours)

    def end(self):
        self.sock.close()
        self.process.communicate(timeout=PATIENCE_SEC)
        return self.process.returncode


class Service:
    DESCRIPTORS = 6  # the first three, the socket, the one for signals, the one for the next worker

    def __init__(self, work):
        self.path = os.path.join(work, "sock")
        self.process = subprocess.Popen([CRIU, "service", "--address", self.path], stdin=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        await_true("the socket of the service", lambda: self.connects())

    def connects(self):
        try:
            self.client().sock.close()
            return True
        except OSError:
            return False

    def client(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(self.path)
        return Client(s)

    def listens(self, pid):
        """The process that waits for the next client still has the socket of the service."""
        try:
            fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            return False
        return os.readlink(f"/proc/{self.process.pid}/fd/3") in fds

    def workers(self):
        """Those that have a client."""
        all = open(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read().split()
        return [pid for pid in all if not self.listens(pid)]

    def await_rest(self, what):
        """Waits until it serves nobody, and has closed what it had for that."""
        await_true(f"{what}: no worker is left", lambda: not self.workers())
        await_true(f"{what}: no descriptor is left",
                   lambda: len(os.listdir(f"/proc/{self.process.pid}/fd")) == self.DESCRIPTORS)

    def end(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        self.process.wait(PATIENCE_SEC)
        return self.process.returncode


def await_true(what, condition):
    end = time.monotonic() + PATIENCE_SEC
    while not condition():
        need(time.monotonic() < end, f"{what}: not within {PATIENCE_SEC} s")
        time.sleep(0.005)


# One process: a child that is killed waits for init, which may take its time to reap it.
COUNT = '$| = 1; while (1) { print ++$n, "\\n"; select(undef, undef, undef, 0.02); }'


class Target:
    def __init__(self, work, before="", children=0):
        """before: what a shell does first, in the session of the target, with processes of its own."""
        self.out = os.path.join(work, "count")
        with open(self.out, "w") as out:
            asleep = "sleep 100000 & " * children
            shell = f"cd {work}; ({before}:) > /dev/null; cd /; {asleep}exec perl -e '{COUNT}'"
            self.process = subprocess.Popen(["sh", "-c", shell], stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=subprocess.DEVNULL, start_new_session=True)
        self.pid = self.process.pid
        self.grows()
        self.images = os.path.join(work, "images")
        os.makedirs(self.images)
        self.fd = os.open(self.images, os.O_RDONLY | os.O_DIRECTORY)

    def numbers(self):
        return [int(n) for n in open(self.out).read().split()]

    def grows(self):
        n = len(self.numbers())
        await_true("the program goes on", lambda: len(self.numbers()) > n + 1)
        need(self.numbers() == list(range(1, len(self.numbers()) + 1)), "it does not count on")

    def opts(self, **more):
        return message(OPTS, **{'images_dir_fd': self.fd, 'pid': self.pid, 'log_level': 4, **more})

    def end(self):
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.fd)


def with_target(function):
    def run(work):
        t = Target(work)
        try:
            function(work, t)
        finally:
            t.end()
    run.__name__ = function.__name__
    return test(run)


def run_tests(suite):
    """Runs those that the command line names, or all; ends the program."""
    counts = dict(ok=0, FAIL=0, skip=0)
    wanted = sys.argv[1:]
    for function in tests:
        if wanted and function.__name__ not in wanted:
            continue
        work = tempfile.mkdtemp(prefix=f"criu-{suite}-")
        start = time.monotonic()
        try:
            function(work)
            counts["ok"] += 1
            print(f"{function.__name__}: ok ({time.monotonic() - start:.1f} s)", flush=True)
            shutil.rmtree(work)
        except Skip as e:
            counts["skip"] += 1
            print(f"{function.__name__}: skipped ({e})", flush=True)
            shutil.rmtree(work)
        except Exception as e:
            counts["FAIL"] += 1
            where = traceback.extract_tb(e.__traceback__)
            line = next((f.lineno for f in reversed(where) if f.filename != __file__), 0)
            print(f"{function.__name__}: FAIL (line {line}: {type(e).__name__}: {e})\n    kept: {work}", flush=True)
    print(f"{suite}: {counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    sys.exit(counts["FAIL"] != 0)
