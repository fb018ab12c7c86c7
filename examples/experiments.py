"""Compute the tables in ``examples/data`` again, as ``make experiments`` does.

python examples/experiments.py [--only plateaus escape_times]
"""

import argparse
import importlib
import time

import numpy as np
from common import DATA, write_table

import fastcurv as fc

EXPERIMENTS = (
    "early_stopping",
    "failed_training",
    "initial_scale",
    "learning_rates",
    "minimum_ratio",
    "plateaus",
    "poor_minima",
    "saddles_against_size",
    "skip_connections",
    "ten_million",
    "where_training_stops",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS)
    for name in parser.parse_args().only:
        print(name, flush=True)
        began = time.process_time()
        rows = importlib.import_module(name).experiment("normal")
        spent = time.process_time() - began
        remark = (
            f"python examples/experiments.py --only {name}: {spent:.0f} s of processor time, "
            f"fastcurv {fc.__version__}, NumPy {np.__version__}"
        )
        write_table(DATA / f"{name}.csv", rows, remark)
        print(f"  {len(rows)} rows in {spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
