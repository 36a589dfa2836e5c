# SPDX-License-Identifier: GPL-2.0-only
"""Counts in memory and in a file, one number a line, with live objects of all sizes around."""

import sys
import time

keep = {}
with open(sys.argv[1], 'a') as f:
    n = 0
    while True:
        n += 1
        keep[n % 1000] = [str(n)] * (n % 50)
        if keep.get((n - 7) % 1000, ['x'])[:1] not in ([], [str(n - 7)], ['x']):
            sys.exit('memory is not what it was')
        f.write(f'{n}\n')
        f.flush()
        time.sleep(0.005)
