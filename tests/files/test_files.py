"""Writing is atomic however the writer ends. Readers of malformed files raise ValueError."""

import errno
import gc
import hashlib
import json
import os
import pickle
import random
import signal
import stat
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common import files
from fastcurv.common.errors import escape_unprintable, one_line
from fastcurv.common.files import check_writable_path, read_tensors, write_atomically, write_tensors
from fastcurv.optimize import Checkpoint

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")
ARRAYS = {
    "a": np.arange(12.0).reshape(3, 4),
    "b": np.array(3, np.int16),
    "c": np.zeros((0, 4), np.float32),
    "d": np.array([True, False]),
    "e": np.arange(4, dtype=">i4"),
    "f": np.float64(3.5),
    "g": np.arange(12.0, dtype=np.float32).reshape(3, 4).T,
    "h": np.array([np.nan, np.inf, -0.0]),
}


def small_problem(*hidden, l2=0.1):
    """Return (model, theta, objective) of a small network with the given hidden widths."""
    model = fc.MLP([2, *hidden, 1])
    return model, model.init(rng=0), fc.Objective(model, np.eye(2), [0.0, 1.0], "mse", l2=l2)


def file_names(folder):
    return [path.name for path in folder.iterdir()]


def test_tensors_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "x"
    told = {"n": [1, None, "two"], "inf": float("inf"), "text": "é", "big": 2**100, "number": 0.1}
    write_tensors(path, ARRAYS, told)
    arrays, facts = read_tensors(path)
    assert facts == told and set(arrays) == set(ARRAYS)
    for name, a in ARRAYS.items():
        found = arrays[name]
        assert np.array_equal(found, a, equal_nan=name == "h") and found.shape == a.shape
        assert found.flags.writeable and np.array_equal(np.signbit(found), np.signbit(a))
        assert found.dtype == a.dtype.newbyteorder("=")
    for bad in ({"a": np.zeros(2, complex)}, {"a": np.array(["x"])}, {"a": np.zeros(2, object)}):
        with pytest.raises(TypeError, match="must have a dtype"):
            write_tensors(path, bad)
    with pytest.raises(TypeError):
        write_tensors(path, {"a": np.zeros(2)}, {"object": object()})
    with pytest.raises(ValueError, match="header"):
        write_tensors(path, {}, {"long": "x" * (5 << 20)})
    assert list(tmp_path.iterdir()) == [path] and set(read_tensors(path)[0]) == set(ARRAYS)


