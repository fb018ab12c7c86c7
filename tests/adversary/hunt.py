"""Many cases of every statement: ``python -m tests.adversary.hunt 100000``, counts at the end."""

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("FASTCURV_NUM_THREADS", "1")

from .statements import STATEMENTS, run  # noqa: E402


def one(job):
    index, seed = job
    statement = STATEMENTS[index]
    try:
        return index, seed, run(statement, seed), ""
    except Exception as error:
        kind = "broken" if isinstance(error, AssertionError) else "crashed"
        last = traceback.format_exc().strip().splitlines()[-1]
        return index, seed, kind, last[:300]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="cases, over all statements")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", default="", help="statements whose name holds this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    chosen = [i for i, s in enumerate(STATEMENTS) if options.only in s.__name__]
    each = -(-options.count // len(chosen))
    jobs = ((i, options.first + k) for k in range(each) for i in chosen)
    counts = {i: Counter() for i in chosen}
    broken, begin = [], time.monotonic()
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for done, (i, seed, outcome, words) in enumerate(pool.imap_unordered(one, jobs, 16), 1):
            counts[i][outcome] += 1
            if words:
                broken.append((i, seed, outcome))
                print(f"{STATEMENTS[i].__name__} seed {seed}: {outcome}: {words}", flush=True)
            if sys.stderr.isatty() and done % 500 == 0:
                print(f"\r{done} of {each * len(chosen)}", end="", file=sys.stderr)
    for i in chosen:
        print(f"{STATEMENTS[i].__name__:45s} {dict(counts[i])}")
    print(f"{each * len(chosen)} cases, {len(broken)} broken, {time.monotonic() - begin:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
