# SPDX-License-Identifier: GPL-2.0-only
"""What /proc says about a tree of processes, as lines of text that can be compared.

Left out is what changes by itself (counters of time and memory) and what no
checkpoint can keep (inode numbers of pipes and the like, start times).
"""

import hashlib
import os
import re
import struct

PAGE = 4096
ZERO = bytes(PAGE)
# Numbers of calls in programs of 64 and of 32 bits, by the class of the ELF file.
SIGSUSPEND = {2: '130', 1: '179'}
READ = {2: '0', 1: '3'}

# Fields of /proc/PID/status that differ from one moment to the next.
VOLATILE_STATUS = re.compile(
    r'(Vm|Rss|Hugetlb|State|SigQ|FDSize|voluntary_ctxt|nonvoluntary_ctxt)')

# Fields of /proc/PID/stat that are a property of the task: number and name.
STAT_TASK = {38: 'exit_signal', 19: 'nice', 40: 'rt_priority', 41: 'policy'}
STAT_PROCESS = {
    5: 'pgrp', 6: 'session', 7: 'tty', 26: 'startcode', 27: 'endcode', 28: 'startstack',
    45: 'start_data', 46: 'end_data', 47: 'start_brk', 48: 'arg_start', 49: 'arg_end',
    50: 'env_start', 51: 'env_end'}

TEXT_FILES = ('limits', 'personality', 'oom_score_adj', 'coredump_filter', 'cgroup', 'timers')
BINARY_FILES = ('cmdline', 'environ', 'auxv')
LINKS = ('exe', 'cwd', 'root')
NAMESPACES = ('cgroup', 'ipc', 'mnt', 'net', 'pid', 'pid_for_children', 'time',
              'time_for_children', 'user', 'uts')

# Mappings of files without a name: the inode is made anew.
NAMELESS = re.compile(r'(/dev/zero|/memfd:.*|/SYSV.*|/\[aio\]) \(deleted\)$')
NUMBERED = re.compile(r'^(pipe|socket):\[(\d+)\]$')

# Hints of the kernel's own. It may have guards: spreads when mappings are joined and never goes away.
# It is soft-dirty (CONFIG_MEM_SOFT_DIRTY): all are that were made since somebody cleared such bits.
KERNELS_OWN_FLAGS = ('gu', 'sd')

# Lines of fdinfo that come in an order of the kernel's own.
UNORDERED = ('tfd:', 'inotify ')
EPOLL_TARGET = re.compile(r'(.*) ino:([0-9a-f]+) sdev:([0-9a-f]+)$')
MINOR_BITS = 20         # of a device number inside the kernel


def read(path, mode='r'):
    try:
        with open(path, mode, **({} if 'b' in mode else {'errors': 'backslashreplace'})) as f:
            return f.read()
    except OSError as e:
        text = f'unreadable: {e.strerror}\n'
        return text.encode() if 'b' in mode else text


def link(path):
    try:
        return os.readlink(path)
    except OSError as e:
        return f'unreadable: {e.strerror}'


def stat_fields(path):
    """Fields of a stat file by their number in proc(5); the name may contain anything."""
    text = read(path)
    head, _, tail = text.rpartition(')')
    if not head:
        return {}
    fields = dict(enumerate(tail.split(), 3))
    fields[1] = text.split(' ', 1)[0]
    return fields


def tids(pid):
    try:
        return sorted(int(t) for t in os.listdir(f'/proc/{pid}/task'))
    except OSError:
        return []


def children(pid):
    found = []
    for tid in tids(pid):
        try:
            with open(f'/proc/{pid}/task/{tid}/children') as f:
                found += [int(child) for child in f.read().split()]
        except OSError:     # that thread has just ended
            pass
    return sorted(found)


def descendants(root):
    """All processes below root, root not included, parents before children."""
    found = children(root)
    for pid in found:
        found.extend(children(pid))
    return found


def tree(root):
    return [root] + descendants(root)


def is_zombie(pid):
    return stat_fields(f'/proc/{pid}/stat').get(3) in ('Z', 'X', None)


def elf_class(pid):
    try:
        with open(f'/proc/{pid}/exe', 'rb') as f:
            return f.read(5)[4]
    except (OSError, IndexError):
        return 2


