"""Networks of other programs get, in the shell, the verdict of the library for the same numbers, in
every file format.
"""

import json
import zipfile

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.applications.cli.models import read_model
from fastcurv.applications.cli.parser import main
from fastcurv.common.files import write_tensors


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Return (folder, ob, theta): a folder with data of three classes in two formats, their
    objective, and theta at a minimum of that objective.
    """
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = rng.standard_normal((60, 2)) + y[:, None]
    np.savez(folder / "points.npz", X=X, y=y)
    rows = ["a,b,kind", *(f"{float(a)!r},{float(b)!r},{c}" for (a, b), c in zip(X, y))]
    (folder / "points.csv").write_text("\n".join(rows) + "\n")
    ob = fc.Objective(fc.MLP([2, 3, 3]), X, y, loss="cross_entropy", l2=1e-2)
    theta = fc.minimize(ob, ob.model.init(seed=0)).x
    return folder, ob, theta


def as_safetensors(path, model, theta):
    fc.save(path.with_suffix(".safetensors"), model, theta)
    return path.with_suffix(".safetensors"), []


def as_named_tensors(path, model, theta):
    """Write theta to a safetensors file with the names of a torch state dict. Return (path,
    options) with the options that `classify` then needs.
    """
    arrays = {}
    for l, (W, b) in enumerate(model.unflatten(theta)):
        arrays |= {f"{l * 2}.weight": W, f"{l * 2}.bias": b}
    write_tensors(path.with_suffix(".safetensors"), arrays)
    return path.with_suffix(".safetensors"), ["--activation", "tanh"]


def as_state_dict(path, model, theta):
    torch = pytest.importorskip("torch")
    torch.save(fc.to_torch(model, theta).state_dict(), path.with_suffix(".pt"))
    return path.with_suffix(".pt"), ["--activation", "tanh"]


def as_checkpoint(path, model, theta):
    torch = pytest.importorskip("torch")
    held = {"epoch": 3, "model_state_dict": fc.to_torch(model, theta).state_dict()}
    torch.save(held, path.with_suffix(".pth"))
    return path.with_suffix(".pth"), ["--activation", "tanh"]


def as_onnx(path, model, theta):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes, arrays, at = [], [], "x"
    for l, (W, b) in enumerate(model.unflatten(theta)):
        arrays += [numpy_helper.from_array(a.copy(), f"{n}{l}") for a, n in ((W, "W"), (b, "b"))]
        nodes.append(helper.make_node("Gemm", [at, f"W{l}", f"b{l}"], [f"z{l}"], transB=1))
        at = f"z{l}"
        if l < len(model.activation):
            nodes.append(helper.make_node("Tanh", [at], [f"a{l}"]))
            at = f"a{l}"
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, width])]
        for name, width in (("x", model.sizes[0]), (at, model.sizes[-1]))
    ]
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", *ends, arrays)), f"{path}.onnx")
    return path.with_suffix(".onnx"), []


WRITERS = [as_safetensors, as_named_tensors, as_state_dict, as_checkpoint, as_onnx]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("data", ["points.npz", "points.csv"])
def test_classify_gives_one_verdict_for_every_file_format(write, data, case, tmp_path, capsys):
    folder, ob, theta = case
    path, more = write(tmp_path / "net", ob.model, theta)
    rest = ["--data", str(folder / data), "--l2", "1e-2", "--json", *more]
    assert main(["classify", str(path), *rest, "--require-certified"]) == 0
    said = json.loads(capsys.readouterr().out)
    point = fc.classify(ob, theta, seed=0)
    assert (said["kind"], said["certified"]) == (point.kind, True) and point.kind == "minimum"
    assert said["gradient_norm"] == point.gradient_norm and said["samples"] == 60
    assert main(["spectrum", str(path), *rest, "-k", "2", "--steps", "10"]) == 0
    said = json.loads(capsys.readouterr().out)
    exact = fc.eigvalsh(ob.hessian(theta))
    gaps = np.abs(np.subtract(said["eigenvalues"], [*exact[:2], *exact[-2:]]))
    assert np.all(gaps <= np.add(said["residuals"], 1e-12))


def test_a_report_is_written_for_a_network_of_another_program(case, tmp_path, capsys):
    folder, ob, theta = case
    path, _ = as_safetensors(tmp_path / "net", ob.model, theta)
    out = tmp_path / "page.html"
    arguments = [str(path), "--data", str(folder / "points.npz"), "--out", str(out)]
    assert main(["report", *arguments, "--steps", "10", "--quiet"]) == 0
    text = out.read_text()
    assert "not critical" in text and ">Training</h2>" not in text  # the l2 of training is missing


def test_class_numbers_are_kept_if_some_classes_are_missing(case, tmp_path, capsys):
    """If class 1 of a network with three outputs has no samples, classes 0 and 2 keep their
    numbers: the gradient norm is that of the library for these labels.
    """
    _, ob, theta = case
    path, _ = as_safetensors(tmp_path / "net", ob.model, theta)
    kept = ob.y != 1
    X, y = ob.X[kept], ob.y[kept]
    np.savez(tmp_path / "two.npz", X=X, y=y)
    assert main(["classify", str(path), "--data", str(tmp_path / "two.npz"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    some = fc.Objective(ob.model, X, y, loss="cross_entropy")
    assert said["gradient_norm"] == fc.classify(some, theta, seed=0).gradient_norm


@pytest.mark.parametrize(
    ("name", "labels", "loss"), [("one", [0, 1], "binary_cross_entropy"), ("one", [0, 1, 5], "mse")]
)
def test_one_output_fits_two_classes_or_real_targets(name, labels, loss, tmp_path, capsys):
    model = fc.MLP([2, 3, 1])
    fc.save(tmp_path / "net.safetensors", model, model.init(seed=0))
    X = np.random.default_rng(0).standard_normal((30, 2))
    np.savez(tmp_path / "d.npz", X=X, y=np.resize(labels, 30))
    net, data = str(tmp_path / "net.safetensors"), str(tmp_path / "d.npz")
    assert main(["classify", net, "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == loss


def test_classify_accepts_another_precision_than_that_of_the_file(case, tmp_path, capsys):
    folder, ob, theta = case
    model = fc.MLP(ob.model.sizes, dtype="float32")
    path, _ = as_safetensors(tmp_path / "net", model, theta.astype("float32"))
    rest = ["--data", str(folder / "points.npz"), "--json"]
    for more, dtype in (([], "float32"), (["--dtype", "float64"], "float64")):
        assert main(["classify", str(path), *rest, *more]) == 0
        assert json.loads(capsys.readouterr().out)["dtype"] == dtype


def test_unsuitable_model_files_print_one_line_and_exit_with_status_2(
    case, tmp_path, capsys, monkeypatch
):
    folder, ob, theta = case
    net, _ = as_safetensors(tmp_path / "net", ob.model, theta)
    bare, _ = as_named_tensors(tmp_path / "bare", ob.model, theta)
    odd = tmp_path / "odd.safetensors"
    write_tensors(odd, {"head.weight": np.ones((2, 2)), "body.weight": np.ones((2, 2))})
    np.savez(tmp_path / "wide.npz", X=np.ones((9, 5)), y=np.arange(9) % 3)
    np.savez(tmp_path / "many.npz", X=np.ones((9, 2)), y=np.arange(9) % 4)
    np.savez(tmp_path / "far.npz", X=np.ones((8, 2)), y=np.arange(8) % 2 * 6 + 1)
    (tmp_path / "junk.onnx").write_bytes(b"junk" * 9)
    data = ["--data", str(folder / "points.npz")]
    cases = [
        ([net], "--data must be given with"),
        ([net, "--data", tmp_path / "wide.npz"], "got 5."),
        (
            [net, "--data", tmp_path / "many.npz"],
            "the number of outputs must be 4 for cross_entropy and the targets of",
        ),
        (
            [net, "--data", tmp_path / "far.npz"],
            "must hold classes from 0 to 2 for the model's 3 outputs",
        ),
        ([net, *data, "--loss", "mse"], "the number of outputs must be 1 for mse"),
        ([net, *data, "--activation", "tanh"], "--activation must be left out"),
        ([bare, *data], "--activation must be given with"),
        ([odd, *data, "--activation", "tanh"], "which have no order"),
        ([tmp_path / "none.onnx", *data], "does not exist."),
    ]
    try:
        import onnx  # noqa: F401
    except ImportError:
        cases.append(([tmp_path / "junk.onnx", *data], 'pip install "fastcurv[onnx]"'))
    else:
        cases.append(([tmp_path / "junk.onnx", *data], "cannot be read as an ONNX model"))
    monkeypatch.setattr(fc, "classify", lambda *_, **__: pytest.fail("work was begun"))
    for arguments, sentence in cases:
        assert main(["classify", *map(str, arguments)]) == 2, sentence
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1, error
        assert error.startswith("fastcurv classify: ")


def test_torch_files_with_code_are_rejected_without_running_it(tmp_path):
    torch = pytest.importorskip("torch")
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(mark), "w"))

    torch.save({"0.weight": torch.ones(2, 2), "x": Evil()}, tmp_path / "evil.pt")
    torch.save(torch.nn.Linear(2, 1), tmp_path / "module.pt")
    (tmp_path / "junk.pt").write_bytes(b"\x80\x02junk")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    for name in ("evil", "module", "junk", "list"):
        with pytest.raises(ValueError, match=r"state dict.*torch.save"):
            read_model(tmp_path / f"{name}.pt", "tanh")
    assert not mark.exists()


def test_torch_files_that_expand_are_rejected(tmp_path):
    """Compressed archives, and tensors whose strides repeat a number, raise ValueError if they
    would take more than 32 MiB and more than 64 times the size of the file.
    """
    torch = pytest.importorskip("torch")
    torch.save({"0.weight": torch.zeros(3000, 2000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "pressed.pt", "w", zipfile.ZIP_DEFLATED) as pressed,
    ):
        for entry in plain.infolist():
            pressed.writestr(entry.filename, plain.read(entry))
    torch.save({"0.weight": torch.zeros(1).expand(3000, 2000)}, tmp_path / "repeated.pt")
    model, theta = read_model(tmp_path / "plain.pt", "tanh")
    assert model.sizes == (2000, 3000) and not theta.any()
    for name in ("pressed", "repeated"):
        assert (tmp_path / f"{name}.pt").stat().st_size < 1e5
        with pytest.raises(ValueError, match="at most 64 times its own size, got"):
            read_model(tmp_path / f"{name}.pt", "tanh")


def test_torch_and_onnx_are_imported_for_their_own_files_only(case, tmp_path, python):
    folder, ob, theta = case
    path, _ = as_safetensors(tmp_path / "net", ob.model, theta)
    python(
        "import sys; from fastcurv.applications.cli.parser import main; "
        f"assert main(['classify', {str(path)!r}, '--data', {str(folder / 'points.npz')!r}]) == 0; "
        "assert not {'torch', 'onnx', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
