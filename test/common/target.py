# SPDX-License-Identifier: GPL-2.0-only
"""What suites share that dump and restore a process of test/mk."""
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test/cycle"))
from snapshot import children, descendants, is_zombie  # noqa: E402

CRIU = os.environ.get("CRIU", str(ROOT / "criu/criu"))
MK = os.environ.get("MK", str(ROOT / "test/mk/mk"))
PATIENCE = 60  # seconds
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


class Bad(Exception):
    pass


class Skip(Exception):
    pass


def need(condition, text):
    if not condition:
        raise Bad(text)


def await_true(what, is_true):
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        need(time.monotonic() < deadline, f"waited in vain: {what}")
        time.sleep(0.005)


class Suite:
    """Counts and prints results; its folder is kept if something failed."""

    def __init__(self, name):
        self.name = name
        self.work = pathlib.Path(tempfile.mkdtemp(prefix=f"criu-{name}-"))
        self.counts = dict(passed=0, failed=0, skipped=0)

    def test(self, name, run):
        try:
            run()
            result, text = "passed", "ok"
        except Skip as e:
            result, text = "skipped", f"skip: {e}"
        except Bad as e:
            result, text = "failed", f"FAIL: {e}\n    kept: {self.work}"
        for pid in descendants(os.getpid()):  # of a test that failed
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.counts[result] += 1
        print(f"{name}: {text}", flush=True)

    def end(self):
        if not self.counts["failed"]:
            shutil.rmtree(self.work)
        print("{name}: {passed} passed, {failed} failed, {skipped} skipped".format(name=self.name, **self.counts))
        sys.exit(self.counts["failed"] != 0)


class Target:
    """This program is its parent, after a restore too."""

    def __init__(self, work, *factory, user=None, before=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="t", dir=work))
        if user:
            os.chmod(work, 0o755)
            os.chown(self.dir, user, user)
        self.status = self.dir / "status"
        null = open("/dev/null", "r+")
        self.popen = subprocess.Popen([MK, *factory, f"status={self.status}"], stdin=null, stdout=null, stderr=null,
                                      start_new_session=True, cwd="/", user=user, preexec_fn=before)
        self.pid = self.popen.pid
        self.checks = self.dumps = 0
        await_true("the target is ready", self.is_ready)

    def is_ready(self):
        if self.popen.poll() == 77:
            raise Skip(self.status.read_text().strip())
        return self.status.exists() and "ready" in self.status.read_text()

    def check(self):
        """The target itself looks whether all it has is as it was."""
        os.kill(self.pid, signal.SIGUSR1)
        self.checks += 1
        line = f"check {self.checks} "
        await_true("the target's check", lambda: line in self.status.read_text())
        said = self.status.read_text().split(line)[1].splitlines()[0]
        need(said == "ok", f"the target says: {said}")

    def dump_argv(self, *more):
        self.dumps += 1
        self.images = self.dir / f"images{self.dumps}"
        self.images.mkdir()
        return [CRIU, "dump", "-t", str(self.pid), "-D", str(self.images), "-o", "dump.log", "-v4", *more]

    def dump(self, *more):
        """Returns the log."""
        self.dumped = self.checks, self.status.stat().st_size
        r = subprocess.run(self.dump_argv(*more), capture_output=True, text=True, timeout=PATIENCE)
        need(r.returncode == 0, f"dump {' '.join(more)}: {r.stderr}")
        if "-R" not in more:
            self.reap()
        return (self.images / "dump.log").read_text()

    def restore(self, *more):
        """Returns the log. The target was killed; what it said after the dump is forgotten."""
        self.checks, size = self.dumped
        os.truncate(self.status, size)
        r = subprocess.run([CRIU, "restore", "-d", "-S", "-D", self.images, "-o", "restore.log", "-v4", *more],
                           capture_output=True, text=True, timeout=PATIENCE)
        need(r.returncode == 0, f"restore {' '.join(more)}: {r.stderr}")
        return (self.images / "restore.log").read_text()

    def reap(self):
        """With its descendants, which have become ours."""
        os.waitpid(self.pid, 0)
        for pid in children(os.getpid()):
            if is_zombie(pid):
                os.waitpid(pid, 0)

    def kill(self):
        """With its descendants."""
        for pid in [self.pid, *descendants(self.pid)]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def end(self):
        """It takes down what it has, and looks at that."""
        os.kill(self.pid, signal.SIGTERM)
        need(os.waitpid(self.pid, 0)[1] == 0, "it finds something at its end")
