"""Data sets from files are loaded with a suitable loss, or rejected with a short error."""

import hashlib

import numpy as np
import pytest

from fastcurv.applications.cli import main
from fastcurv.applications.cli.encode import load_dataset
from fastcurv.applications.cli.recipe import load_run

X = np.arange(24.0).reshape(12, 2)


@pytest.fixture
def file(tmp_path):
    def write(y, X=X, target=None, text=None, **options):
        path = tmp_path / ("data.csv" if text is not None else "data.npz")
        if text is None:
            np.savez(path, X=X, **({} if y is None else {"y": np.asarray(y)}))
        else:
            path.write_text(text)
        return load_dataset(str(path), target=target, **options)

    return write


UNSUITABLE_FILES = {
    "no y": ({"y": None}, "must hold arrays X and y"),
    "fewer y": ({"y": np.ones(3)}, "X and y must have shapes"),
    "X of one axis": ({"y": np.ones(4), "X": np.ones(4)}, "X and y must have shapes"),
    "no number": ({"y": np.zeros(12), "X": np.full((12, 2), np.nan)}, "finite"),
    "a share above 1": ({"y": np.arange(12) % 2, "test_fraction": 1.5}, "test_fraction"),
    "words as X": ({"y": np.zeros(12), "X": np.full((12, 2), "a")}, "must hold numbers"),
    "complex y": ({"y": np.zeros(12, complex)}, "must hold numbers"),
    "unknown loss": ({"y": np.zeros(12), "loss": "hinge"}, "loss must be one of"),
    "words for mse": ({"y": ["a", "b"] * 6, "loss": "mse"}, "must hold numbers for mse, got words"),
    "columns of classes": ({"y": np.eye(12, 2), "loss": "cross_entropy"}, "one class per sample"),
    "halves": ({"y": np.arange(12) / 2, "loss": "cross_entropy"}, "got fractions such as 0.5"),
    "three for two": (
        {"y": np.arange(12) % 3, "loss": "binary_cross_entropy"},
        "two classes for binary_cross_entropy, got 3",
    ),
    "one class": ({"y": np.zeros(12, int)}, "at least two classes, got \\[0\\]"),
    "too many": ({"y": np.arange(12)}, "at most 6 classes in 12 samples, got 12"),
    "no column": (
        {"y": 0, "text": "1,2\n3,4\n5,6\n", "target": "7"},
        "columns are 2 without names",
    ),
    "few rows": ({"y": 0, "text": "1,a\n2,b\n3,a\n"}, "must have at least 10 rows"),
}


@pytest.mark.parametrize("name", UNSUITABLE_FILES)
def test_unsuitable_files_raise_short_errors(name, file):
    given, words = UNSUITABLE_FILES[name]
    with pytest.raises(ValueError, match=words) as error:
        file(**given)
    assert "\n" not in str(error.value)


def test_the_target_column_of_a_csv_file_can_be_chosen(file):
    first = file(0, text="0,1,5\n1,2,6\n0,3,7\n1,4,8\n" * 3, target="0")
    assert first.loss == "cross_entropy" and first.n_outputs == 2
    assert first.X.shape[1] == 2 and set(np.unique(first.y)) == {0, 1}
    halves = file(0, text="".join(f"{i},{i}.5\n" for i in range(12)))
    assert halves.loss == "mse" and halves.y.dtype == np.float64
    assert file(0, text="".join(f"{i},{'ab'[i % 2]}\n" for i in range(12))).n_outputs == 2


def test_class_numbers_are_renumbered_from_0_if_there_is_one_per_output(file):
    """Class numbers from 1 on are renumbered from 0 if there are as many classes as outputs. Fewer
    classes are ambiguous and raise ValueError.
    """
    ranked = file(np.arange(12) % 3 + 1, n_outputs=3)
    assert ranked.n_outputs == 3 and set(np.unique(ranked.y)) == {0, 1, 2}
    with pytest.raises(ValueError, match="classes from 0 to 2 .* got classes from 2 to 3"):
        file(np.arange(12) % 2 + 2, n_outputs=3)


def test_one_integer_target_column_is_classes_and_two_are_numbers(file):
    one = file((np.arange(12) % 2)[:, None])
    assert one.loss == "cross_entropy" and one.n_outputs == 2
    two = file(np.stack([np.arange(12), np.arange(12)], axis=1))
    assert two.loss == "mse" and two.n_outputs == 2


def test_accuracy_counts_one_output_for_two_classes(file):
    data = file(np.arange(12) % 2, loss="binary_cross_entropy")
    assert data.score_name == "accuracy" and data.n_outputs == 1
    sure = np.where(data.y > 0.5, 3.0, -3.0)
    assert data.score(sure, data.y) == 1 and data.score(-sure, data.y) == 0
    assert data.score(sure.reshape(-1, 1), np.ravel(data.y)) == 1


DIGESTS = {
    "digits": ["df6773c63952a081"],
    "wine": ["6efdd1309c3e0158"],
    "iris": ["989659b0682cfdf8"],
    # 11 numbers of scikit-learn 1.7 with the oldest NumPy differ by an ulp, so its digest differs
    "diabetes": ["5033943a8168941c", "3741ea870d987c3f"],
}


@pytest.mark.parametrize("name", DIGESTS)
def test_digests_of_data_sets_equal_those_stored_in_runs(name):
    pytest.importorskip("sklearn")
    assert load_dataset(name).digest in DIGESTS[name]


