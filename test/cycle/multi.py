# SPDX-License-Identifier: GPL-2.0-only
"""Threads and processes that hand a number round through queues; each line is the one after."""
import multiprocessing
import queue
import signal
import sys
import threading
import time


def pass_on(source, target):
    while True:
        target.put(source.get() + 1)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())     # which ends the other process, too
    first, second = multiprocessing.Queue(), multiprocessing.Queue()
    third = queue.Queue()
    multiprocessing.Process(target=pass_on, args=(first, second), daemon=True).start()
    threading.Thread(target=pass_on, args=(second, third), daemon=True).start()
    number = 0
    with open(sys.argv[1], 'w') as out:
        while True:
            first.put(number * 2)
            assert third.get() == number * 2 + 2
            number += 1
            print(number, file=out, flush=True)
            time.sleep(0.01)


if __name__ == '__main__':
    main()