def test_files_follow_the_safetensors_format(tmp_path):
    """Files are the header's length, a JSON header, and contiguous data up to the end."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"w": np.arange(3.0), "b": np.arange(5, dtype=np.int8)}, {"k": 1})
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    facts = header.pop("__metadata__")
    assert length % 8 == 0 and facts.pop("fastcurv") == '{"k": 1}'
    ((name, told),) = facts.items()
    blank = raw.replace(told.encode(), b"0" * 64)
    assert name == "fastcurv.sha256" and told == hashlib.sha256(blank).hexdigest()
    places = sorted(entry["data_offsets"] for entry in header.values())
    assert (
        places[0][0] == 0 and places[0][1] == places[1][0] and places[1][1] == len(raw) - 8 - length
    )


# --- models


MODELS = [
    fc.MLP([3, 4, 2]),
    fc.MLP([3, 4, 4, 2], ["relu", "gelu"], bias=False, residual=True, dtype="float32"),
    fc.MLP([3, 4, 2], "elu", batch_norm=True),
    fc.MLP([3, 1], bias=False),
]


def test_a_saved_model_is_loaded_bit_for_bit(tmp_path):
    for model in MODELS:
        theta, path = model.init(rng=3), tmp_path / "net.safetensors"
        fc.save(path, model, theta)
        again, same = fc.load(path)
        assert again == model and same.dtype == theta.dtype and np.array_equal(theta, same)
        assert same.flags.writeable
        fc.save(str(path), model, model.unflatten(theta))
        assert np.array_equal(fc.load(str(path))[1], theta)


FACTS = [  # (name, invalid value) of a saved model
    ("sizes", [3, 5, 2]), ("sizes", [3, 10**18, 2]), ("sizes", [3, 10**400, 2]), ("sizes", "342"),
    ("sizes", [3, 4.0, 2]), ("sizes", [3, True, 2]), ("sizes", {}), ("sizes", None),
    ("activation", ["__import__('os').system('true')"]), ("activation", "tanh"),
    ("activation", [["tanh"]]), ("dtype", "float16"), ("dtype", "float32"), ("dtype", ["float64"]),
    ("bias", 1), ("bias", False), ("batch_norm", True), ("format", "fastcurv.MLP 2"), ("more", 1),
]  # fmt: skip
CHANGES = [
    *(lambda a, f, fact=fact: f.update([fact]) for fact in FACTS),
    lambda a, f: f.pop("residual"),
    lambda a, f: f.clear(),
    lambda a, f: a.pop("layers.0.bias"),
    lambda a, f: a.update(more=np.zeros(3)),
    lambda a, f: a.update({"layers.0.weight": np.zeros((3, 4))}),
    lambda a, f: a.update({"layers.0.weight": np.zeros((4, 3), int)}),
    lambda a, f: a.update({"layers.0.weight": np.full((4, 3), np.nan)}),
]


def test_load_checks_metadata_and_arrays_of_a_saved_model(tmp_path):
    path = tmp_path / "net.safetensors"
    for change in CHANGES:
        fc.save(path, MODELS[0], MODELS[0].init(rng=0))
        arrays, facts = read_tensors(path)
        change(arrays, facts)
        write_tensors(path, arrays, facts)
        with pytest.raises(ValueError) as caught:
            fc.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    for facts in ({"what": "run"}, None):
        write_tensors(path, {"theta": np.zeros(3)}, *[facts][: facts is not None])
        with pytest.raises(ValueError, match="must be a file written by fastcurv.save"):
            fc.load(path)


def test_load_rejects_archives_and_pickles(tmp_path):
    for name, head in (("net.onnx", b"PK\x03\x04"), ("NET.PT", b"\x80\x02\x8a\x0a")):
        (tmp_path / name).write_bytes(head + bytes(60))
        with pytest.raises(ValueError, match="must be a .safetensors file, got an archive or a p"):
            fc.load(tmp_path / name)


# --- writing


def test_failed_writes_leave_the_old_file_and_no_temporary_files(tmp_path, monkeypatch):
    """If writing raises, or any system call of a save is interrupted, the old file is unchanged and
    no temporary file remains.
    """
    path = tmp_path / "x"
    write_atomically(path, b"old")
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), files.open_for_atomic_write(path) as out:
            out.write(b"new, in part")
            raise error
        assert file_names(tmp_path) == ["x"] and path.read_bytes() == b"old"
    with pytest.raises(OSError):
        write_atomically(tmp_path, b"over a folder")

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    for name in ("fsync", "replace", "fchmod"):
        if not hasattr(os, name):
            continue  # Windows
        with monkeypatch.context() as patch:
            patch.setattr(os, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                write_atomically(path, b"new")
        assert file_names(tmp_path) == ["x"] and path.read_bytes() == b"old"


@posix
@pytest.mark.parametrize("mask", [0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, mask):
    """New models, checkpoints and pages follow the umask."""
    before = os.umask(mask)
    try:
        model, theta, ob = small_problem()
        fc.save(tmp_path / "model", model, theta)
        fc.minimize(ob, theta, checkpoint=tmp_path / "checkpoint", max_iter=2)
        write_atomically(tmp_path / "page", b"page")
        assert len(list(tmp_path.iterdir())) == 3
        for path in tmp_path.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path
    finally:
        os.umask(before)


@posix
def test_saving_to_a_symbolic_link_keeps_the_link(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "x", tmp_path / "link"
    link.symlink_to(target)
    for content in (b"first", b"second"):  # a link without a target, then with one
        write_atomically(link, content)
        assert link.is_symlink() and target.read_bytes() == content
    model, theta, _ = small_problem()
    fc.save(link, model, theta)
    assert link.is_symlink() and fc.load(target)[0] == model
    assert file_names(target.parent) == ["x"]


def test_concurrent_writers_never_produce_a_mixed_file(tmp_path):
    """While eight threads write one file, each read returns the complete content of one write."""
    path, done = tmp_path / "x", []
    write_tensors(path, {"a": np.full(1000, 0.0)})

    def write(i):
        for _ in range(10):
            write_tensors(path, {"a": np.full(1000, float(i))})
        done.append(i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    while len(done) < 8:
        assert len(np.unique(read_tensors(path)[0]["a"])) == 1
    for thread in threads:
        thread.join()
    assert file_names(tmp_path) == ["x"]


@posix
@pytest.mark.parametrize("times", [10, pytest.param(200, marks=pytest.mark.nightly)])
def test_a_killed_save_leaves_a_whole_file(times, tmp_path):
    """After SIGKILL during a save, the file has the content of one save."""
    path, moments = tmp_path / "x", random.Random(3)
    write_tensors(path, {"a": np.zeros(200_000)}, {"k": 0})
    for _ in range(times):
        reading, writing = os.pipe()
        worker = os.fork()
        if not worker:
            try:
                os.write(writing, b"ready")
                for k in range(1, 1 << 30):
                    write_tensors(path, {"a": np.full(200_000, float(k))}, {"k": k})
            finally:
                os._exit(1)
        assert os.read(reading, 5) == b"ready"
        time.sleep(0.03 * moments.random())
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        os.close(reading)
        os.close(writing)
        arrays, facts = read_tensors(path)
        assert (arrays["a"] == facts["k"]).all()


@pytest.mark.parametrize("name", ["x" * 252 + ".st", "\u6570" * 84 + ".st"], ids=["ASCII", "CJK"])
def test_file_names_of_maximum_length_are_accepted(name, tmp_path):
    """Files and checkpoints may have names of 255 bytes, and longer names raise ValueError."""
    assert len(name.encode()) == 255 or len(name.encode()) == 254
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this file system takes shorter names")
    (tmp_path / name).unlink()
    check_writable_path(tmp_path / name, "out")
    for _ in range(2):
        write_tensors(tmp_path / name, ARRAYS)
        assert file_names(tmp_path) == [name]
    _, theta, ob = small_problem()
    fc.minimize(ob, theta, checkpoint=tmp_path / name, max_iter=2)
    assert file_names(tmp_path) == [name]
    with pytest.raises(ValueError, match="checkpoint cannot be written .*too long"):
        fc.minimize(ob, theta, checkpoint=tmp_path / (name + "xx"), max_iter=2)


def test_checkpoint_holds_the_last_step_before_a_callback_raised(tmp_path):
    """If a callback raises an error, the checkpoint holds the point of the step before, and a run
    can be resumed from that checkpoint.
    """
    _, theta0, ob = small_problem(3)
    steps = []

    def fail_once(theta):
        steps.append(theta.copy())
        if len(steps) == 4:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        fc.minimize(ob, theta0, "l-bfgs", callback=fail_once, checkpoint=tmp_path / "x")
    arrays, _ = read_tensors(tmp_path / "x")
    assert np.array_equal(arrays["run.theta"], steps[2])
    fc.minimize(ob, None, "l-bfgs", checkpoint=Checkpoint(resume=tmp_path / "x"), max_iter=6)


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_rewritten_file_keeps_its_permissions(mode, tmp_path):
    """A rewritten file keeps permissions that the umask excludes, and the temporary copy of a
    private file is private.
    """
    path = tmp_path / "x"
    write_atomically(path, b"old")
    path.chmod(mode)
    with files.open_for_atomic_write(path) as out:
        out.write(b"new")
        (temporary,) = (p for p in tmp_path.iterdir() if p != path)
        assert stat.S_IMODE(temporary.stat().st_mode) | mode == mode
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == mode


@posix
def test_links_in_protected_folders_are_not_followed(tmp_path, monkeypatch):
    """If the system forbids to follow a link, writing to the link raises PermissionError."""
    target, link, ask = tmp_path / "target", tmp_path / "link", os.stat
    target.write_bytes(b"mine")
    link.symlink_to(target)

    def raise_for_links(path, *rest, **options):
        if str(path) == str(link) and options.get("follow_symlinks", True):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return ask(path, *rest, **options)

    monkeypatch.setattr(files.os, "stat", raise_for_links)
    with pytest.raises(PermissionError):
        write_atomically(link, b"theirs")
    assert target.read_bytes() == b"mine"


def test_errors_for_unusable_paths_name_the_path_given(tmp_path):
    """Saving to an empty name, a folder, a missing folder or too long a name raises an error with
    the given path. Only a model with finite parameters of its size is saved.
    """
    model, theta, _ = small_problem()
    for refused, kind in (
        (("model", theta), TypeError),
        ((model, theta[:-1]), ValueError),
        ((model, theta * np.nan), ValueError),
        ((model, theta + np.inf), ValueError),
    ):
        with pytest.raises(kind):
            fc.save(tmp_path / "a", *refused)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"^path must be the name of a file, got ''\.$"):
        fc.save("", model, theta)
    for place, kind in (
        (tmp_path, IsADirectoryError),
        (tmp_path / "missing" / "x", FileNotFoundError),
        (tmp_path / ("x" * 300), OSError),
    ):
        with pytest.raises(kind) as error:
            fc.save(place, model, theta)
        assert str(place) in str(error.value) and ".part" not in str(error.value)


# --- reading


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def header_entry(shape, begin, end, dtype="F64"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BAD = {
    "empty": b"",
    "short": b"1234567",
    "header past the end": (1000).to_bytes(8, "little") + b"{}",
    "header of 2^63": (1 << 63).to_bytes(8, "little") + b"{}",
    "no JSON": safetensors(b"{]"),
    "not UTF-8": safetensors(b'{"\xff": 1}'),
    "a list": safetensors([]),
    "deep": safetensors(b"[" * 100_000 + b"]" * 100_000),
    "deep objects": safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a long number": safetensors(b'{"a": ' + b"9" * 10_000 + b"}"),
    "an entry of null": safetensors({"a": None}),
    "an entry of numbers": safetensors({"a": [1, 2]}),
    "no dtype": safetensors({"a": {"shape": [], "data_offsets": [0, 0]}}),
    "unknown dtype": safetensors({"a": header_entry([1], 0, 8, "object")}, bytes(8)),
    "a dtype that is a list": safetensors({"a": header_entry([1], 0, 8, ["F64"])}, bytes(8)),
    "negative": safetensors({"a": header_entry([-1], 0, 8)}, bytes(8)),
    "infinite": safetensors(
        b'{"a":{"dtype":"F64","shape":[1e999],"data_offsets":[0,8]}}', bytes(8)
    ),
    "fractions": safetensors({"a": header_entry([1.0], 0, 8)}, bytes(8)),
    "truth": safetensors({"a": header_entry([True], 0, 8)}, bytes(8)),
    "huge": safetensors({"a": header_entry([1 << 62], 0, 8)}, bytes(8)),
    "huge and empty": safetensors({"a": header_entry([1 << 62, 1 << 62, 0], 0, 0)}),
    "many axes": safetensors({"a": header_entry([1] * 100, 0, 8)}, bytes(8)),
    "places swapped": safetensors({"a": header_entry([1], 8, 0)}, bytes(8)),
    "three places": safetensors(
        {"a": {**header_entry([1], 0, 8), "data_offsets": [0, 8, 8]}}, bytes(8)
    ),
    "overlap": safetensors({"a": header_entry([1], 0, 8), "b": header_entry([1], 0, 8)}, bytes(8)),
    "a hole": safetensors({"a": header_entry([1], 8, 16)}, bytes(16)),
    "cut": safetensors({"a": header_entry([2], 0, 16)}, bytes(15)),
    "more": safetensors({"a": header_entry([1], 0, 8)}, bytes(9)),
    "facts that are a number": safetensors({"__metadata__": {"fastcurv": 3}}),
    "facts that are no object": safetensors({"__metadata__": {"fastcurv": "[]"}}),
    "facts that are deep": safetensors({"__metadata__": {"fastcurv": "[" * 100_000}}),
}


def test_malformed_files_raise_one_line_errors(tmp_path):
    """Readers of a malformed file raise ValueError in one short line that names the file."""
    for name in BAD:
        path = tmp_path / "x.safetensors"
        path.write_bytes(BAD[name])
        for reader in (read_tensors, fc.load):
            with pytest.raises(ValueError) as caught:
                reader(path)
            text = str(caught.value)
            assert str(path) in text and "\n" not in text and len(text) < 300 + len(str(path))


def test_hostile_headers_do_not_exhaust_memory(tmp_path):
    """Headers of a megabyte that are deeply nested, or refer to one place many times, are rejected
    with a peak below 100 MB.
    """
    path = tmp_path / "x"
    data = bytes(1 << 20)
    many = {f"{i}": header_entry([1 << 17], 0, 1 << 20) for i in range(10_000)}
    for content in (safetensors(many, data), safetensors(b"[" + b"[]," * 300_000 + b"[]]")):
        path.write_bytes(content)
        tracemalloc.start()
        with pytest.raises(ValueError):
            read_tensors(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100e6


def without_checksum(content):
    """Return the bytes of a file without its checksum, as older versions wrote them."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    del header["__metadata__"][files._CHECKSUM_KEY]
    return safetensors(header, content[end:])


