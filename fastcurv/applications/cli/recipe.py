"""Trained networks on disk, in one ``.npz`` or ``.safetensors`` file each, with all that is needed
to rebuild their objectives.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import one_line
from ...common.files import (
    MAX_HEADER_BYTES,
    checksum_error,
    expand_home,
    make_folder_of,
    read_tensors,
    write_atomically,
    write_tensors,
)
from ...network.mlp import MLP
from ...network.objective import Objective
from ...network.save import RUN_KEY, file_contents, model_from_contents
from .cells import CLOCK_FORMAT, ISO_FORMAT, NO_OPTIONS, ReadingOptions
from .data import COLUMN_KINDS, ColumnCoding, DataCoding, Dataset, read_npz
from .encode import load_dataset, load_table_dataset

RUN_SUFFIXES = (".npz", ".safetensors")
# names of the arrays of `SavedRun.errors` in a file
ERRORS_KEYS = ("history.left_out_errors", "history.left_out_spread")
# fields of a `TrainingRecipe` that are True or False
FLAG_FIELDS = ("residual", "batch_norm", "raw", "table", "l2_biases")
SAVED_RECORD_FIELDS = ("loss", "gradient_norm", "time")
SCALING_FIELDS = ("shift", "scale", "y_shift", "y_scale")  # numeric fields of a `DataCoding`
# start of the archive comment; the hexadecimal SHA-256 of all bytes before the digits follows
CHECKSUM_PREFIX = b"fastcurv sha256 "


@dataclass(frozen=True)
class TrainingRecipe:
    """The settings of a training run. ``data`` is the name of a data set or the path of a file.

    If ``loss`` is None, the default loss of the data is used. ``digest`` is the fingerprint of the
    training data, empty if not known. ``n_outputs`` is set if training continued from a network of
    another program. Targets are then the indices of its classes. With ``table`` the data are read
    by `encode.load_table_dataset`, and all rows are fitted. ``l2_biases`` is that of the objective.
    ``reading`` are the options with which a table is read.
    """

    data: str
    hidden: tuple[int, ...] = (32, 16)
    activation: Any = "tanh"
    residual: bool = False
    batch_norm: bool = False
    dtype: str = "float64"
    l2: float = 1e-3
    seed: int = 0
    loss: str | None = None
    target: str | None = None
    raw: bool = False
    held_out: float = 0.2
    digest: str = ""
    n_outputs: int | None = None
    table: bool = False
    l2_biases: bool = True
    reading: ReadingOptions = NO_OPTIONS

    def load_dataset(self, coding: DataCoding | None = None) -> Dataset:
        """Return the data. If `coding` is given, it must be that of a fitted network, and a table
        is read with it instead of a new coding.
        """
        if not self.data:
            raise ValueError(
                "data must name the training data, which the network does not, or not on this "
                "machine. Pass them with --data."
            )
        if self.table:
            return load_table_dataset(self.data, self.target, self.loss, coding, self.reading)[0]
        return load_dataset(
            self.data,
            loss=self.loss,
            target=self.target,
            raw=self.raw,
            test_fraction=self.held_out,
            seed=self.seed,
            n_outputs=self.n_outputs,
            options=self.reading,
        )

    def build_model(self, data: Dataset) -> MLP:
        return self.build_network(data.X.shape[1], data.n_outputs)

    def build_network(self, n_features: int, n_outputs: int) -> MLP:
        """Return the network with the given numbers of inputs and outputs."""
        return MLP(
            [n_features, *self.hidden, n_outputs],
            activation=self.activation,
            residual=self.residual,
            batch_norm=self.batch_norm,
            dtype=self.dtype,
        )

    def build_objective(
        self,
        data: Dataset | None = None,
        n_threads: int | None = None,
        model: MLP | None = None,
    ) -> Objective:
        """Return the objective over the training samples, for `model` if it is given and otherwise
        for the network of the recipe.
        """
        data = self.load_dataset() if data is None else data
        model = self.build_model(data) if model is None else model
        return Objective(
            model,
            data.X,
            data.y,
            loss=data.loss,
            l2=self.l2,
            n_threads=n_threads,
            l2_biases=self.l2_biases,
        )


@dataclass(frozen=True)
class SavedRun:
    """A saved run as read by `load_run`: the recipe, ``theta (n,)``, and the history of the
    training.

    ``history`` holds the arrays ``loss``, ``gradient_norm`` and ``time`` of equal length, or is
    empty if nothing was recorded. ``phases`` lists pairs of a method and its number of records.
    ``errors`` are the errors (N,) of rows left out and their spread (3,), if intervals are computed
    from them (`measure.errors_to_save`), or None.
    ``recipe`` is None for a network from another program. ``model`` is None if the recipe alone
    describes the network. ``coding`` is None if the file does not state how its data were scaled.
    """

    recipe: TrainingRecipe | None
    theta: np.ndarray
    history: dict[str, np.ndarray] = field(default_factory=dict)
    phases: tuple[tuple[str, int], ...] = ()
    model: MLP | None = None
    coding: DataCoding | None = None
    errors: tuple[np.ndarray, np.ndarray] | None = None

    def __iter__(self) -> Any:
        return iter((self.recipe, self.theta))

    @property
    def named_records(self) -> dict[str, Any]:
        """The records of the last method with its name, in the form of a history for
        `fastcurv.diagnose`.
        """
        name, count = self.phases[-1] if self.phases else (None, 0)
        records = {key: values[-count:] for key, values in self.history.items() if key != "time"}
        return {"loss": [], "method": name} | records


def check_saved_size(path: str | Path | None, coding: DataCoding) -> None:
    """Raise ValueError if the names and scales of the columns do not fit into the header of the
    .safetensors file to which a network will be saved.
    """
    if path is not None and Path(path).suffix.lower() == ".safetensors":
        size = len(json.dumps(json.dumps(asdict(coding))))  # the header holds it as a string
        if size > 0.9 * MAX_HEADER_BYTES:  # the rest is for the recipe and the arrays
            raise ValueError(
                f"the columns of the data must take at most {0.9 * MAX_HEADER_BYTES:.0f} bytes in "
                f"the header of {path}, got {size}. Use a name that ends in .npz."
            )


def save_run(
    path: str | Path,
    recipe: TrainingRecipe,
    model: MLP,
    theta: np.ndarray,
    history: dict[str, np.ndarray] | None = None,
    phases: tuple[tuple[str, int], ...] = (),
    *,
    coding: DataCoding | None = None,
    errors: tuple[np.ndarray, np.ndarray] | None = None,
) -> Path:
    """Write parameters and recipe atomically, and return the path. `history`, `phases`, `coding`
    and `errors` are those of `SavedRun`.

    A .safetensors file has the contents that `fastcurv.save` writes and also the recipe, so that
    `fastcurv.load` can read the network from it.
    """
    records = {f"history.{name}": values for name, values in (history or {}).items()}
    if errors is not None:
        records |= dict(zip(ERRORS_KEYS, errors))
    if Path(path).suffix.lower() == ".safetensors":
        path = expand_home(path).absolute()
        make_folder_of(path)
        arrays, facts = file_contents(model, theta)
        facts[RUN_KEY] = {"recipe": asdict(recipe), "phases": phases}
        if coding is not None:
            facts[RUN_KEY]["coding"] = asdict(coding)
        write_tensors(path, arrays | records, facts)
        return path
    if recipe.n_outputs is not None:
        raise ValueError(
            f"path must end in .safetensors for an imported network, got {str(path)!r}."
        )
    file = io.BytesIO()
    words: Any = {"recipe": json.dumps(asdict(recipe)), "phases": json.dumps(phases)}
    if coding is not None:
        words["coding"] = json.dumps(asdict(coding))
    np.savez(file, **({"theta": theta} | records | words))
    # The file ends with the length of its archive comment, which is 0.
    raw = file.getvalue()[:-2] + (len(CHECKSUM_PREFIX) + 64).to_bytes(2, "little") + CHECKSUM_PREFIX
    return write_atomically(path, raw + hashlib.sha256(raw).hexdigest().encode())


def _check_checksum(path: Path) -> None:
    """Raise ValueError for an archive whose comment is not the checksum of all bytes before it.
    Archives without a comment are accepted.
    """
    raw = path.read_bytes()
    if raw[:-64].endswith(CHECKSUM_PREFIX):
        if hashlib.sha256(raw[:-64]).hexdigest().encode() != raw[-64:]:
            raise checksum_error(path)
    elif raw[-22:-18] != b"PK\5\6":
        # An archive has its end record at this place only if it has no comment.
        raise checksum_error(path)


def load_run(path: str | Path, **instead: Any) -> SavedRun:
    """Load a run that `save_run` wrote.

    Parameters
    ----------
    path : str or path
    **instead
        Fields such as `data` or `loss` that replace those of the saved recipe, unless they are
        None.

    Returns
    -------
    SavedRun
        Unpacks as ``recipe, theta``.

    Raises
    ------
    ValueError
        If the file is not a saved run.
    """
    path = expand_home(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist. Create it with 'fastcurv report'.")
    instead = {name: value for name, value in instead.items() if value is not None}
    if "data" in instead:
        instead["digest"] = ""
    try:
        arrays, facts, model, more = _read_run_file(path)
        theta = np.asarray(arrays["theta"])
        if theta.ndim != 1 or theta.dtype.kind != "f":
            raise ValueError(
                f"theta must be a vector of floats, got {theta.dtype} of shape {theta.shape}."
            )
        recipe = _read_recipe(facts, instead)
        coding = None if more.get("coding") is None else _read_coding(more["coding"])
        errors = _check_errors([arrays.pop(key, None) for key in ERRORS_KEYS])
        history = {k[8:]: v for k, v in arrays.items() if k.startswith("history.")}
        counted = _check_and_count_records(history, more.get("phases", ()))
    except Exception as error:
        if path.suffix not in RUN_SUFFIXES:
            raise ValueError(
                f"{path} must be a table (.csv, .xlsx, .parquet, ...), or a network that 'fastcurv "
                f"report' saved, got a name that ends in {one_line(path.suffix)!r}."
            ) from None
        missing = isinstance(error, KeyError)
        reason = f"it has no {error}" if missing else one_line(error, 300)
        raise ValueError(
            f"{path} is not a network that 'fastcurv report' saved: {reason.rstrip('.')}."
        ) from None
    if recipe.n_outputs is None:
        model = None
    elif model is not None and recipe.dtype != model.dtype.name:
        model = model.astype(recipe.dtype)
    return SavedRun(recipe, theta, history, counted, model, coding, errors)


def _check_errors(values: list[Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the errors of rows left out and their spread, after checking the arrays of a file."""
    if all(value is None for value in values):
        return None
    errors, spread = (np.asarray(value) for value in values)
    floats = errors.dtype.kind == spread.dtype.kind == "f"
    finite = floats and bool((errors >= 0).all() and np.isfinite(spread).all())
    if not finite or errors.ndim != 1 or spread.shape != (3,) or not spread[2] > 0:
        raise ValueError(
            "the errors of rows left out must be a vector of floats >= 0 with a spread of three "
            f"floats, got {errors.dtype} of shape {errors.shape} and {spread.dtype} of shape "
            f"{spread.shape}."
        )
    return errors, spread


