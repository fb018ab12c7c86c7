"""The tables that ``hvp.py`` prints, and the project's bounds on their numbers."""

import math

import command

CONTENDERS = ("fastcurv", "torch", "jax-linearize", "jax-jvp", "curvlinops", "pyhessian")


def print_head(facts):
    print(" · ".join(f"{name} {value}" for name, value in facts.items() if name != "config"))
    print(facts["config"])
    print("\nOne product with the Hessian, state kept, in ms (best of the rounds)\n")


def print_record(record, first):
    """Print one line: the product's time for each contender, the ratio to the best peer, and the
    share of the FMA peak.
    """
    if first:
        names = "".join(f"{name:>15}" for name in CONTENDERS)
        print(
            f"{'workload':<14}{'dtype':<9}{names}{'best peer/ours':>16}{'of FMA peak':>13}"
            f"{'peak GF/s':>11}"
        )
    times = "".join(
        format_milliseconds(record["seconds"].get(name, {}).get("product")) for name in CONTENDERS
    )
    print(
        f"{record['workload']:<14}{record['dtype']:<9}{times}{format_ratio(record['ahead']):>16}"
        f"{record['share_of_peak']:>13.0%}{record['fma_peak'] / 1e9:>11.0f}",
        flush=True,
    )


def print_summary(records):
    """Print the mean ratio to the best peer, and which contenders are missing."""
    ratios = [r["ahead"] for r in records if r["ahead"]]
    if ratios:
        print(
            f"\nbest peer / ours, geometric mean over {len(ratios)}: {geometric_mean(ratios):.2f}"
        )
    for reason in sorted({reason for r in records for reason in r["missing"].values()}):
        print(f"left out: {reason}")


def print_other_calls(records):
    """Print the times of the other calls, and their ratios."""
    columns = {
        "product": lambda r: format_milliseconds(r["seconds"]["fastcurv"]["product"], 9),
        "out=": lambda r: format_milliseconds(r["seconds"]["fastcurv"]["product-out"], 9),
        "gradient": lambda r: format_milliseconds(r["seconds"]["fastcurv"]["gradient"], 9),
        "peer/ours": lambda r: format_ratio(r["gradient_ahead"]),
        "product/gradient (floor)": lambda r: (
            f"{r['product/gradient']:.2f} ({r['floor product/gradient']:.2f})"
        ),
        "bind/gradient": lambda r: format_ratio(r["bind/gradient"]),
        "ggn/product": lambda r: format_ratio(r["ggn/product"]),
        "quadratic/product": lambda r: format_ratio(r["quadratic/product"]),
        "block/product": lambda r: format_ratio(r["block/product"]),
        "block of peak": lambda r: f"{r['block_share_of_peak']:.0%}",
        "2 threads/1": lambda r: format_ratio(r["threads"]),
    }
    print("\nThe other calls: ms, and ratios (block: per vector, k = 8; peer/ours: gradients)\n")
    widths = {name: max(len(name), 9) + 2 for name in columns}
    print(f"{'workload':<14}{'dtype':<9}" + "".join(f"{name:>{widths[name]}}" for name in columns))
    for r in records:
        cells = "".join(f"{column(r):>{widths[name]}}" for name, column in columns.items())
        print(f"{r['workload']:<14}{r['dtype']:<9}{cells}")


def print_bounds(records):
    """Print each bound, and whether this run met it."""
    print("\nBounds\n")
    for sentence, is_met in checked_bounds(records):
        command.print_bound(is_met, sentence)


def checked_bounds(records):
    """Yield ``(sentence, is_met)`` for every bound on a number of these records."""
    for r in records:
        for what, value, wanted in BOUNDS:
            limit, sense = wanted(r), 1
            if limit is None or value(r) is None:
                continue
            if limit < 0:  # at most, not at least
                limit, sense = -limit, -1
            word = "at least" if sense > 0 else "at most"
            sentence = (
                f"{r['workload']} {r['dtype']}: {what} {value(r):.2f}, wanted {word} {limit:.2f}"
            )
            yield sentence, sense * value(r) >= sense * limit
    ratios = [r["ahead"] for r in records if r["ahead"]]
    if ratios:
        mean = geometric_mean(ratios)
        yield f"best peer / ours, geometric mean {mean:.2f}, wanted at least 1.50", mean >= 1.5


def bound_for(names, limit):
    """Return a function of a record that returns the bound ``limit``, or None unless the
    workload is named. ``limit`` may depend on the dtype; a negative one is an upper bound.
    """

    def wanted(r):
        if r["workload"] not in names:
            return None
        return limit[r["dtype"]] if isinstance(limit, dict) else limit

    return wanted


