# SPDX-License-Identifier: GPL-2.0-only
"""One row: start the target, checkpoint and restore it some times, see that it did not notice."""

import ctypes
import difflib
import fcntl
import os
import tempfile
import re
import shlex
import shutil
import signal
import time

import snapshot

PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNET = 0x40000000
POLL_SEC = 0.002
SLOW = int(os.environ.get('CYCLE_SLOW', 1))     # how many times slower than a machine this one is
PATIENCE_SEC = 20 * SLOW        # for one condition; the row has a limit of its own
SKIP_STATUS = 77
PIDS_LEFT = 8           # for a target that is to see the numbers start over
LAST_PID = '/proc/sys/kernel/ns_last_pid'
LINES_A_STEP = 5        # lines a working program must add to be called alive
DIFF_LINES = 40
LOG_LINES = 12
HUGE_PAGES = '/proc/sys/vm/nr_hugepages'
HUGE_FOR_ALL = '/sys/kernel/mm/transparent_hugepage/enabled'


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


class Row:
    """name | command | flags; flags are words, or word=value."""

    def __init__(self, line):
        self.name, *command, flags = (p.strip() for p in re.split(r'\s\|(?:\s|$)', line))
        self.command = ' | '.join(command)
        self.flags = dict((f.split('=', 1) + [''])[:2] for f in flags.split())

    def has(self, flag):
        return flag in self.flags

    @property
    def is_live(self):
        """Its processes, threads and mappings come and go."""
        return self.has('live')

    @property
    def is_program(self):
        """Not mk: a file it writes to tells how it is."""
        return any(self.has(f) for f in FILE_FLAGS)

    @property
    def mode(self):
        return next((m for m in ('live', 'quiet') if self.has(m)), 'idle')


FILE_FLAGS = ('count', 'lines', 'wait')
KNOWN_FLAGS = {'alone', 'chain', 'thp', 'daemon', 'hugepages', 'live', 'netns', 'quiet', 'spin', 'job', 'wait', 'count', 'lines', 'need', 'norun', 'nokill', 'offline',
               'cycles', 'timeout', 'todo', 'idle', 'ignore', 'wrap', 'dump', 'restore'}


def read_rows(path):
    rows = []
    with open(path) as f:
        for number, line in enumerate(f, 1):
            line = line.strip()
            if not line or line.startswith('#'):
                continue
            row = Row(line)
            unknown = set(row.flags) - KNOWN_FLAGS
            if unknown:
                raise SystemExit(f'{path}:{number}: unknown flags {sorted(unknown)}')
            rows.append(row)
    return rows


def wait_until(ready, what):
    """Asks ready() until it says something true, and returns that."""
    deadline = time.monotonic() + PATIENCE_SEC
    while True:
        value = ready()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f'{what}: nothing after {PATIENCE_SEC} s')
        time.sleep(POLL_SEC)


def say_status(status):
    if os.WIFSIGNALED(status):
        return f'killed by {signal.Signals(os.WTERMSIG(status)).name}'
    return f'exit code {os.WEXITSTATUS(status)}'


def become_subreaper():
    """Whatever loses its parent below us becomes our child: nothing can get lost."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_all_descendants():
    """Kills what is left below us, by pid; returns what that was."""
    killed = {}
    while True:
        pids = snapshot.descendants(os.getpid())
        for pid in pids:
            if not snapshot.is_zombie(pid):
                killed.setdefault(pid, snapshot.read(f'/proc/{pid}/comm').strip())
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return killed
        time.sleep(POLL_SEC)


class Process:
    """A child of ours, or one that became it. Its pid stays taken until reap() has been called."""

    def __init__(self, pid):
        self.pid = pid
        self.status = None

    def reap(self):
        """True once it is dead and waited for."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
        return self.status is not None