def _read_run_file(path: Path) -> tuple[dict[str, np.ndarray], Any, MLP | None, dict[str, Any]]:
    """Return the arrays, the entries of the recipe, the model if the file describes it, and other
    facts in the file.
    """
    if path.suffix.lower() == ".safetensors":
        arrays, facts = read_tensors(path)
        model, arrays["theta"] = model_from_contents(path, arrays, facts)
        return arrays, facts[RUN_KEY]["recipe"], model, facts[RUN_KEY]
    arrays = read_npz(path)
    _check_checksum(path)
    more: dict[str, Any] = {
        key: json.loads(str(arrays[key])) for key in ("phases", "coding") if key in arrays
    }
    return arrays, json.loads(str(arrays["recipe"])), None, more


def _read_coding(facts: Any) -> DataCoding:
    """Return the `DataCoding` described by `facts`, the JSON object of a file, after checking the
    type of every field.
    """

    def numbers(values: Any) -> tuple[float, ...]:
        if not isinstance(values, (list, tuple)) or not all(
            type(x) in (int, float) and math.isfinite(x) for x in values
        ):
            raise ValueError(
                f"the scaling must be lists of finite numbers, got {one_line(repr(values))}."
            )
        return tuple(map(float, values))

    known: dict[str, Any] = {name: numbers(facts[name]) for name in SCALING_FIELDS}
    known["statistics"] = tuple((numbers(m), numbers(v)) for m, v in facts["statistics"])
    if not isinstance(facts["target"], str) or not all(type(x) is str for x in facts["columns"]):
        raise ValueError(
            "the names of the columns and of the target must be strings, got "
            f"{one_line(repr((facts['columns'], facts['target'])))}."
        )
    if not all(type(x) in (str, int, float) for x in facts["classes"]):
        raise ValueError(
            f"the classes must be strings or numbers, got {one_line(repr(facts['classes']))}."
        )
    if not all(x > 0 for name in ("scale", "y_scale") for x in known[name]):
        scales = (*known["scale"], *known["y_scale"])
        raise ValueError(f"the scales must be positive, got {one_line(repr(scales))}.")
    sizes = facts["sizes"]
    if len(sizes) < 2 or not all(type(m) is int and 0 < m < 1 << 31 for m in sizes):
        raise ValueError(f"the sizes must be at least two ints >= 1, got {one_line(repr(sizes))}.")
    if len(facts["classes"]) not in (0, max(2, sizes[-1])) or any(
        len(known[name]) not in (0, width)
        for name, width in (("shift", sizes[0]), ("scale", sizes[0]))
    ):
        raise ValueError(
            f"the scaling and classes must fit a network of sizes {sizes}, got "
            f"{len(known['shift'])} shifts, {len(known['scale'])} scales and "
            f"{len(facts['classes'])} classes."
        )
    known["codes"] = _read_column_codings(facts.get("codes", ()), sizes[0])
    known["decimal"], known["na"] = facts.get("decimal", "."), tuple(facts.get("na", ()))
    if known["decimal"] not in (".", ",") or not all(type(x) is str for x in known["na"]):
        raise ValueError(
            "the decimal mark must be a point or a comma, and missing cells strings, got "
            f"{one_line(repr((known['decimal'], known['na'])))}."
        )
    names: dict[str, Any] = {name: tuple(facts[name]) for name in ("columns", "classes", "sizes")}
    return DataCoding(**known, **names, target=facts["target"])