def test_flipped_bits_and_truncated_files_are_rejected(tmp_path):
    """A flipped bit or a truncation of a model or a checkpoint raises ValueError in one short line.
    Files without a checksum are accepted.
    """
    path = tmp_path / "flipped"
    for content, reader in example_files(tmp_path):
        path.write_bytes(content)
        reader(path)
        model = len(content) < 1000
        for end in range(0, len(content), 1 if model else 29):
            path.write_bytes(content[:end])
            with pytest.raises(ValueError):
                (reader if model else read_tensors)(path)
        for bit in range(0, 8 * len(content), 3 if model else 37):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(ValueError) as error:
                (reader if model else read_tensors)(path)
            assert "\n" not in str(error.value) and len(str(error.value)) < 600
        path.write_bytes(without_checksum(content))
        reader(path)


def test_files_are_exchanged_with_the_safetensors_package(tmp_path):
    """The safetensors package reads saved models. Files written by that package are read with a
    correct checksum or none, and rejected with a wrong one.
    """
    theirs = pytest.importorskip("safetensors.numpy")
    safe_open = pytest.importorskip("safetensors").safe_open
    (model, theta, _), path = small_problem(3), tmp_path / "x.safetensors"
    fc.save(path, model, theta)
    found = theirs.load_file(path)
    assert set(found) == set(read_tensors(path)[0])
    assert all(np.array_equal(found[name], a) for name, a in read_tensors(path)[0].items())
    with safe_open(path, "numpy") as held:
        facts = held.metadata()
    assert set(facts) == {"fastcurv", "fastcurv.sha256"}
    theirs.save_file(found, path, {"sha256": "0" * 64, "format": "pt"})
    assert read_tensors(path)[1] == {}
    theirs.save_file(found, path, {"fastcurv": facts["fastcurv"], "format": "pt"})
    assert fc.load(path)[0] == model
    found["layers.0.bias"] = found["layers.0.bias"] + 1
    theirs.save_file(found, path, facts)  # the checksum is that of the unchanged bias
    with pytest.raises(ValueError, match="checksum"):
        fc.load(path)


