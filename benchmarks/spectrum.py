"""The user's job on a spectrum, in one run: both ends, then the density, in float32, side by side
with peers.

    python benchmarks/spectrum.py                     # digits, mnist N 128 and N 1024, all peers
    python benchmarks/spectrum.py --workload digits --rounds 1 --no-peers

The job: the 5 most negative and the 5 most positive eigenpairs, each residual at most 1e-3 of its
own eigenvalue, and a density of 5 probes x 60 steps. Each contender has a process of its own,
confined to the same processors; rounds are interleaved and the best counts. A contender that takes
10 times as long as fastcurv, and 10 s, is run once, and one that is not done within the time limit
is stopped and reported as slower than that.

Values are compared with float64 ones of a tolerance of 1e-6: if they differ by more than 1e-3,
eigenvalues were missed. Densities are compared with the mean of ``v'Hv`` and ``||Hv||^2`` over 40
random vectors: they may differ by 5 standard errors of the mean of five probes. Contenders that
fail either check are marked and do not count as peers; if fastcurv fails one, the run ends.
"""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import command
from peers import Child, Unavailable, thread_variables
from spectrum_peers import CONTENDERS
from workloads import WORKLOADS

OURS = "fastcurv"
N_PER_END, TOL, N_PROBES, N_STEPS, N_CHECK_VECTORS = 5, 1e-3, 5, 60, 40
MIN_SPEEDUPS = {"eigenpairs": 4.0, "density": 1.7}  # times faster than the fastest peer
# a contender is run once if it takes this many times fastcurv's time, and this many seconds
SINGLE_RUN_RATIO, SINGLE_RUN_SECONDS = 10, 10.0
MAX_STANDARD_ERRORS = 5


class TooSlow(Exception):
    """The contender did not answer in time; its process was ended."""


class SpectrumChild(Child):
    """A contender of spectrum_peers.py in a process of its own, with a time limit on every
    answer.
    """

    def __init__(self, name, threads, limit=None):
        self.name, self.threads, self.limit = name, threads, limit
        self.start()

    def start(self):
        script = str(Path(__file__).absolute().parent / "spectrum_peers.py")
        self.process = subprocess.Popen(
            [sys.executable, script, self.name, str(self.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=dict(os.environ, **thread_variables(self.threads)),
        )

    def build(self, workload):
        self.workload = workload
        return self.ask(do="build", workload=workload)

    def ask(self, **request):
        """Send one request and return its answer. Past the limit, start the process again and
        raise `TooSlow`.
        """
        if self.limit is None:
            return super().ask(**request)
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], self.limit)
            if not ready:
                self.process.kill()
                self.process.wait()
                if request["do"] != "build":
                    self.start()
                    self.build(self.workload)
                raise TooSlow(f"more than {self.limit:.0f} s")
            answer = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise Unavailable(f"{self.name}: its process ended") from error
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer

    def close(self):
        if self.process.poll() is None:
            super().close()


def main(argv=None):
    args = parse_arguments(argv)
    with command.run(args) as numbers:
        print(
            f"{command.cpu_name()}, {args.threads} threads, float32, best of {args.rounds} rounds, "
            f"{time.strftime('%Y-%m-%d %H:%M')}"
        )
        numbers["records"] = [measure(name, args) for name in args.workload]
        if args.bounds:
            print_bounds(numbers["records"])