def ggn_bound(r):
    """Return the upper bound of three quarters of a product, or None if the matrix products take
    longer.
    """
    return -0.75 if r["floor ggn/product"] <= 0.75 else None


LARGE_WORKLOADS = ("mnist-relu", "mnist", "autoencoder", "wide")
MAIN_WORKLOADS = ("tiny", "digits", "mnist-128", *LARGE_WORKLOADS)
MIN_PEAK_SHARES = {  # share of peak
    "tall-100": 0.55,
    "tall-64": 0.50,
    "tall-160": 0.60,
    "tall-48": 0.65,
    "tiny": {"float32": 0.30, "float64": 0.35},
    "ragged": {"float32": 0.82, "float64": 0.80},
    "deep-72": {"float32": 0.82, "float64": 0.80},
}
TALL_WORKLOADS = (
    *(name for name in MIN_PEAK_SHARES if name not in MAIN_WORKLOADS),
    "small-10",
    "small-20",
)
MAX_MICROSECONDS = {  # microseconds: half of what they took when samples were rows of every panel
    "small-10": {"float32": -8.6, "float64": -19.2},
    "small-20": {"float32": -5.1, "float64": -8.4},
}
MIN_TINY_RATIOS = {"float32": 4.0, "float64": 3.0}
MIN_DIGITS_RATIOS = {"float32": 2.3, "float64": 1.75}

BOUNDS = (  # what, its value, the bound
    ("share of FMA peak", lambda r: r["share_of_peak"], bound_for(LARGE_WORKLOADS, 0.90)),
    ("share of FMA peak", lambda r: r["share_of_peak"], bound_for(("digits",), 0.60)),
    *(
        ("share of FMA peak", lambda r: r["share_of_peak"], bound_for((n,), x))
        for n, x in MIN_PEAK_SHARES.items()
    ),
    *(
        (
            "us for product(v, out=)",
            lambda r: r["seconds"]["fastcurv"]["product-out"] * 1e6,
            bound_for(n, x),
        )
        for n, x in (((name,), limit) for name, limit in MAX_MICROSECONDS.items())
    ),
    ("best peer / ours", lambda r: r["ahead"], bound_for(("mnist-128", *LARGE_WORKLOADS), 1.0)),
    ("best peer / ours", lambda r: r["ahead"], bound_for(("tiny",), MIN_TINY_RATIOS)),
    ("best peer / ours", lambda r: r["ahead"], bound_for(("digits",), MIN_DIGITS_RATIOS)),
    (
        "us for product(v, out=)",
        lambda r: r["seconds"]["fastcurv"]["product-out"] * 1e6,
        bound_for(("tiny",), -10),
    ),
    (
        "product / (floor's ratio x gradient)",
        lambda r: r["product/floor"],
        bound_for(LARGE_WORKLOADS, -1.1),
    ),
    ("2 threads / 1", lambda r: r["threads"], bound_for(LARGE_WORKLOADS, 1.85)),
    (
        "gradient: best peer / ours",
        lambda r: r["gradient_ahead"],
        bound_for((*MAIN_WORKLOADS, *TALL_WORKLOADS), 1.0),
    ),
    ("bind / gradient", lambda r: r["bind/gradient"], bound_for(MAIN_WORKLOADS, -1.3)),
    ("GGN / Hessian product", lambda r: r["ggn/product"], ggn_bound),
    (
        "quadratic / product",
        lambda r: r["quadratic/product"],
        bound_for(("mnist-relu", "mnist"), -0.6),
    ),
    (
        "quadratic / product",
        lambda r: r["quadratic/product"],
        bound_for(("tall-100", "tall-64"), -0.85),
    ),
    ("quadratic / product", lambda r: r["quadratic/product"], bound_for(("tall-160",), -0.6)),
    (
        "block / product, per vector",
        lambda r: r["block/product"],
        bound_for((*MAIN_WORKLOADS, *TALL_WORKLOADS), -1.0),
    ),
    (
        "block / product (or 0.8 of its share of peak)",
        lambda r: min(r["block/product"], 0.64 / r["block_share_of_peak"]),
        bound_for(("digits",), -0.8),
    ),
)


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def format_milliseconds(seconds, width=15):
    return f"{'-' if seconds is None else format(seconds * 1e3, '.4g'):>{width}}"


def format_ratio(value):
    return "-" if value is None else f"{value:.2f}"