def fork_daemon():
    """A process whose session has lost its leader; it becomes our child. 0 in that process."""
    told, tell = os.pipe()
    leader = os.fork()
    if not leader:
        os.setsid()
        pid = os.fork()
        if not pid:
            return 0
        os.write(tell, str(pid).encode())
        os._exit(0)
    os.waitpid(leader, 0)
    pid = int(os.read(told, 32))
    os.close(told)
    os.close(tell)
    return pid


def start(argv, output, cwd, new_session, env, daemon=False):
    """Descriptors 0, 1, 2 and no others: /dev/null and a file."""
    pid = fork_daemon() if daemon else os.fork()
    if pid:
        return Process(pid)
    try:
        null = os.open('/dev/null', os.O_RDONLY)
        out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.closerange(3, 1024)
        os.chdir(cwd)
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGALRM):
            signal.signal(sig, signal.SIG_DFL)
        if new_session:
            os.setsid()
        os.execvpe(argv[0], argv, env)
    except OSError as e:
        os.write(2, f'{argv[0]}: {e.strerror}\n'.encode())
    finally:
        os._exit(126)


class Outside:
    """What a tool might leave behind outside the directories it was given."""

    WATCHED = ('/run',)
    SUSPECT = re.compile(r'criu|crtools|link_remap', re.I)
    KNOWN = {'/run/criu.kdat', '/run/criu-tracking'}
    TRANSIENT_SEC = 5

    def __init__(self, watched=WATCHED):
        self.watched = watched
        self.before = self.look()

    def look(self):
        mounts = {'mount ' + l for l in snapshot.read('/proc/self/mountinfo').splitlines()}
        files = {os.path.join(d, name) for d in self.watched if os.path.isdir(d)
                 for name in os.listdir(d) if self.SUSPECT.search(name)}
        return mounts | (files - self.KNOWN)

    def new(self):
        """Others on this machine come and go, what the tool has left behind stays."""
        left = sorted(self.look() - self.before)
        deadline = time.monotonic() + self.TRANSIENT_SEC
        while left and time.monotonic() < deadline:
            time.sleep(POLL_SEC)
            left = sorted(self.look() - self.before)
        return left


class PageServer:
    """criu page-server in a directory of its own; what it has written is put beside the other images."""

    def __init__(self, case, images, link):
        self.images, self.own = images, images + '-pages'
        os.mkdir(self.own)
        output = os.path.join(self.own, 'out')
        argv = [case.criu, 'page-server', '-D', self.own, '-v4', '-o', 'log', '--address', '127.0.0.1', *link]
        self.process = start(argv, output, case.work, False, case.env)
        words = wait_until(lambda: snapshot.read(output).split('at port ')[1:] or self.process.reap(), 'the page server')
        if words is True:
            raise Failed('page server: ' + snapshot.read(os.path.join(self.own, 'log')))
        self.port = words[0].strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            wait_until(self.process.reap, 'the end of the page server')
            if self.process.status:
                raise Failed('page server: ' + snapshot.read(os.path.join(self.own, 'log')))
        finally:
            for name in os.listdir(self.own):
                if name.startswith('page'):
                    os.rename(os.path.join(self.own, name), os.path.join(self.images, name))


