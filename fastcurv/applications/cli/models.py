"""Trained networks from other programs, with data that the user names."""

from __future__ import annotations

import logging
import re
import zipfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import one_line, type_phrase
from ...common.files import read_tensors
from ...common.optional import optional_import
from ...network.mlp import MLP
from ...network.objective import Objective
from ...network.save import RUN_KEY, load
from ..convert.onnx import from_onnx
from ..convert.torch import from_torch
from .data import MAX_UNPACKED_RATIO, Dataset, max_unpacked_bytes, resolve_source
from .encode import load_dataset
from .recipe import reading_options

# --------------------------------------------------------------------------------------------------
# Objectives of the shell command on Dask workers, each of which reads the data itself.

# number of shards, equal for all numbers of workers, so that the order of summation is always the
# same
N_SHARDS = 16
Load = Callable[[], Dataset]


@lru_cache(maxsize=1)
def _load_data(load: Load) -> Dataset:
    return load()


def shard_rows(load: Load, number: int, count: int) -> tuple[Any, Any]:
    """Return X and y of the training rows in shard `number` of `count`, as read by a worker
    through ``load()``.
    """
    data = _load_data(load)
    N = len(data.X)
    some = slice(number * N // count, (number + 1) * N // count)
    return data.X[some], data.y[some]


def cluster_objective(address: str | None, ob: Any, load: Load) -> Any:
    """Return the objective on the workers of the scheduler at `address`, or on local workers
    ("local"). Without an address the objective is returned unchanged.

    `load` must be hashable and picklable: a method of a `TrainingRecipe`, or a partial
    `load_dataset`.
    """
    if not address:
        return ob
    from ... import distributed

    count = min(N_SHARDS, ob.n_samples)
    shards = [partial(shard_rows, load, i, count) for i in range(count)]
    client = None if address == "local" else address
    there = distributed.Objective(
        ob.model, shards, ob.loss, ob.l2, client=client, l2_biases=ob.l2_biases
    )
    # The command reports errors on its own, so messages of Dask are suppressed.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return there


TORCH_SUFFIXES = (".pt", ".pth")


def is_model_file(path: Path) -> bool:
    """Return True if a file holds only a network, by its suffix .onnx, .pt or .pth, or because it
    is a .safetensors file without a run that 'fastcurv train' saved.
    """
    kind = path.suffix.lower()
    if kind != ".safetensors":
        return kind in (".onnx", *TORCH_SUFFIXES)
    return RUN_KEY not in read_tensors(path)[1]


def open_model(path: Path, args: Namespace) -> tuple[Dataset, Objective, np.ndarray]:
    """Return the unscaled data, the objective of the network in the file over all samples, and the
    parameters theta.

    Raises
    ------
    ValueError
        If no data are named, if the data do not fit the network, or if the file holds no network.
    ImportError
        If torch (for a .pt state dict) or onnx (for a .onnx model) is not installed.
    """
    if args.data is None:
        raise ValueError(
            f"--data must be given with {path}, which does not name its training data."
        )
    model, theta = read_model(path, args.activation)
    if args.dtype is not None:
        model, theta = model.astype(args.dtype), theta.astype(args.dtype)
    read = partial(
        load_dataset,
        resolve_source(args.data),
        loss=args.loss,
        target=args.target,
        raw=True,
        test_fraction=0.0,
        n_outputs=model.sizes[-1],
        options=reading_options(args),
    )
    data = read()
    if data.X.shape[1] != model.sizes[0]:
        raise ValueError(
            f"{args.data} must have {model.sizes[0]} features, as many as the network in {path} "
            f"has inputs, got {data.X.shape[1]}."
        )
    l2 = 0.0 if args.l2 is None else args.l2
    ob = Objective(model, data.X, data.y, loss=data.loss, l2=l2, n_threads=args.threads)
    return data, cluster_objective(getattr(args, "dask", None), ob, read), theta


def read_model(path: Path, activation: str | None = None) -> tuple[MLP, np.ndarray]:
    """Return model and theta from a file whose suffix determines its format. `activation` is that
    of the hidden layers, for a state dict.
    """
    kind = path.suffix.lower()
    if kind in TORCH_SUFFIXES:
        return _model_from_state(path, _read_torch_state(path), activation)
    if kind == ".safetensors":
        arrays, facts = read_tensors(path)
        if not facts:
            return _model_from_state(path, _sort_layers(path, arrays), activation)
    if activation is not None:
        raise ValueError(
            f"--activation must be left out with {path}, which names its activations, got "
            f"{activation!r}."
        )
    return from_onnx(path) if kind == ".onnx" else load(path)


def _model_from_state(path: Path, state: Any, activation: str | None) -> tuple[MLP, np.ndarray]:
    if activation is None and len(state) > 2:
        raise ValueError(
            f"--activation must be given with {path}, which does not name its activations."
        )
    try:
        return from_torch(state, activation="identity" if activation is None else activation)
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error, 400)}") from None


def _read_torch_state(path: Path) -> Any:
    """Return the state dict in a file written by torch.save. Only tensors are read, and no code in
    the file is run. Raise ValueError for any other content, and for tensors that would take more
    memory than `max_unpacked_bytes` allows.
    """
    with optional_import("files of torch"):
        import torch

    # torch.save does not compress. A file that is no archive has one copy of each number.
    if zipfile.is_zipfile(path):
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            _check_state_size(path, sum(entry.file_size for entry in archive.infolist()))
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # pickle, zipfile and torch raise many kinds of errors.
        reason = one_line(" ".join(str(error).split()).split(". ")[0], 120) or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a state dict: {reason}. Write one with "
            "torch.save(net.state_dict(), path)."
        ) from None
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(held, dict) and isinstance(held.get(name), dict):
            held = held[name]
    is_dict = isinstance(held, dict)
    if not is_dict or not all(hasattr(t, "detach") for t in held.values()):
        odd = next(t for t in held.values() if not hasattr(t, "detach")) if is_dict else held
        raise ValueError(
            f"{path} must hold a state dict, as written by torch.save(net.state_dict(), path), "
            f"got {'a dict with ' * is_dict}{type_phrase(odd)}."
        )
    # The strides of a tensor may repeat numbers of the file.
    _check_state_size(path, sum(8 * t.numel() for t in held.values()))
    return held


def _check_state_size(path: Path, n_bytes: int) -> None:
    if n_bytes > max_unpacked_bytes(path):
        raise ValueError(
            f"{path} must hold tensors of at most {MAX_UNPACKED_RATIO} times its own size, got "
            f"{n_bytes} bytes. Write the file with torch.save(net.state_dict(), path)."
        )


def _sort_layers(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file sorted by the numbers in their names, weights before
    biases, since the file does not keep the order of the layers. Raise ValueError if the layers are
    named by words instead of numbers.
    """
    layers = sorted({name.rpartition(".")[0] for name in arrays})
    numbers = {layer: [int(digits) for digits in re.findall(r"\d+", layer)] for layer in layers}
    if len({re.sub(r"\d+", "#", layer) for layer in layers}) > 1:
        found = one_line(", ".join(layers[:4]), 200)
        raise ValueError(
            f"{path} must have layers whose names contain their numbers, got {found}, which have "
            "no order. Use a .pt state dict, or fc.save."
        )
    place = {name: (numbers[name.rpartition(".")[0]], name.endswith("bias")) for name in arrays}
    return {name: arrays[name] for name in sorted(arrays, key=lambda name: place[name])}