def _read_column_codings(facts: Any, n_inputs: int) -> tuple[ColumnCoding, ...]:
    """Return the rules by which the columns of a table become `n_inputs` inputs, described by
    `facts`, a JSON list, after checking the type of every field.
    """
    codes = []
    for given in facts:
        code = ColumnCoding(**(given | {"categories": tuple(given["categories"])}))
        words = code.name, code.kind, code.form, code.first, *code.categories
        number = type(code.fill) in (int, float) and math.isfinite(code.fill)
        if not number or code.kind not in COLUMN_KINDS or not all(type(x) is str for x in words):
            raise ValueError(
                f"each column must have a kind ({', '.join(COLUMN_KINDS)}), a finite fill and "
                f"strings for the rest, got {one_line(repr(given))}."
            )
        if code.kind == "dates" and code.form not in (ISO_FORMAT, CLOCK_FORMAT):
            ReadingOptions(dates=(code.form,))
        if code.first and datetime.fromisoformat(code.first).tzinfo is not None:
            raise ValueError(
                f"the first date must have no time zone, got {one_line(repr(code.first))}."
            )
        codes.append(code)
    given_inputs = sum(len(code.input_names) for code in codes)
    if codes and given_inputs != n_inputs:
        raise ValueError(
            f"the columns must give the {n_inputs} inputs of the network, got {given_inputs}."
        )
    return tuple(codes)