def is_in_call(pid, tid, numbers):
    return read(f'/proc/{pid}/task/{tid}/syscall').startswith(numbers.get(elf_class(pid), '?') + ' ')


def is_serving(pid, tid):
    return is_in_call(pid, tid, SIGSUSPEND)


def is_reading(pid, tid):
    return is_in_call(pid, tid, READ)


def is_stopped(pid):
    return all(stat_fields(f'/proc/{pid}/task/{tid}/stat').get(3) == 'T' for tid in tids(pid))


def restless(pids, spinning):
    """Who does not sleep yet, or nothing. In each process a thread must be back in its sigsuspend,
    or in the read in which a child waits for orders; where others spin, that is all that can be asked
    for."""
    for pid in pids:
        if is_zombie(pid) or is_stopped(pid):
            continue
        if not any(is_serving(pid, tid) or (pid != pids[0] and is_reading(pid, tid)) for tid in tids(pid)):
            state = stat_fields(f'/proc/{pid}/stat').get(3)
            return f'process {pid}, state {state}, system call: {read(f"/proc/{pid}/syscall").strip()}'
        for tid in [] if spinning else tids(pid):
            state = stat_fields(f'/proc/{pid}/task/{tid}/stat').get(3)
            if state != 'S':
                return f'thread {tid} of {pid}, state {state}'
    return None


def hexdump(data):
    return data.hex() if len(data) <= 64 else f'{data[:24].hex()}... {hashlib.sha256(data).hexdigest()}'


class Mapping:
    """One mapping out of smaps. Neighbours that only differ in where they start are joined:
    the kernel may have kept them apart before, or may keep them apart after."""

    def __init__(self, pid, header):
        words = header.split(None, 5)
        self.start, self.end = (int(x, 16) for x in words[0].split('-'))
        self.perms = words[1]
        self.offset = int(words[2], 16)
        self.dev, self.inode = words[3], words[4]
        # where the heap starts and ends is known by other means; its neighbours may join it
        self.name = words[5].strip() if len(words) > 5 and words[5].strip() != '[heap]' else ''
        self.flags = ''
        self.anew = self.inode_made_anew(f'/proc/{pid}/map_files/{self.start:x}-{self.end:x}')

    def inode_made_anew(self, path):
        """Device and inode, when the file has no name that would keep the inode. That of System V shared
        memory is its id."""
        if not self.name.endswith(' (deleted)') or self.name.startswith('/SYSV'):
            return None
        try:
            st = os.stat(path)
        except OSError:
            return None
        return (st.st_dev, st.st_ino) if st.st_nlink == 0 or NAMELESS.match(self.name) else None

    def is_file(self):
        return self.inode != '0'

    def continues(self, other):
        same = (self.start == other.end and self.perms == other.perms and self.dev == other.dev
                and self.inode == other.inode and self.name == other.name and self.flags == other.flags)
        return same and (not self.is_file() or self.offset == other.offset + other.end - other.start)

    def text(self, names):
        inode = names.number(*self.anew) if self.anew else '*' if NAMELESS.match(self.name) else self.inode
        offset = self.offset if self.is_file() else 0
        return (f'{self.start:x}-{self.end:x} {self.perms} {offset:08x} {self.dev} {inode} '
                f'{self.name} [{self.flags}]')


def mappings(pid):
    """The kernel shows the vsyscall page, which no 32-bit code can reach, where no exec made it a 32-bit
    program: nothing can be done about that."""
    found = []
    for line in read(f'/proc/{pid}/smaps').splitlines():
        if re.match(r'[0-9a-f]+-[0-9a-f]+ ', line):
            found.append(Mapping(pid, line))
        elif line.startswith('VmFlags:') and found:
            found[-1].flags = ' '.join(f for f in line.split()[1:] if f not in KERNELS_OWN_FLAGS)
    if elf_class(pid) == 1:
        found = [m for m in found if m.name != '[vsyscall]']
    joined = []
    for m in found:
        if joined and m.continues(joined[-1]):
            joined[-1].end = m.end
        else:
            joined.append(m)
    return joined