@posix
def test_readers_reject_pipes_without_waiting(tmp_path):
    """Readers raise ValueError for a named pipe at once and do not wait for its content."""
    *_, ob = small_problem()
    for name in ("x.safetensors", "x.npy"):
        os.mkfifo(tmp_path / name)
    model = tmp_path / "x.safetensors"
    for reader, path in (
        (read_tensors, model), (fc.load, model),
        (lambda path: fc.minimize(ob, None, checkpoint=Checkpoint(resume=path)), model),
        (lambda path: fc.StreamedObjective(ob.model, path, ob.y), tmp_path / "x.npy"),
    ):  # fmt: skip
        with pytest.raises(
            ValueError, match="must be a file, got a device or a pipe|is not a regular file"
        ):
            reader(path)


def example_files(folder):
    """Yield (content, reader) for a saved model and two checkpoints: the bytes of the file, and a
    function of a path.
    """
    model, theta, ob = small_problem(3)
    fc.save(folder / "model", model, theta)
    yield (folder / "model").read_bytes(), fc.load
    for method, options in (("trust-region", {}), ("adam", {"batch_size": 1})):
        path = folder / method
        fc.minimize(ob, theta, method, checkpoint=path, max_iter=3, rng=1, verdict=False, **options)

        def resume(path, method=method, options=options):
            fc.minimize(
                ob,
                None,
                method,
                checkpoint=Checkpoint(resume=path),
                max_iter=4,
                verdict=False,
                **options,
            )

        yield path.read_bytes(), resume