class Case:
    def __init__(self, row, directory, criu, places, cycles, user=None, chain=False, server=False):
        self.row = row
        self.user = user
        self.chain = [] if chain or row.has('chain') else None      # directories of images, each the parent of the next
        self.server = server                    # pages go through a page server
        self.top = directory
        self.own(directory)
        self.criu = criu
        self.cycles = int(row.flags.get('cycles', cycles))
        self.dir = self.make_dir('dir')         # the target's
        self.work = self.make_dir('work')       # criu's; must stay empty
        self.tmp = self.make_dir('tmp')         # TMPDIR of both; must stay empty
        self.status_file = os.path.join(self.top, 'status')
        for name in ('target.out', 'criu.out'):
            open(os.path.join(self.top, name), 'w').close()
            self.own(os.path.join(self.top, name))
        places = dict(places, dir=self.dir, status=self.status_file)
        self.argv = self.as_user(False) + [word.format(**places) for word in shlex.split(row.command)]
        self.env = {'PATH': os.environ.get('PATH', '/usr/bin:/bin'), 'LC_ALL': 'C', 'HOME': '/root',
                    'TMPDIR': self.tmp, 'CYCLE': row.name}
        if 'CRIU_CONFIG_FILE' in os.environ:
            self.env['CRIU_CONFIG_FILE'] = os.environ['CRIU_CONFIG_FILE']
        self.target = None
        self.checks = 0
        self.lines_seen = 0
        self.outside = Outside()

    def own(self, path):
        if self.user:
            os.chown(path, self.user, self.user)

    def as_user(self, is_criu):
        """What to put before a command so that it runs as the user; criu has one capability more."""
        caps = ['--inh-caps=+checkpoint_restore', '--ambient-caps=+checkpoint_restore'] if is_criu else []
        return ['setpriv', f'--reuid={self.user}', f'--regid={self.user}', '--clear-groups', *caps] \
            if self.user else []

    def make_dir(self, name):
        path = os.path.join(self.top, name)
        os.makedirs(path)
        self.own(path)
        return path

    # -- the target --

    def status_lines(self):
        text = snapshot.read(self.status_file) if os.path.exists(self.status_file) else ''
        return text[:text.rfind('\n') + 1].splitlines()

    def find_status(self, word):
        return next((l for l in self.status_lines() if l.startswith(word)), None)

    def target_output(self):
        return snapshot.read(os.path.join(self.top, 'target.out')).strip()[-500:]

    def must_live(self):
        if self.target.reap():
            if os.WIFEXITED(self.target.status) and os.WEXITSTATUS(self.target.status) == SKIP_STATUS:
                raise Skipped((self.find_status('skip: ') or 'skip: no reason given')[6:])
            raise Failed(f'the target is gone: {say_status(self.target.status)}; {self.target_output()}')
        return True

    def near_the_last_pid(self):
        """The numbers start over in the middle of the target: children and threads get lower ones."""
        write(LAST_PID, str(int(snapshot.read('/proc/sys/kernel/pid_max')) - PIDS_LEFT))

    def start_target(self):
        if self.row.has('wrap'):
            last = snapshot.read(LAST_PID)
            self.near_the_last_pid()
        self.target = start(self.argv, os.path.join(self.top, 'target.out'), self.dir,
                            not (self.row.has('job') or self.row.has('daemon')), self.env,
                            self.row.has('daemon'))
        if self.row.is_program:
            self.wait_growth()
            return
        wait_until(lambda: self.find_status('ready ') or not self.must_live(), 'the ready line')
        if self.row.has('wrap'):
            # Else the numbers of what other rows have killed, and are to restore, would be given again.
            write(LAST_PID, last)
        self.wait_settled()

    def wait_settled(self):
        if self.row.is_live:
            return
        reason = []

        def at_rest():
            self.must_live()
            reason[:] = [snapshot.restless(snapshot.tree(self.target.pid), self.row.has('spin'))]
            return reason == [None]
        try:
            wait_until(at_rest, 'the target to be at rest')
        except Failed as e:
            self.must_live()
            raise Failed(f'{e}: {reason[0]}') from None

    def volatile(self):
        found = []
        for line in self.status_lines():
            if line.startswith('volatile '):
                _, start_hex, length = line.split()
                found.append((int(start_hex, 16), int(length)))
        return found

    def snapshot(self):
        self.wait_settled()
        lines = snapshot.take(self.target.pid, self.row.mode, self.volatile())
        ignored = self.row.flags.get('ignore')
        return [l for l in lines if not re.search(ignored, l)] if ignored else lines

    # -- growing files of working programs --

    def watched_file(self):
        flag = next(f for f in FILE_FLAGS if self.row.has(f))
        return os.path.join(self.dir, self.row.flags[flag].split(':')[0])

    def whole_lines(self):
        path = self.watched_file()
        text = snapshot.read(path) if os.path.exists(path) else ''
        return text[:text.rfind('\n') + 1].splitlines()

    def wait_growth(self):
        goal = len(self.whole_lines()) + LINES_A_STEP
        wait_until(lambda: self.must_live() and len(self.whole_lines()) >= goal,
                   f'{os.path.basename(self.watched_file())} to grow to {goal} lines')

    def check_lines(self):
        lines = self.whole_lines()
        if len(lines) < self.lines_seen:
            raise Failed(f'the file shrank from {self.lines_seen} lines to {len(lines)}')
        if self.row.has('count'):
            for i, line in enumerate(lines):
                if line != str(i + 1):
                    raise Failed(f'line {i + 1} of the file is {line!r}')
        if self.row.has('lines'):
            pattern = self.row.flags['lines'].split(':', 1)[1]
            for i, line in enumerate(lines):
                if not re.fullmatch(pattern, line):
                    raise Failed(f'line {i + 1} of the file is {line!r}')
        self.lines_seen = len(lines)

    def check(self, when):
        """The target says it is as it was."""
        if self.row.is_program:
            self.wait_growth()
            self.check_lines()
            return
        self.checks += 1
        os.kill(self.target.pid, signal.SIGUSR1)
        line = wait_until(lambda: self.find_status(f'check {self.checks} ') or not self.must_live(),
                          f'check {self.checks}')
        if line != f'check {self.checks} ok':
            raise Failed(f'{when}: {line}')

    # -- the tool --

    def run_criu(self, *args):
        argv = [self.criu, *args] + (['--shell-job'] if self.row.has('job') else [])
        argv += filter(None, self.row.flags.get(args[0], '').split(','))
        argv = self.as_user(True) + argv + (['--unprivileged'] if self.user else [])
        output = os.path.join(self.top, 'criu.out')
        with open(os.path.join(self.top, 'commands'), 'a') as f:
            f.write(shlex.join(argv) + '\n')
        process = start(argv, output, self.work, False, self.env)
        wait_until(process.reap, f'criu {args[0]}')
        return process.status, shlex.join(argv)

    def tool_words(self, images, log):
        """The part of log and output that tells why."""
        lines = snapshot.read(os.path.join(images, log)).splitlines()
        errors = [l for l in lines if re.search(r'error|fail', l, re.I)]
        said = snapshot.read(os.path.join(self.top, 'criu.out')).splitlines()[-4:]
        return '\n'.join(['    ' + l for l in (errors or lines)[-LOG_LINES:] + said])

    def link(self, images):
        """Options by which what was dumped before is left out; the next leaves out what this one has."""
        if self.chain is None:
            return []
        args = ['--track-mem'] + (['--prev-images-dir', os.path.join('..', self.chain[-1])] if self.chain else [])
        self.chain.append(os.path.basename(images))
        return args

    def take_images(self, command, images, *args):
        """Returns how that command ended, and its words."""
        os.mkdir(images)
        self.own(images)
        args = ['-t', str(self.target.pid), '-D', images, '-o', 'dump.log', '-v4', *args]
        link = self.link(images)
        if not self.server:
            return self.run_criu(command, *args, *link)
        with PageServer(self, images, link[1:]) as server:
            result = self.run_criu(command, *args, *link, '--page-server', '--address', '127.0.0.1', '--port', server.port)
        return result

    def pre_dump(self, images):
        status, command = self.take_images('pre-dump', images)
        if status:
            raise Failed(f'{command}\n  {say_status(status)}\n' + self.tool_words(images, 'dump.log'))
        self.must_live()

    def dump(self, images, leave_running):
        before = self.snapshot()
        if self.chain is not None:
            self.pre_dump(images + '-pre')
            self.compare(before, 'pre-dump')
            self.check('pre-dump')
            before = self.snapshot()
        status, command = self.take_images('dump', images, *(['-R'] if leave_running else []))
        if status:
            raise Failed(f'{command}\n  {say_status(status)}; {self.state_after_failure(before)}\n'
                         + self.tool_words(images, 'dump.log'))
        return before

    def state_after_failure(self, before):
        """A failed dump promises to leave the target as it was: say whether it did."""
        try:
            self.must_live()
            self.compare(before, 'failed dump')
            self.check('failed dump')
            return 'the target runs on unchanged'
        except Failed as e:
            return f'AND THE TARGET IS NOT AS IT WAS: {e}'

    def compare(self, before, when):
        after = self.snapshot()
        if before == after:
            return
        diff = list(difflib.unified_diff(before, after, 'before', 'after', n=0, lineterm=''))
        more = [f'... and {len(diff) - DIFF_LINES} more lines'] if len(diff) > DIFF_LINES else []
        raise Failed('\n    '.join([f'{when}: /proc differs'] + diff[:DIFF_LINES] + more))

    def step_leave_running(self, images):
        before = self.dump(images, leave_running=True)
        self.must_live()
        self.compare(before, 'dump -R')
        self.check('dump -R')

    def step_restore(self, images):
        # two in a row: calls that the first one interrupted are in the kernel for the second time
        if not self.row.has('norun'):
            before = self.dump(images + '-first', leave_running=True)
            self.compare(before, 'dump -R right before')
        before = self.dump(images, leave_running=False)
        pids = [self.target.pid] if self.row.is_live else snapshot.tree(self.target.pid)
        self.wait_killed()
        self.restore(images, pids)
        self.compare(before, 'restore')
        self.check('restore')

    def wait_killed(self):
        wait_until(self.target.reap, 'the target to be killed by the dump')
        if not os.WIFSIGNALED(self.target.status) or os.WTERMSIG(self.target.status) != signal.SIGKILL:
            raise Failed(f'after dump the target has {say_status(self.target.status)}')
        self.expect_nothing_left('dump')

    def expect_nothing_left(self, when):
        """Children of the dead come to us; the ones that were killed only have to be waited for."""
        def gone():
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return True
            return False
        try:
            wait_until(gone, f'after {when} processes to be gone')
        except Failed:
            left = [f'{p} {snapshot.read(f"/proc/{p}/comm").strip()}'
                    for p in snapshot.descendants(os.getpid())]
            raise Failed(f'processes left behind after {when}: {", ".join(left)}') from None

    def restore(self, images, pids):
        pidfile = os.path.join(images, 'pidfile')
        status, command = self.run_criu('restore', '-d', '-D', images, '-o', 'restore.log', '-v4',
                                        '--pidfile', pidfile)
        if status:
            taken = [f'pid {p} is taken by {snapshot.read(f"/proc/{p}/comm").strip()!r}'
                     for p in pids if os.path.exists(f'/proc/{p}')]
            raise Failed(f'{command}\n  {say_status(status)}; {"; ".join(taken) or "all pids are free"}\n'
                         + self.tool_words(images, 'restore.log'))
        written = snapshot.read(pidfile)
        if written != str(self.target.pid):
            raise Failed(f'{command}\n  pidfile says {written!r}, expected {self.target.pid}')
        self.target = Process(self.target.pid)
        if self.target.pid not in snapshot.descendants(os.getpid()):
            raise Failed(f'{command}\n  no process {self.target.pid} after restore')
        ours = snapshot.descendants(os.getpid())
        strangers = set(ours) - set(snapshot.tree(self.target.pid))
        if strangers and not self.row.is_live:
            raise Failed(f'processes left behind after restore: {sorted(strangers)}')

    # -- the whole --

    def run(self):
        self.start_target()
        if not self.row.is_program:
            self.check('before all')
        names = self.names_in_dir()
        for n in range(1, self.cycles + 1):
            if not self.row.has('norun'):
                self.step_leave_running(os.path.join(self.top, f'run{n}'))
            if not self.row.has('nokill'):
                self.step_restore(os.path.join(self.top, f'kill{n}'))
        self.stop_target()
        self.expect_nothing_left('the end')
        self.expect_clean(names)

    def stop_target(self):
        os.kill(self.target.pid, signal.SIGTERM)
        wait_until(self.target.reap, 'the target to leave on SIGTERM')
        if self.row.is_program:
            self.check_lines()
        elif self.target.status:
            raise Failed(f'the target left with {say_status(self.target.status)}; '
                         f'{self.find_status("stop bad") or self.target_output()}')

    def names_in_dir(self):
        return sorted(os.path.join(d, n) for d, subdirs, files in os.walk(self.dir) for n in subdirs + files)

    def expect_clean(self, names):
        new = sorted(set(self.names_in_dir()) - set(names)) + self.outside.new()
        new += [os.path.join(d, n) for d in (self.work, self.tmp) for n in os.listdir(d)]
        if new:
            raise Failed(f'files left behind: {", ".join(new[:10])}')


