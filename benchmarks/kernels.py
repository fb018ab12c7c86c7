"""The matrix product alone: share of the FMA peak of one thread, against OpenBLAS through NumPy and
MKL through torch.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --dtype float32 --arch avx2 --sizes 64 256 1024

Square products ``C = A B`` from 1 to 4096, the shapes in the passes of networks, and three other
forms: two terms ``C = A1 B1 + A2 B2``, which are one product with a twice as long inner dimension;
cut into items, as wide networks run, with A by rows and a packed B (weights) or with A by columns
(sums over samples). B is packed before the timing. To compare kernels of one
instruction set on a processor with AVX-512:

    FASTCURV_ARCH=avx2 OPENBLAS_CORETYPE=Haswell python benchmarks/kernels.py
"""

import os
import time

# before NumPy is loaded: one thread on both sides
for _name in ("OPENBLAS", "OMP", "MKL", "FASTCURV"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"

import command  # noqa: E402
import numpy as np  # noqa: E402

try:
    import torch
except ImportError:
    torch = None
from workloads import DTYPES  # noqa: E402

import fastcurv as fc  # noqa: E402
from fastcurv._engine import testing_hooks as hooks  # noqa: E402

SQUARE_SIZES = (
    1,
    2,
    3,
    4,
    6,
    8,
    12,
    16,
    24,
    31,
    32,
    33,
    48,
    64,
    65,
    96,
    128,
    192,
    256,
    384,
    512,
    768,
    1024,
    2048,
    4096,
)
SHAPES = (  # rows, inner, columns: layers of the workloads
    (100, 16, 16),
    (1797, 64, 32),
    (1797, 32, 16),
    (128, 784, 512),
    (1024, 784, 512),
    (1024, 512, 10),
    (512, 1024, 784),
    (784, 1024, 512),
    (1024, 250, 30),
    (256, 2048, 2048),
    (2048, 256, 2048),
)


def main(argv=None):
    args = parse_arguments(argv)
    with command.run(args) as numbers:
        compare_kernels(args, numbers)


def compare_kernels(args, numbers):
    """Print a table for each dtype."""
    fc.show_versions()
    numbers["rows"] = []
    for dtype in args.dtype:
        peak = fc._engine.measure_fma_peak(dtype, 1)
        print(f"\n{dtype}: FMA peak of one thread {peak / 1e9:.1f} GF/s\n")
        print(
            f"{'rows x inner x columns':<24}{'ours':>8}{'two terms':>11}{'items':>8}{'sums':>8}"
            f"{'OpenBLAS':>10}{'MKL':>6}{'ours, items, sums / the better of both':>40}"
        )
        for rows, inner, columns in [(n, n, n) for n in args.sizes] + list(
            () if args.square else SHAPES
        ):
            command.begin_step(f"{dtype}, {rows} x {inner} x {columns}")
            numbers["rows"].append(time_shape(rows, inner, columns, dtype, peak, args))


def parse_arguments(argv):
    parser = command.parser(__doc__)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES, help="(default both)")
    parser.add_argument(
        "--arch", default=None, help="kernels to force (default: those chosen at import)"
    )
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=SQUARE_SIZES, help="of square products"
    )
    parser.add_argument(
        "--square", action="store_true", help="leave out the shapes of the workloads"
    )
    parser.add_argument("--seconds", type=float, default=0.2, help="spent on each measurement")
    return parser.parse_args(argv)


def time_shape(rows, inner, columns, dtype, peak, args):
    rng = np.random.default_rng(0)
    A, A2 = (rng.standard_normal((rows, inner)).astype(dtype) for _ in range(2))
    # as plans store it: no columns at multiples of 4096 bytes
    by_columns = np.pad(A.T, ((0, 0), (0, 128 // A.itemsize)))[:, :rows].T
    B, B2 = (rng.standard_normal((inner, columns)).astype(dtype) for _ in range(2))
    C = np.empty((rows, columns), dtype)
    product = hooks.multiply
    expected = A.astype(np.float64) @ B.astype(np.float64)
    bound = 2 * (inner + 1) * np.finfo(dtype).eps * (np.abs(A) @ np.abs(B)).astype(np.float64)
    if not np.all(np.abs(product(A, B, arch=args.arch) - expected) <= bound):
        raise SystemExit(f"{rows} x {inner} x {columns}, {dtype}: the product is wrong")
    items = {"arch": args.arch, "threads": 1}
    mm = torch.mm if torch else np.matmul
    a, b, c = (torch.from_numpy(M) if torch else M for M in (A, B, C))
    ours, two, in_items, sums, blas, mkl = best_seconds(
        lambda m: product(A, B, arch=args.arch, repeat=m),
        lambda m: product(A, B, A2, B2, arch=args.arch, repeat=m),
        lambda m: product(A, B, b_form="packed", repeat=m, **items),
        lambda m: product(by_columns, B, repeat=m, **items),
        lambda m: multiply_repeatedly(np.matmul, A, B, C, m),
        lambda m: multiply_repeatedly(mm, a, b, c, m),
        seconds=args.seconds,
    )
    floor = 2 * rows * inner * columns / peak
    best = min(blas, mkl)
    shape = f"{rows} x {inner} x {columns}"
    print(
        f"{shape:<24}{floor / ours:>8.0%}{2 * floor / two:>11.0%}{floor / in_items:>8.0%}"
        f"{floor / sums:>8.0%}{floor / blas:>10.0%}{f'{floor / mkl:.0%}' if torch else '-':>6}"
        f"{best / ours:>28.2f}{best / in_items:>6.2f}{best / sums:>6.2f}",
        flush=True,
    )
    seconds = {"ours": ours, "two terms": two, "items": in_items, "sums": sums, "OpenBLAS": blas}
    if torch:
        seconds["MKL"] = mkl
    return {"shape": [rows, inner, columns], "dtype": dtype, "peak": peak, "seconds": seconds}


def multiply_repeatedly(matmul, A, B, C, m):
    for _ in range(m):
        matmul(A, B, out=C)


def best_seconds(*calls, seconds):
    """Return the seconds per product of each ``call(m)``, which computes m products, in interleaved
    rounds; the best counts.

    The best time of a single product is subtracted from that of m + 1, so the time of preparations
    drops out.
    """
    repeats = [repeats_for_10_ms(call) for call in calls]
    best = np.full((len(calls), 2), np.inf)
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end or not np.isfinite(best).all():
        for i, (call, m) in enumerate(zip(calls, repeats)):
            best[i] = np.minimum(best[i], (seconds_of(call, 1), seconds_of(call, m + 1)))
    return [(many - one) / m for (one, many), m in zip(best, repeats)]


def repeats_for_10_ms(call):
    """Return the number of products that take 10 ms."""
    m = 3  # with fewer, the time of preparations would dominate
    while (took := seconds_of(call, m + 1) - seconds_of(call, 1)) < 0.01:
        m *= 2 if took < 0.001 else max(2, round(0.01 / took))
    return m


def seconds_of(call, m):
    start = time.perf_counter()
    call(m)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