TOKENS = [b"null", b"-1", b"1e999", b"[]", b"{}", b'"F64"', b'"PCG64"', b'"test"', b"true"]
TOKENS += [b"NaN", b"18446744073709551616", b'"__class__"', b"0.5", b'""', b"1e-320"]


def mutated(content, dice):
    """Return the bytes with one to three random changes, cuts, repetitions or swaps, mostly in the
    header. `dice` is a `random.Random`.
    """
    content = bytearray(content)
    for _ in range(1 + dice.randrange(3)):
        end = 8 + int.from_bytes(content[:8], "little") if dice.random() < 0.7 else len(content)
        end = max(9, min(end, len(content)))
        at = dice.randrange(8 if dice.random() < 0.9 else 0, end)
        kind = dice.randrange(6)
        if kind == 0:
            content[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            content[at] = dice.choice(b'0123456789"[]{},:-.eE\\\xff\x00')
        elif kind == 2:
            del content[at : at + dice.randrange(1, 20)]
        elif kind == 3:
            content[at:at] = content[at : at + dice.randrange(1, 40)]
        elif kind == 4:  # replace a JSON value by another
            stop = at
            while stop < end and content[stop] not in b",:]}":
                stop += 1
            begin = at
            while begin > 8 and content[begin - 1] not in b",:[{":
                begin -= 1
            content[begin:stop] = dice.choice(TOKENS)
        else:
            content[at : at + 4] = dice.randbytes(4)
        if dice.random() < 0.8 and len(content) > 8:  # adjust the header's length
            text = bytes(content[8:])
            closing = text.rfind(b"}}") + 2
            if closing > 1:
                content[:8] = closing.to_bytes(8, "little")
    return bytes(content)


@pytest.mark.parametrize("times", [3_000, pytest.param(1_000_000, marks=pytest.mark.nightly)])
def test_readers_of_mutated_files_read_or_raise_value_error(times, tmp_path):
    """Readers of randomly mutated files return, or raise ValueError in one short line."""
    dice, known = random.Random(0), list(example_files(tmp_path))
    path, n_refused = tmp_path / "mutant", 0
    shared = "/dev/shm" if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK) else None
    if shared:
        path = type(path)(shared) / f"fastcurv-mutant-{os.getpid()}"
    try:
        for i in range(times):
            content, reader = known[0] if i % 10 else known[1 + i // 10 % (len(known) - 1)]
            path.write_bytes(mutated(content if i % 7 == 0 else without_checksum(content), dice))
            try:
                with np.errstate(all="ignore"):
                    reader(path)
            except ValueError as error:
                assert "\n" not in str(error) and len(str(error)) < 600, error
                n_refused += 1
    finally:
        path.unlink(missing_ok=True)
    assert n_refused > times // 4


@pytest.mark.parametrize("name", ["test", "seed", "__class__", "Generator", "RandomState", "", 3])
def test_checkpoints_create_only_known_bit_generators(name, tmp_path, monkeypatch):
    """A checkpoint that names an unknown bit generator is rejected, and no function of that name in
    numpy.random is called.
    """
    (_, theta, ob), path = small_problem(3, l2=0.0), tmp_path / "x"
    fc.minimize(ob, theta, "sgd", checkpoint=path, max_iter=3, rng=1, batch_size=1)
    arrays, facts = read_tensors(path)
    facts["run"]["rng"]["bit_generator"] = name
    write_tensors(path, arrays, facts)
    called = []
    monkeypatch.setattr(np.random, "test", lambda: called.append(1), raising=False)
    with pytest.raises(ValueError, match="bit generator"):
        fc.minimize(
            ob,
            None,
            "sgd",
            checkpoint=Checkpoint(resume=path),
            max_iter=4,
            batch_size=1,
        )
    assert not called


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_known_bit_generator_resumes(kind, tmp_path):
    (_, theta, ob), path = small_problem(3, l2=0.0), tmp_path / "x"

    def train(max_iter, **options):
        seed = np.random.Generator(getattr(np.random, kind)(5))
        return fc.minimize(
            ob, theta, "sgd", max_iter=max_iter, rng=seed, batch_size=1, verdict=False, **options
        )

    train(3, checkpoint=path)
    resumed = fc.minimize(
        ob,
        None,
        "sgd",
        checkpoint=Checkpoint(resume=path),
        max_iter=6,
        batch_size=1,
        rng=0,
        verdict=False,
    )
    assert np.array_equal(resumed.x, train(6).x)


# --- unusual, damaged and hostile files of other programs: read, or rejected with a short error


def test_unprintable_characters_are_escaped():
    """`escape_unprintable` escapes control characters, bidirectional marks and surrogates only."""
    for number in (*range(32), *range(127, 160), 0x200E, 0x202E, 0x2066, 0x2069, 0xFEFF, 0xDCFF):
        said = escape_unprintable(f"a{chr(number)}b")
        assert said.isascii() and said.isprintable() and said.encode() and said[1] == "\\"
    assert escape_unprintable("数é ±—") == "数é ±—"


def test_messages_quote_text_from_files_on_one_line():
    assert one_line("a\n b\t\x1bc") == r"a b \x1bc" and one_line("x" * 80) == "x" * 80
    assert one_line("x" * 81) == "x" * 77 + "..." and len(one_line("x y" * 10**6)) == 80
    assert one_line(["a"]) == "['a']" and one_line("y" * 9, 5) == "yy..."


@pytest.mark.parametrize("name", ["X.npy", "y.npy", "hard.safetensors", "soft.safetensors"])
@pytest.mark.parametrize("mapped", [False, True])
def test_files_of_rows_are_never_written(mapped, name, tmp_path):
    """A file from which an objective reads its rows is replaced under none of its names, as long as
    the objective or a copy of it lives. A batch keeps its rows if the file is replaced later.
    """
    X, y = tmp_path / "X.npy", tmp_path / "y.npy"
    np.save(X, np.arange(12.0).reshape(6, 2))
    np.save(y, np.arange(6.0))
    os.link(X, tmp_path / "hard.safetensors")
    (tmp_path / "soft.safetensors").symlink_to(y)
    before = X.read_bytes(), y.read_bytes()
    model = fc.MLP([2, 1])
    if mapped:
        ob = fc.Objective(model, np.load(X, mmap_mode="r"), np.load(y, mmap_mode="r"), "mse")
    else:
        ob = pickle.loads(pickle.dumps(fc.StreamedObjective(model, X, y, "mse")))
    gc.collect()
    with pytest.raises(ValueError, match="from which no objective reads its rows, got '.*'"):
        fc.minimize(ob, checkpoint=tmp_path / name)
    with pytest.raises(ValueError, match="from which no objective reads its rows, got '.*'"):
        write_atomically(tmp_path / name, b"")
    assert (X.read_bytes(), y.read_bytes()) == before
    batch = ob.batch([1, 3])
    del ob
    gc.collect()
    write_atomically(tmp_path / name, b"")
    assert batch.X.tolist() == [[2, 3], [6, 7]] and batch.y.ravel().tolist() == [1, 3]


def test_minimize_rejects_an_unwritable_checkpoint_before_it_starts(tmp_path, monkeypatch):
    _, theta, ob = small_problem()
    for place in (tmp_path / "missing" / "x", tmp_path, "", "/proc/x"):
        with pytest.raises(ValueError, match="^checkpoint (must be|cannot be written to) "):
            fc.minimize(ob, theta, checkpoint=place, max_iter=2)

    def raise_disk_full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fdopen", raise_disk_full)
    with pytest.raises(ValueError, match="cannot be written to.*No space left on device"):
        fc.minimize(ob, theta, checkpoint=tmp_path / "x", max_iter=2)
