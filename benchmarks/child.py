"""Run one command and print its cost as JSON: wall and CPU time in seconds, and peak memory in GB.

    python benchmarks/child.py COMMAND ...

It is a separate small process, because on Linux a process inherits the peak memory of the process that starts it.
"""

import json
import resource
import subprocess
import sys
import time


def main() -> int:
    start = time.perf_counter()
    done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=False)
    wall = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * 1024 / 1e9}))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
