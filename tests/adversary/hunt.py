"""Many cases of every statement, with a table of outcomes and times at the end.

``python -m tests.adversary.hunt 100000`` tries them all; ``--first`` begins at another seed, so
that a long hunt can be made in slices. Exits with 1 where a statement was broken, a call crashed or
a case took longer than ``--limit``. Times are of the processor, so that a busy machine breaks
nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("FASTCURV_NUM_THREADS", "1")

from .statements import STATEMENTS, run  # noqa: E402

Job = tuple[int, int, float]  # index of the statement, seed, seconds that it may take
Result = tuple[int, int, str, str, float]  # index, seed, outcome, words if bad, seconds


@dataclass
class Tally:
    """What became of the cases of one statement."""

    outcomes: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    slowest_seed: int = -1


class TooLongError(Exception):
    """A case took longer than its limit."""


def _too_long(signum: int, frame: FrameType | None) -> None:
    where = "".join(traceback.format_stack(frame, 4)) if frame is not None else ""
    raise TooLongError(" | ".join(where.split("\n")))


def one(job: Job) -> Result:
    """What became of one case; words only where it is bad."""
    index, seed, limit = job
    began = time.process_time()
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, limit)
    outcome, words = "", ""
    try:
        outcome = run(STATEMENTS[index], seed)
    except AssertionError as error:
        outcome, words = "broken", str(error)[:400] or _last()
    except TooLongError as error:
        outcome, words = "too long", str(error)[-400:]
    except Exception:
        outcome, words = "crashed", _last()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return index, seed, outcome, words, time.process_time() - began


def _last() -> str:
    return traceback.format_exc().strip().splitlines()[-1][:400]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="cases, over all statements")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", default="", help="statements whose name holds this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--limit", type=float, default=120.0, help="processor seconds for one case")
    parser.add_argument("--slow", type=float, default=10.0, help="seconds from which one is named")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two reports")
    return parser.parse_args()


def main() -> int:
    """Hunt, and say what was found."""
    options = arguments()
    chosen = [i for i, s in enumerate(STATEMENTS) if options.only in s.__name__]
    each = -(-options.count // len(chosen))
    seeds = range(options.first, options.first + each)
    jobs = ((i, seed, options.limit) for seed in seeds for i in chosen)
    tallies = {i: Tally() for i in chosen}
    begin = said = time.monotonic()
    done = 0
    try:
        for result in _results(jobs, options.jobs):
            done += 1
            _count(tallies[result[0]], result, options.slow)
            if time.monotonic() - said > options.every:
                said = time.monotonic()
                _progress(done, each * len(chosen), said - begin, tallies)
    except KeyboardInterrupt:
        print("stopped before the end")
    bad = _table({i: t for i, t in tallies.items() if t.outcomes})
    seconds = time.monotonic() - begin
    print(f"{done} cases from seed {seeds[0]} to {seeds[-1]}, {bad} bad, {seconds:.0f} s")
    return 1 if bad or done < each * len(chosen) else 0


def _count(tally: Tally, result: Result, slow: float) -> None:
    index, seed, outcome, words, seconds = result
    name = STATEMENTS[index].__name__
    tally.outcomes[outcome] += 1
    tally.bad += bool(words)
    tally.seconds += seconds
    if seconds > tally.slowest:
        tally.slowest, tally.slowest_seed = seconds, seed
    if words:
        print(f"{name} seed {seed}: {outcome}: {words}", flush=True)
    elif seconds > slow:
        print(f"{name} seed {seed}: took {seconds:.0f} s", flush=True)


def _results(jobs: Iterator[Job], n: int) -> Iterator[Result]:
    if n == 1:
        yield from map(one, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(n) as pool:
        yield from pool.imap_unordered(one, jobs, 4)


def _progress(done: int, total: int, seconds: float, tallies: dict[int, Tally]) -> None:
    bad = sum(t.bad for t in tallies.values())
    left = (total - done) * seconds / done
    print(
        f"{done} of {total}, {done / seconds:.1f} a second, {bad} bad, {left / 60:.0f} min left",
        file=sys.stderr,
        flush=True,
    )


def _table(tallies: dict[int, Tally]) -> int:
    """Print the count of every outcome of every statement; the number of bad ones."""
    print(
        f"{'statement':44s} {'cases':>7s} {'bad':>4s} {'mean ms':>8s} {'slowest s':>18s}  outcomes"
    )
    for i, t in tallies.items():
        cases = sum(t.outcomes.values())
        outcomes = ", ".join(f"{k} {v}" for k, v in sorted(t.outcomes.items()))
        print(
            f"{STATEMENTS[i].__name__:44s} {cases:7d} {t.bad:4d} {1e3 * t.seconds / cases:8.1f} "
            f"{t.slowest:6.1f} (seed {t.slowest_seed})  {outcomes}"
        )
    return sum(t.bad for t in tallies.values())


if __name__ == "__main__":
    sys.exit(main())