def reading_options(args: Any, usual: ReadingOptions = NO_OPTIONS) -> ReadingOptions:
    """Return the `ReadingOptions` in the arguments of a command, and those of `usual` for all
    others.
    """
    given = {name: getattr(args, name, None) for name in asdict(usual)}
    return replace(usual, **{name: value for name, value in given.items() if value is not None})


def _check_and_count_records(
    history: dict[str, np.ndarray], phases: Any
) -> tuple[tuple[str, int], ...]:
    """Validate the history and the phases of a saved run. Return a pair (method, number of records)
    for each phase.
    """
    if history and set(history) != set(SAVED_RECORD_FIELDS):
        raise ValueError(
            f"the history must have {', '.join(SAVED_RECORD_FIELDS)}, got "
            f"{one_line(', '.join(history))}."
        )
    lengths = {values.shape for values in history.values()}
    dtypes = sorted({str(values.dtype) for values in history.values()})
    if len(lengths) > 1 or any(v.ndim != 1 or v.dtype.kind != "f" for v in history.values()):
        raise ValueError(
            "the history must hold 1-d arrays of floats of one length, got shapes "
            f"{one_line(repr(sorted(lengths)))} and dtypes {one_line(', '.join(dtypes))}."
        )
    n_records = sum(shape[0] for shape in lengths)
    pairs = isinstance(phases, (list, tuple)) and all(
        isinstance(phase, (list, tuple)) and [*map(type, phase)] == [str, int] and phase[1] >= 0
        for phase in phases
    )
    if not pairs or (phases and sum(count for _, count in phases) != n_records):
        raise ValueError(
            f"the phases must be pairs of a name and a number of records, {n_records} in all, got "
            f"{one_line(repr(phases))}."
        )
    return tuple((one_line(name), count) for name, count in phases)


