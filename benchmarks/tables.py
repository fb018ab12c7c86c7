"""The tables that ``hvp.py`` prints, and the bounds that the project holds itself to."""

import math

import command

TIMES = ("fastcurv", "torch", "jax-linearize", "jax-jvp")


def print_head(facts):
    print(" · ".join(f"{name} {value}" for name, value in facts.items() if name != "config"))
    print(facts["config"])
    print("\nOne product with the Hessian, state kept, in ms (best of the rounds)\n")


def print_record(record, first):
    """One line: the product's time for each contender, the ratio to the best peer, the share of the
    FMA peak.
    """
    if first:
        names = "".join(f"{name:>15}" for name in TIMES)
        print(
            f"{'workload':<14}{'dtype':<9}{names}{'best peer/ours':>16}{'of FMA peak':>13}"
            f"{'peak GF/s':>11}"
        )
    times = "".join(milliseconds(record["seconds"].get(name, {}).get("product")) for name in TIMES)
    print(
        f"{record['workload']:<14}{record['dtype']:<9}{times}{number(record['ahead']):>16}"
        f"{record['share_of_peak']:>13.0%}{record['fma_peak'] / 1e9:>11.0f}",
        flush=True,
    )


def print_more(records):
    """What else was timed, as ratios."""
    ratios = [r["ahead"] for r in records if r["ahead"]]
    if ratios:
        print(
            f"\nbest peer / ours, geometric mean over {len(ratios)}: {geometric_mean(ratios):.2f}"
        )
    for reason in sorted({reason for r in records for reason in r["missing"].values()}):
        print(f"left out: {reason}")
    columns = {
        "product": lambda r: milliseconds(r["seconds"]["fastcurv"]["product"], 9),
        "out=": lambda r: milliseconds(r["seconds"]["fastcurv"]["product-out"], 9),
        "gradient": lambda r: milliseconds(r["seconds"]["fastcurv"]["gradient"], 9),
        "peer/ours": lambda r: number(r["gradient_ahead"]),
        "product/gradient (floor)": lambda r: (
            f"{r['product/gradient']:.2f} ({r['floor product/gradient']:.2f})"
        ),
        "bind/gradient": lambda r: number(r["bind/gradient"]),
        "ggn/product": lambda r: number(r["ggn/product"]),
        "quadratic/product": lambda r: number(r["quadratic/product"]),
        "block/product": lambda r: number(r["block/product"]),
        "block of peak": lambda r: f"{r['block_share_of_peak']:.0%}",
        "2 threads/1": lambda r: number(r["threads"]),
    }
    print("\nThe other calls: ms, and ratios (block: per vector, k = 8; peer/ours: gradients)\n")
    widths = {name: max(len(name), 9) + 2 for name in columns}
    print(f"{'workload':<14}{'dtype':<9}" + "".join(f"{name:>{widths[name]}}" for name in columns))
    for r in records:
        cells = "".join(f"{column(r):>{widths[name]}}" for name, column in columns.items())
        print(f"{r['workload']:<14}{r['dtype']:<9}{cells}")


def print_bounds(records):
    """Each bound, and whether this run met it."""
    print("\nBounds\n")
    for sentence, met in judge(records):
        command.met(met, sentence)


def judge(records):
    """Yield ``(sentence, met)`` for every bound that these records can speak to."""
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


def on(names, limit):
    """A bound for the named workloads; ``limit`` may depend on the dtype.

    Negative: an upper bound.
    """

    def wanted(r):
        if r["workload"] not in names:
            return None
        return limit[r["dtype"]] if isinstance(limit, dict) else limit

    return wanted


def ggn_bound(r):
    """Three quarters of a product, where its matrix products allow as much."""
    return -0.75 if r["floor ggn/product"] <= 0.75 else None


LARGE = ("mnist-relu", "mnist", "autoencoder", "wide")
EVERY = ("tiny", "digits", "mnist-128", *LARGE)
NARROW = {  # share of peak
    "tall-100": 0.55,
    "tall-64": 0.50,
    "tall-160": 0.60,
    "tall-48": 0.65,
    "tiny": {"float32": 0.30, "float64": 0.35},
    "ragged": {"float32": 0.82, "float64": 0.80},
    "deep-72": {"float32": 0.82, "float64": 0.80},
}
TALL = (*(name for name in NARROW if name not in EVERY), "small-10", "small-20")
SMALL = {  # microseconds: half of what they took when samples were rows of every panel
    "small-10": {"float32": -8.6, "float64": -19.2},
    "small-20": {"float32": -5.1, "float64": -8.4},
}
TINY_AHEAD = {"float32": 4.0, "float64": 3.0}
DIGITS_AHEAD = {"float32": 2.3, "float64": 1.75}

BOUNDS = (  # what, its value, the bound
    ("share of FMA peak", lambda r: r["share_of_peak"], on(LARGE, 0.90)),
    ("share of FMA peak", lambda r: r["share_of_peak"], on(("digits",), 0.60)),
    *(("share of FMA peak", lambda r: r["share_of_peak"], on((n,), x)) for n, x in NARROW.items()),
    *(
        (
            "us for product(v, out=)",
            lambda r: r["seconds"]["fastcurv"]["product-out"] * 1e6,
            on(n, x),
        )
        for n, x in (((name,), limit) for name, limit in SMALL.items())
    ),
    ("best peer / ours", lambda r: r["ahead"], on(("mnist-128", *LARGE), 1.0)),
    ("best peer / ours", lambda r: r["ahead"], on(("tiny",), TINY_AHEAD)),
    ("best peer / ours", lambda r: r["ahead"], on(("digits",), DIGITS_AHEAD)),
    (
        "us for product(v, out=)",
        lambda r: r["seconds"]["fastcurv"]["product-out"] * 1e6,
        on(("tiny",), -10),
    ),
    ("product / (floor's ratio x gradient)", lambda r: r["product/floor"], on(LARGE, -1.1)),
    ("2 threads / 1", lambda r: r["threads"], on(LARGE, 1.85)),
    ("gradient: best peer / ours", lambda r: r["gradient_ahead"], on((*EVERY, *TALL), 1.0)),
    ("bind / gradient", lambda r: r["bind/gradient"], on(EVERY, -1.3)),
    ("GGN / Hessian product", lambda r: r["ggn/product"], ggn_bound),
    ("quadratic / product", lambda r: r["quadratic/product"], on(("mnist-relu", "mnist"), -0.6)),
    ("quadratic / product", lambda r: r["quadratic/product"], on(("tall-100", "tall-64"), -0.85)),
    ("quadratic / product", lambda r: r["quadratic/product"], on(("tall-160",), -0.6)),
    ("block / product, per vector", lambda r: r["block/product"], on((*EVERY, *TALL), -1.0)),
    (
        "block / product (or 0.8 of its share of peak)",
        lambda r: min(r["block/product"], 0.64 / r["block_share_of_peak"]),
        on(("digits",), -0.8),
    ),
)


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def milliseconds(seconds, width=15):
    return f"{'-' if seconds is None else format(seconds * 1e3, '.4g'):>{width}}"


def number(value):
    return "-" if value is None else f"{value:.2f}"
