"""Many cases of every statement, with a table of outcomes and times at the end.

``python -m tests.adversary.hunt 100000`` tries 100000 cases of all statements; ``--first`` sets the
first seed, so that a long run can be divided. The exit status is 1 if a statement fails, a call
crashes or a case exceeds ``--limit``. Times are processor times, so other work on the machine does
not matter.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from types import FrameType

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("FASTCURV_NUM_THREADS", "1")

from fastcurv.common.progress import show_bar  # noqa: E402

from .statements import STATEMENTS, run  # noqa: E402

Job = tuple[int, int, float]  # index of the statement, seed, maximum seconds of the case
# index, seconds, seed, outcome, error message if the case failed
Result = tuple[int, float, int, str, str]


class TooLongError(Exception):
    """Raised if a case exceeds its time limit."""


def _too_long(signum: int, frame: FrameType | None) -> None:
    where = "".join(traceback.format_stack(frame, 4)) if frame is not None else ""
    raise TooLongError(" | ".join(where.split("\n")))


def run_case(job: Job) -> Result:
    """Run one case and return its `Result`, whose outcome is "broken", "too long" or "crashed" if
    the case fails.
    """
    index, seed, limit = job
    began = time.process_time()
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, limit)
    outcome, words = "", ""
    try:
        outcome = run(STATEMENTS[index], seed)
    except Exception as error:
        bad = {AssertionError: "broken", TooLongError: "too long"}
        outcome = bad.get(type(error), "crashed")
        last = traceback.format_exc().strip().splitlines()[-1]
        words = (str(error) if type(error) in bad else last)[:400] or last[:400]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return index, time.process_time() - began, seed, outcome, words


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="cases, over all statements")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", default="", help="statements whose name holds this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--limit", type=float, default=120.0, help="processor seconds for one case")
    parser.add_argument("--slow", type=float, default=10.0, help="seconds from which one is named")
    return parser.parse_args()


def main() -> int:
    """Run all cases, print the table of outcomes, and return the exit status."""
    options = parse_arguments()
    chosen = [i for i, s in enumerate(STATEMENTS) if options.only in s.__name__]
    seeds = range(options.first, options.first + -(-options.count // len(chosen)))
    jobs = [(i, seed, options.limit) for seed in seeds for i in chosen]
    found, begin = defaultdict(list), time.monotonic()
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        try:
            with show_bar(len(jobs), "cases", True) as shown:
                for index, *case in pool.imap_unordered(run_case, jobs, 4):
                    found[index].append(case)
                    shown.update()
                    seconds, seed, outcome, words = case
                    if words or seconds > options.slow:
                        name = STATEMENTS[index].__name__
                        print(f"{name} seed {seed}: {outcome}, {seconds:.0f} s: {words}")
        except KeyboardInterrupt:
            print("stopped before the end")
    done, bad = sum(map(len, found.values())), 0
    print(f"{'statement':44s} {'cases':>7s} {'mean ms':>8s} {'slowest s':>18s}  outcomes")
    for i, cases in sorted(found.items()):
        times, _, outcomes, words = zip(*cases)
        bad += sum(map(bool, words))
        told = ", ".join(f"{k} {v}" for k, v in sorted(Counter(outcomes).items()))
        slowest = f"{max(times):6.1f} (seed {max(cases)[1]})"
        mean = 1e3 * sum(times) / len(times)
        print(f"{STATEMENTS[i].__name__:44s} {len(cases):7d} {mean:8.1f} {slowest}  {told}")
    seconds = time.monotonic() - begin
    print(f"{done} cases from seed {seeds[0]} to {seeds[-1]}, {bad} bad, {seconds:.0f} s")
    return 1 if bad or done < len(jobs) else 0


if __name__ == "__main__":
    sys.exit(main())