def parse_arguments(argv):
    parser = command.parser(__doc__, bounds=True)
    command.add_names_option(parser, "--workload", WORKLOADS, ("digits", "mnist-128", "mnist"))
    parser.add_argument("--threads", type=int, default=2, help="of every contender (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="the best counts (default 3)")
    parser.add_argument(
        "--ends", type=int, default=N_PER_END, help=f"eigenpairs of each end (default {N_PER_END})"
    )
    parser.add_argument(
        "--probes", type=int, default=N_PROBES, help=f"probes of the density (default {N_PROBES})"
    )
    parser.add_argument(
        "--steps", type=int, default=N_STEPS, help=f"steps of each probe (default {N_STEPS})"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=300.0,
        help="seconds a peer may take for one answer (default 300)",
    )
    parser.add_argument(
        "--peer",
        nargs="+",
        choices=[name for name in CONTENDERS if name != OURS],
        metavar="NAME",
        help="these peers only: " + ", ".join(repr(name) for name in CONTENDERS if name != OURS),
    )
    parser.add_argument("--no-peers", action="store_true", help="fastcurv alone")
    return parser.parse_args(argv)


def measure(workload, args):
    """Run every contender on one workload, and return the record."""
    command.begin_step(f"{workload}: float64 values for comparison")
    truth = reference(workload, args)
    jobs = {
        "eigenpairs": {"k": args.ends, "tol": TOL},
        "density": {"probes": args.probes, "steps": args.steps},
    }
    names = (
        [OURS]
        if args.no_peers
        else [name for name in CONTENDERS if name == OURS or not args.peer or name in args.peer]
    )
    children, missing, n = open_children(names, workload, args)
    best = {}
    for seed in range(args.rounds):
        for name, child in children.items():
            for job, request in jobs.items():
                held = best.get((name, job))
                if (
                    (name, job) in missing
                    or held
                    and held["seconds"]
                    > max(SINGLE_RUN_SECONDS, SINGLE_RUN_RATIO * best[OURS, job]["seconds"])
                ):
                    continue
                command.begin_step(f"{workload}: {name}, {job}, round {seed + 1} of {args.rounds}")
                try:
                    answer = child.ask(do=job, seed=seed, **request)
                except (Unavailable, TooSlow) as reason:
                    missing[name, job] = str(reason)
                    continue
                answer["off"] = error_over_tolerance(job, answer, truth, args.probes)
                if held:
                    answer["off"] = max(answer["off"], held["off"])
                    answer = (
                        answer
                        if answer["seconds"] < held["seconds"]
                        else held | {"off": answer["off"]}
                    )
                best[name, job] = answer
    for child in children.values():
        child.close()
    record = {
        "workload": str(WORKLOADS[workload]),
        "n": n,
        "truth": truth,
        "missing": {": ".join(k): v for k, v in missing.items()},
        "best": {f"{name}: {job}": answer for (name, job), answer in best.items()},
        "ahead": speedups(best),
    }
    print_record(record, best, missing)
    for job in jobs:
        if (OURS, job) in missing or not best[OURS, job]["off"] <= 1:
            why = (
                missing.get((OURS, job))
                or f"off by {best[OURS, job]['off']:.3g} times what is allowed"
            )
            raise SystemExit(f"fastcurv, {job}: {why}; there is nothing to compare")
    return record


def reference(workload, args):
    """Return the eigenvalues and moments in float64, with which all are compared."""
    child = SpectrumChild("reference", args.threads)
    try:
        child.build(workload)
        values = child.ask(do="eigenpairs", k=args.ends, tol=1e-6, seed=0)["values"]
        return {"values": values, **child.ask(do="moments", samples=N_CHECK_VECTORS, seed=0)}
    finally:
        child.close()


def open_children(names, workload, args):
    """Start every contender and build its operator. Return ``(children, missing, n)``."""
    children, missing, n = {}, {}, None
    for name in names:
        child = SpectrumChild(name, args.threads, None if name == OURS else args.limit)
        try:
            n = child.build(workload)["n"]
            children[name] = child
        except (Unavailable, TooSlow) as reason:
            missing[name, "eigenpairs"] = missing[name, "density"] = str(reason)
            child.close()
    return children, missing, n


def error_over_tolerance(job, answer, truth, probes):
    """Return the largest error over the allowed one; the answer agrees if it is at most 1."""
    if job == "eigenpairs":
        answer["error"] = max(
            abs(a - b) / abs(b) for a, b in zip(answer["values"], truth["values"], strict=True)
        )
        return answer["error"] / TOL
    return max(
        abs(m - mean) / (MAX_STANDARD_ERRORS * scatter * (1 / probes + 1 / N_CHECK_VECTORS) ** 0.5)
        for m, mean, scatter in zip(answer["moments"], truth["moments"], truth["scatter"])
    )


def speedups(best):
    """Return for each job how many times faster fastcurv is than the fastest peer whose answer
    agrees, or None.
    """
    result = {}
    for job in MIN_SPEEDUPS:
        peers = [
            a["seconds"]
            for (name, what), a in best.items()
            if what == job and name != OURS and a["off"] <= 1
        ]
        result[job] = (
            min(peers) / best[OURS, job]["seconds"] if peers and (OURS, job) in best else None
        )
    return result


def print_record(record, best, missing):
    print(f"\n{record['workload']}, n {record['n']}")
    print(
        f"  {'':20} {'eigenpairs':>10} {'products':>9} {'worst error':>12}   {'density':>9} "
        f"{'mean':>10} {'mean square':>12}"
    )
    for name in CONTENDERS:
        pairs, density = best.get((name, "eigenpairs")), best.get((name, "density"))
        if not (pairs or density or (name, "density") in missing):
            continue
        left = (
            f"{pairs['seconds']:9.3f}s {pairs['products']:9} {pairs['error']:12.1e}"
            if pairs
            else f"{'-':>10} {'-':>9} {'-':>12}"
        )
        right = (
            f"{density['seconds']:8.3f}s {density['moments'][0]:10.3g} "
            f"{density['moments'][1]:12.3g}"
            if density
            else f"{'-':>9}"
        )
        print(f"  {name:20} {left}   {right}")
        for job, answer in (("eigenpairs", pairs), ("density", density)):
            if answer and not answer["off"] <= 1:
                print(
                    f"  {'':20} {job}: does not agree, off by {answer['off']:.2g} times what is "
                    "allowed"
                )
            elif not answer and (name, job) in missing:
                print(f"  {'':20} {job}: {missing[name, job]}")
    moments = ", ".join(f"{m:.3g}" for m in record["truth"]["moments"])
    print(
        f"  float64: mean and mean square {moments}; eigenvalues "
        + " ".join(f"{v:.4g}" for v in record["truth"]["values"])
    )
    for job, ratio in record["ahead"].items():
        if ratio:
            print(f"  {job}: {ratio:.2f}x the fastest peer")


def print_bounds(records):
    """Print each bound, and whether this run met it."""
    print()
    for job, bound in MIN_SPEEDUPS.items():
        ratios = [r["ahead"][job] for r in records if r["ahead"][job]]
        if ratios:
            command.print_bound(
                min(ratios) >= bound,
                f"{job}: at least {bound}x the fastest peer on every workload: "
                f"{', '.join(f'{r:.2f}x' for r in ratios)}",
            )


if __name__ == "__main__":
    main()
