"""Which alpha for the estimators: held-out scores and processor times of our default, of
``alpha="evidence"`` and of fixed values, beside scikit-learn's two solvers.

    python benchmarks/decay.py [--seeds 2] [--unit] [--only diabetes] [--hidden 20]

The data are small ones of `benchmarks/estimators.py --scores`, split and scaled in the same way.
``alpha="evidence"`` is left out above 4096 parameters, which it refuses.
"""

import argparse
import time
import warnings

import numpy as np
from estimators import HELD_OUT, sklearn, split

import fastcurv as fc

SMALL = ("diabetes", "breast cancer", "friedman1", "friedman3", "digits")
CONTENDERS = {
    "ours, default": (fc, {}),
    "ours, evidence": (fc, {"alpha": "evidence"}),
    "ours, tanh, evidence": (fc, {"alpha": "evidence", "activation": "tanh"}),
    "ours, alpha=0.3": (fc, {"alpha": 0.3}),
    "ours, alpha=1": (fc, {"alpha": 1.0}),
    "theirs, adam": (sklearn.neural_network, {"solver": "adam"}),
    "theirs, lbfgs": (sklearn.neural_network, {"solver": "lbfgs"}),
}


def score(kinds, name, seed, unit, hidden, more):
    """The accuracy or R^2 on the rows held out, and the processor time of the fit."""
    sizes, labels, X, X_held, y, y_held = split(name, seed, unit)
    kind = kinds.MLPClassifier if labels else kinds.MLPRegressor
    net = kind(hidden_layer_sizes=(hidden,) if hidden else sizes, random_state=seed, **more)
    start = time.process_time()
    try:
        net.fit(X, y)
    except ValueError:  # too many parameters for the evidence
        return np.nan, np.nan
    return net.score(X_held, y_held), time.process_time() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--unit", action="store_true", help="features in [0, 1]")
    parser.add_argument("--only", default="")
    parser.add_argument("--hidden", type=int, help="units instead of those of the table")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in SMALL if not args.only else [n for n in HELD_OUT if args.only in n]:
        print(name, flush=True)
        for who, (kinds, more) in CONTENDERS.items():
            runs = range(args.seeds)
            found = [score(kinds, name, s, args.unit, args.hidden, more) for s in runs]
            mean, seconds = np.mean(found, axis=0)
            print(f"  {who:<22}{mean:8.4f}{seconds:9.2f} s", flush=True)


if __name__ == "__main__":
    main()