def _read_recipe(facts: Any, instead: dict[str, Any]) -> TrainingRecipe:
    """Return the recipe described by `facts`, a JSON object, with the fields `instead` replaced,
    after checking the type of every field.
    """
    kinds: dict[str, tuple[type, ...]] = {
        "hidden": (list, tuple),
        "l2": (int, float),
        "held_out": (int, float),
    }
    kinds |= dict.fromkeys(FLAG_FIELDS, (bool,)) | {
        "seed": (int,),
        "n_outputs": (int,),
        "reading": (dict,),
    }
    known = {f.name: f for f in fields(TrainingRecipe)}
    for name, value in facts.items():
        if name not in known:
            raise ValueError(f"the recipe has an unknown entry {one_line(name)!r}.")
        optional = name in ("loss", "target", "n_outputs") and value is None
        allowed = kinds.get(name, (str,))
        if not (optional or isinstance(value, allowed)):
            wanted = " or ".join(kind.__name__ for kind in allowed)
            raise ValueError(
                f"{name} in the recipe must be of type {wanted}, got {one_line(repr(value))}."
            )
    if not all(type(width) is int and 0 < width < 1 << 31 for width in facts.get("hidden", ())):
        raise ValueError(
            f"hidden in the recipe must be ints >= 1, got {one_line(facts['hidden'])}."
        )
    facts = {**facts, "hidden": tuple(facts.get("hidden", (32, 16)))}
    facts["reading"] = ReadingOptions(**facts.get("reading", {}))
    if re.match(r"[\\/]{2}", facts.get("data", "")):
        # Opening a network share that only the file names would send credentials of Windows to a
        # host of the file's choice.
        facts["data"] = ""
    return TrainingRecipe(**(facts | instead))