def test_digests_depend_on_values_only(file):
    whole = np.arange(12) % 2
    digests = {file(whole.astype(kind)).digest for kind in ("<i8", "<i4", ">i8", ">i2", "u1", "?")}
    digests |= {file(whole, X=X.astype(kind)).digest for kind in (">f8", "<f4", ">i4")}
    halves = {file((whole / 2).astype(kind)).digest for kind in ("<f8", ">f8", "<f4", ">f2")}
    words = {file(np.array(["a", "b"] * 6).astype(kind)).digest for kind in ("<U1", ">U1")}
    assert len(digests) == len(halves) == len(words) == 1
    told = hashlib.sha256(X.astype("<f8").tobytes() + b"(12,)" + whole.astype("<i8").tobytes())
    assert digests == {told.hexdigest()[:16]}
    others = {file(1 - whole).digest, file(np.array(["a", "c"] * 6)).digest}
    assert len(digests | halves | words | others) == 5


def test_held_out_samples_are_stratified():
    pytest.importorskip("sklearn")
    data = load_dataset("iris", test_fraction=0.2, seed=1)
    assert np.array_equal(np.bincount(data.y_test), [10, 10, 10])
    assert np.allclose(data.X.mean(axis=0), 0, atol=1e-12) and np.allclose(data.X.std(axis=0), 1)
    again = load_dataset("iris", test_fraction=0.2, seed=1)
    assert np.array_equal(again.X, data.X) and not np.array_equal(
        load_dataset("iris", seed=2).X, data.X
    )


# --- tables


def a_table(path, n=60):
    """Write a table with an index, missing values, dates, words and targets to `path`, and return
    the float arrays (a, day, y) of its numeric columns, where NaN is a missing value.
    """
    t = np.arange(n)
    a, day = np.round(np.sin(t * t), 3), 1 + t * 7 % 28
    y = np.round(a + (t % 3) + day / 10, 3)
    cells = ["" if i % 8 == 3 else f"{x}" for i, x in enumerate(a)]
    rows = [f"{i},{c},2024-05-{d:02},{'rgb'[i % 3]},{v}" for i, c, d, v in zip(t, cells, day, y)]
    path.write_text("\n".join([",a,day,colour,y", *rows]) + "\n")
    return np.array([float(c or "nan") for c in cells]), day, y


def test_words_dates_and_missing_values_are_encoded_by_the_training_rows(tmp_path):
    """Inputs of training and test rows equal NumPy's encoding by medians, means and standard
    deviations of the training rows, and by their words. A column that only numbers the rows is left
    out.
    """
    pytest.importorskip("sklearn")
    a, day, y = a_table(tmp_path / "t.csv")
    data = load_dataset(tmp_path / "t.csv", test_fraction=0.25, seed=3)
    held_out = np.zeros(len(y), bool)
    held_out[np.random.default_rng(3).permutation(len(y))[:15]] = True
    columns = [np.where(np.isnan(a), np.nanmedian(a[~held_out]), a), day]
    for j, column in enumerate(columns):
        known = column[~held_out]
        for X, rows in ((data.X, ~held_out), (data.X_test, held_out)):
            wanted = (column[rows] - known.mean()) / known.std()
            assert np.abs(X[:, j] - wanted).max() <= 1e-12
    colours = np.arange(len(y))[~held_out, None] % 3 == [2, 1, 0]  # columns of b, g and r
    assert np.array_equal(data.X[:, 2:], colours) and data.loss == "mse"
    assert data.notes[-1].startswith("Column 'Unnamed: 0' was ignored")


def test_predictions_for_words_and_missing_values_use_the_saved_encoding(tmp_path, capsys):
    """Predictions of a saved network for a table with words and missing values equal those for the
    training data, because they use the saved encoding.
    """
    pytest.importorskip("sklearn")
    a_table(tmp_path / "t.csv")
    net, rows = tmp_path / "net.safetensors", tmp_path / "t.csv"
    options = ["--hidden", "3", "--epochs", "3", "--refine", "none", "--held-out", "0"]
    assert main(["train", str(rows), *options, "--out", str(net)]) == 0
    assert "gap" not in capsys.readouterr().err
    assert main(["predict", str(net), str(rows)]) == 0
    found = capsys.readouterr()
    assert "filled with the median of column 'a'" in found.err
    saved = load_run(net)
    data = saved.recipe.load_dataset()
    assert data.X.shape == (60, 5)
    outputs = saved.recipe.build_model(data).predict(saved.theta, data.X)
    wanted = outputs * data.coding.y_scale + data.coding.y_shift
    lines = found.out.split()
    assert lines[0] == "y" and np.allclose(list(map(float, lines[1:])), wanted[:, 0], rtol=1e-12)


HEADERLESS_TABLE = "1,0.5,7\n1,2.5,8.5\n1,1.5,9\n"


@pytest.mark.parametrize("cell", ["", "x"])
def test_all_columns_are_inputs_of_an_existing_network(cell, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(HEADERLESS_TABLE)
    data = load_dataset(path, raw=True, test_fraction=0.0, n_outputs=1)
    assert data.X.tolist() == [[1, 0.5], [1, 2.5], [1, 1.5]] and data.y.tolist() == [
        [7],
        [8.5],
        [9],
    ]
    path.write_text(HEADERLESS_TABLE.replace("2.5", cell))
    with pytest.raises(ValueError, match="line 2, column 'column 1', must be a number, got"):
        load_dataset(path, n_outputs=1)


def test_numeric_headings_after_a_pandas_index_are_column_names(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",0,1\n" + "".join(f"{i},{i % 7}.5,{i % 2}\n" for i in range(12)))
    data = load_dataset(path, raw=True, test_fraction=0.0)
    assert data.coding.columns == ("Unnamed: 0", "0") and data.X.shape == (12, 1)
    assert data.X[:, 0].tolist() == [i % 7 + 0.5 for i in range(12)]