def on_alarm(_sig, _frame):
    raise Failed('the row took too long')


def on_term(_sig, _frame):
    raise KeyboardInterrupt


def leave_network(row):
    """What the row does to its network is seen by nobody else."""
    if row.has('netns') and ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise Skipped(f'no network namespace of its own: {os.strerror(ctypes.get_errno())}')


def take_turns(row):
    """Rows with the flag alone=NAME do not run at the same time: they need the same numbers again."""
    if not row.has('alone'):
        return None
    lock = open(os.path.join(tempfile.gettempdir(), f'criu-cycle-{row.flags["alone"]}.lock'), 'w')
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def write(path, text):
    with open(path, 'w') as f:
        f.write(text)


def lend_huge_pages(row):
    """Asks the kernel for the huge pages that a row needs. Returns what was set, to put that back."""
    changed = []
    try:
        if row.has('hugepages'):
            before = snapshot.read(HUGE_PAGES).strip()
            write(HUGE_PAGES, str(int(before) + int(row.flags['hugepages'])))
            changed.append((HUGE_PAGES, before))
        if row.has('thp'):
            before = re.search(r'\[(\w+)\]', snapshot.read(HUGE_FOR_ALL)).group(1)
            write(HUGE_FOR_ALL, row.flags['thp'])
            changed.append((HUGE_FOR_ALL, before))
    except (OSError, ValueError, AttributeError):
        take_huge_pages_back(changed)
        raise Skipped('there are no huge pages to be had') from None
    return changed


def take_huge_pages_back(changed):
    for path, value in changed:
        write(path, value)


def run_row(row, directory, criu, places, cycles, timeout, user=None, chain=False, server=False):
    """Returns (verdict, words). Runs in a process of its own: it reaps whatever shows up."""
    become_subreaper()
    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, on_term)
    signal.alarm(SLOW * int(row.flags.get('timeout', timeout)))
    alone, huge_pages = None, []
    try:
        if server and row.has('offline'):
            raise Skipped('a page server cannot be reached')
        leave_network(row)
        alone = take_turns(row)
        huge_pages = lend_huge_pages(row)
        Case(row, directory, criu, places, cycles, user, chain, server).run()
        verdict = ('pass', 'remove todo= from this row' if row.has('todo') else '')
    except Skipped as e:
        verdict = ('skip', str(e))
    except Failed as e:
        verdict = ('skip', f'todo, {row.flags["todo"]}') if row.has('todo') else ('fail', str(e))
    except KeyboardInterrupt:
        verdict = ('fail', 'interrupted')
    signal.alarm(0)
    end_all_descendants()
    take_huge_pages_back(huge_pages)
    if alone:
        alone.close()
    if verdict[0] != 'fail':
        shutil.rmtree(directory)
    return verdict