def is_present(pagemap, address):
    """Present or swapped out: reading other pages of anonymous memory would only make them."""
    pagemap.seek(address // PAGE * 8)
    entry = pagemap.read(8)
    return len(entry) == 8 and struct.unpack('Q', entry)[0] >> 62 != 0


def holds_private_data(m):
    special = m.name in ('[vvar]', '[vvar_vclock]', '[vdso]', '[vsyscall]')
    return m.perms[3] == 'p' and not special and (m.perms[1] == 'w' or not m.is_file())


def blank(page, address, volatile):
    """Zeroes what the kernel writes by itself (the rseq area)."""
    for start, length in volatile:
        if address <= start < address + PAGE:
            at = start - address
            page = page[:at] + bytes(length) + page[at + length:]
    return page


def memory_lines(pid, maps, volatile):
    with open(f'/proc/{pid}/mem', 'rb', buffering=0) as mem, \
            open(f'/proc/{pid}/pagemap', 'rb', buffering=0) as pagemap:
        for m in filter(holds_private_data, maps):
            for address in range(m.start, m.end, PAGE):
                if not m.is_file() and not is_present(pagemap, address):
                    continue
                try:
                    mem.seek(address)
                    page = mem.read(PAGE)
                except OSError:     # behind the end of a file
                    continue
                page = blank(page, address, volatile)
                if page != ZERO:
                    yield f'memory {address:x} {hashlib.sha256(page).hexdigest()[:16]}'


class Names:
    """Numbers that are given anew when a thing is made again (inodes of what has no name, ids of
    eventfds), replaced by the order in which they turn up: who shares with whom stays visible."""

    def __init__(self):
        self.seen = {}

    def number(self, kind, value):
        if (kind, value) not in self.seen:
            self.seen[kind, value] = sum(k == kind for k, _ in self.seen) + 1
        return f'#{self.seen[kind, value]}'

    def is_known(self, *key):
        return key in self.seen


class Descriptor:
    """A descriptor, with the inode behind it when there is no name that would keep it."""

    def __init__(self, pid, fd, names):
        self.pid, self.fd = pid, fd
        self.path = f'/proc/{pid}/fd/{fd}'
        self.target = link(self.path)
        try:
            st = os.stat(self.path)
        except OSError:     # closed by now
            st = None
        self.inode = (st.st_dev, st.st_ino) if st and self.is_made_anew(st) else None
        if self.inode:
            names.number(*self.inode)

    def is_made_anew(self, st):
        nameless = NUMBERED.match(self.target) or self.target.startswith('anon_inode:')
        return nameless or (st.st_nlink == 0 and self.target.endswith(' (deleted)'))

    def plain_target(self, names):
        m = NUMBERED.match(self.target)
        # A file made with O_TMPFILE has its inode for a name.
        target = re.sub(r'/#\d+ \(deleted\)$', '/#inode (deleted)', self.target)
        return f'{m.group(1)}:[{names.number(*self.inode)}]' if m and self.inode else target


def descriptors(pid, names):
    return [Descriptor(pid, fd, names) for fd in sorted(int(f) for f in os.listdir(f'/proc/{pid}/fd'))]


def epoll_target(line, names):
    """An epoll tells the inodes of what it watches."""
    m = EPOLL_TARGET.match(line)
    if not m:
        return line
    sdev = int(m.group(3), 16)
    key = os.makedev(sdev >> MINOR_BITS, sdev & ((1 << MINOR_BITS) - 1)), int(m.group(2), 16)
    return f'{m.group(1)} ino:{names.number(*key)} sdev:{m.group(3)}' if names.is_known(*key) else line


def plain_info(line, d, names):
    """A line of fdinfo without what differs from one moment, or one life, to the next."""
    key, _, value = line.partition(':')
    value = value.strip()
    if key == 'ino' and d.inode:
        return f'ino: {names.number(*d.inode)}'
    if key == 'eventfd-id':
        return f'eventfd-id: {names.number("eventfd", value)}'
    if key == 'map_id':
        return f'map_id: {names.number("bpf map", value)}'
    if key == 'tfd':
        return epoll_target(line, names)
    if key == 'it_value' and value != 'goes on':   # time goes on; that it does not stop or start is what counts
        return f'it_value: {"off" if value == "(0, 0)" else "armed"}'
    if key == 'ticks':
        return f'ticks: {"none" if value == "0" else "some"}'
    return line


def plain_timer(lines):
    """A periodic timer that expired is stopped or not by chance until somebody looks."""
    values = dict(l.split(': ', 1) for l in lines if ': ' in l)
    if values.get('ticks', '0') == '0' or values.get('it_interval') == '(0, 0)':
        return lines
    return ['it_value: goes on' if l.startswith('it_value:') else l for l in lines]


def info_lines(d, names):
    lines = [' '.join(l.split()) for l in read(f'/proc/{d.pid}/fdinfo/{d.fd}').splitlines()]
    lines = plain_timer(lines)
    # The kernel goes on counting descriptors in flight that it has thrown away with their queue.
    lines = [plain_info(l, d, names) for l in lines if not l.startswith('scm_fds:')]
    return ([l for l in lines if not l.startswith(UNORDERED)]
            + sorted(l for l in lines if l.startswith(UNORDERED)))


def fd_lines(pid, names, live):
    for d in descriptors(pid, names):
        info = info_lines(d, names)
        if live:
            info = [l for l in info if l.startswith(('flags:', 'mnt_id:'))]
        yield f'fd {d.fd} -> {d.plain_target(names)} {" ".join(info)}'


def status_lines(path, is_root, stopped):
    for line in read(path).splitlines():
        if VOLATILE_STATUS.match(line):
            continue
        if stopped and line.startswith('SigBlk:'):
            continue    # who was stopped in sigsuspend has that mask, or the one it comes back to
        if is_root and line.startswith('PPid:'):
            continue    # who adopts it is not its own property
        yield 'status ' + ' '.join(line.split())


def task_lines(pid, tid, is_root, stopped):
    base = f'/proc/{pid}/task/{tid}'
    fields = stat_fields(f'{base}/stat')
    yield f'task {tid}'
    yield f'comm {read(base + "/comm")!r}'
    for number, name in STAT_TASK.items():
        yield f'{name} {fields.get(number)}'
    yield f'timerslack {read(f"/proc/{tid}/timerslack_ns").strip()}'
    yield f'children {read(base + "/children").strip()}'
    yield from status_lines(f'{base}/status', is_root, stopped)


def lasting_lines(pid):
    """What does not change even while a program works."""
    for name in LINKS:
        yield f'{name} {link(f"/proc/{pid}/{name}")}'
    for name in BINARY_FILES:
        yield f'{name} {hexdump(read(f"/proc/{pid}/{name}", "rb"))}'
    for name in TEXT_FILES:
        for line in read(f'/proc/{pid}/{name}').splitlines():
            yield f'{name} {" ".join(line.split())}'
    for name in NAMESPACES:
        namespace = link(f'/proc/{pid}/ns/{name}')
        if name == 'ipc' and namespace != link('/proc/self/ns/ipc'):
            namespace = 'ipc:[one of its own]'   # made anew
        yield f'ns {namespace}'
    fields = stat_fields(f'/proc/{pid}/stat')
    for number, name in STAT_PROCESS.items():
        yield f'{name} {fields.get(number)}'


def process_lines(pid, is_root, names, quiet, volatile):
    yield from lasting_lines(pid)
    stopped = is_stopped(pid)
    if stopped:
        yield 'stopped'
    maps = mappings(pid)
    yield from (f'map {m.text(names)}' for m in maps)
    yield from fd_lines(pid, names, live=False)
    for tid in tids(pid):
        yield from task_lines(pid, tid, is_root, stopped)
    if quiet:
        yield from memory_lines(pid, maps, volatile)


def take(root, mode, volatile=()):
    """mode: 'live' (a working program: its root only), 'idle' (all but memory), 'quiet' (all)."""
    names = Names()
    if mode == 'live':
        return [f'{root} {line}' for part in (lasting_lines(root), fd_lines(root, names, live=True))
                for line in part]
    pids = tree(root)
    for pid in pids:    # an epoll may watch what only a later process has
        if not is_zombie(pid):
            descriptors(pid, names)
    lines = [f'processes {pids}']
    for pid in pids:
        if is_zombie(pid):
            fields = stat_fields(f'/proc/{pid}/stat')
            lines.append(f'{pid} zombie of {fields.get(4)}, pgrp {fields.get(5)}, session '
                         f'{fields.get(6)}, exit code {fields.get(52)}, {read(f"/proc/{pid}/comm")!r}')
            continue
        lines += [f'{pid} {line}' for line in
                  process_lines(pid, pid == root, names, mode == 'quiet', volatile)]
    return lines
