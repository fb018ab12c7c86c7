"""Data sets from files are read and matched with a loss, or rejected with a short error."""

import hashlib

import numpy as np
import pytest

from fastcurv.cli.data import _is_number, load_dataset, read_csv

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


REFUSED = {
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
    "halves": ({"y": np.arange(12) / 2, "loss": "cross_entropy"}, "not whole"),
    "three for two": (
        {"y": np.arange(12) % 3, "loss": "binary_cross_entropy"},
        "two classes for binary_cross_entropy, got 3",
    ),
    "one class": ({"y": np.zeros(12, int)}, "at least two classes, got one"),
    "too many": ({"y": np.arange(12)}, "12 different whole numbers"),
    "no column": ({"y": 0, "text": "1,2\n3,4\n5,6\n", "target": "7"}, "2 columns without names"),
    "mixed": ({"y": 0, "text": "1,a\n2,3\n3,a\n"}, "must be of one kind"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsuitable_files_raise_short_errors(name, file):
    given, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as error:
        file(**given)
    assert "\n" not in str(error.value)


def test_the_target_column_of_a_csv_file_can_be_chosen(file):
    """The target column of a CSV file may be chosen by its number, and has classes, real numbers or
    words.
    """
    first = file(0, text="0,1,5\n1,2,6\n0,3,7\n1,4,8\n" * 3, target="0")
    assert first.loss == "cross_entropy" and first.n_outputs == 2
    assert first.X.shape[1] == 2 and set(np.unique(first.y)) == {0, 1}
    halves = file(0, text="".join(f"{i},{i}.5\n" for i in range(12)))
    assert halves.loss == "mse" and halves.y.dtype == np.float64
    assert file(0, text="".join(f"{i},{'ab'[i % 2]}\n" for i in range(12))).n_outputs == 2


def test_class_numbers_are_ranked_if_all_outputs_occur(file):
    """Class numbers that do not start at 0 are ranked if there are as many as the model has
    outputs. Fewer are ambiguous and raise ValueError.
    """
    ranked = file(np.arange(12) % 3 + 1, n_outputs=3)
    assert ranked.n_outputs == 3 and set(np.unique(ranked.y)) == {0, 1, 2}
    with pytest.raises(ValueError, match="classes from 0 to 2 .* got classes from 2 to 3"):
        file(np.arange(12) % 2 + 2, n_outputs=3)


def test_one_integer_target_column_is_classes_and_two_are_numbers(file):
    """One column of integer targets is read as classes for cross entropy, two as numbers
    for mse.
    """
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
    assert _is_number("nan") and not _is_number("a")


DIGESTS = {
    "digits": ["df6773c63952a081"],
    "wine": ["6efdd1309c3e0158"],
    "iris": ["989659b0682cfdf8"],
    # 11 numbers of scikit-learn 1.7 with the oldest NumPy differ by an ulp, so its digest differs
    "diabetes": ["5033943a8168941c", "3741ea870d987c3f"],
}


@pytest.mark.parametrize("name", DIGESTS)
def test_digests_of_data_sets_are_those_of_saved_runs(name):
    pytest.importorskip("sklearn")
    assert load_dataset(name).digest in DIGESTS[name]


def test_digests_depend_on_values_only(file):
    """A digest does not depend on the dtype or byte order of the numbers, but on every number and
    word.
    """
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


# --- tables of other programs: read as intended, or rejected with advice


SEMICOLONS = "must have commas between columns .*got columns separated by semicolons"
INDEX = "numbers the rows, as the index of a pandas data frame does.*index=False"


@pytest.fixture
def read(tmp_path):
    def write(text, target=None):
        path = tmp_path / "t.csv"
        path.write_text(text)
        return read_csv(path, target)[:2]

    return write


TABLES = {
    "wine quality": ('"fixed acidity";"pH";"quality"\n7.4;3.51;5\n7.8;3.2;5\n', SEMICOLONS),
    "without names": ("7.4;3.51;5\n7.8;3.2;5\n", SEMICOLONS),
    "decimal commas": ("a;b\n1,5;2\n2,5;3\n", SEMICOLONS),
    "decimal commas alone": ("1,5;2\n2,5;3\n", SEMICOLONS),
    "decimal commas and words": ("1,5;a\n2,5;b\n", SEMICOLONS),
    "tabs": (
        "a\tb\tc\n1\t2\t0\n3\t4\t1\n",
        "got columns separated by tabs. Or use a name that ends in .tsv",
    ),
    "spaces": ("a b c\n1 2 0\n3 4 1\n", "two columns, separated by commas"),
    "empty": (
        "",
        "t.csv must hold numbers separated by commas, one sample a line, got an empty file",
    ),
    "index": (",a,y\n0,1.5,0\n1,2.5,0\n2,3.5,1\n", INDEX),
    "shuffled index": (",a,y\n7,1.5,0\n3,2.5,0\n12,3.5,1\n", INDEX),
    "index read again": ("Unnamed: 0,a,y\n0,1.5,0\n1,2.5,1\n", INDEX),
    "index beside numbers as names": (",0,1\n0,1.5,0\n1,2.5,0\n2,3.5,1\n", INDEX),
    "gap": ("a,b,y\n1,2,0\n1,,0\n", "sample 2, column 'b': '' is not a finite number"),
    "gap beyond y": ("a,y,b\n1,0,2\n1,0,x\n", "sample 2, column 'b': 'x' is not"),
    "gap, no names": ("1,0,2\n1,0,x\n", r"sample 2, column 2 \(counted from 0\): 'x' is not"),
    "gap, one name": (",b,y\n0.5,1,0\n,2,0\n", r"sample 2, column 0 \(counted from 0\): ''"),
    "mixed": ("a,y\n1,0\n2,b\n", "column 'y': the targets must be of one kind"),
    "empty lines": ("\n\n", "t.csv must hold numbers .*got an empty file"),
    "one line": ("1,2\n", "must hold at least two lines"),
    "longer line": ("1,2\n3,4,5\n", "2 columns in each line, got 3 in sample line 2"),
    "more columns than names": (
        "a,b,y\n1,2,0,\n3,4,1,\n",
        "one name for each column, got 3 names for 4",
    ),
    "word": ("1,2\nx,4\n", r"sample 2, column 0 \(counted from 0\): 'x' is not a finite number"),
    "infinity": ("1,0.5\n2,inf\n", "must be of one kind"),
}


@pytest.mark.parametrize("name", TABLES)
def test_unsuitable_tables_are_rejected_with_advice(name, read):
    text, words = TABLES[name]
    target = {"gap beyond y": "y", "gap, no names": "1"}.get(name)
    with pytest.raises(ValueError, match=words) as error:
        read(text, target)
    assert "\n" not in str(error.value) and "t.csv" in str(error.value)


@pytest.mark.parametrize(
    ("text", "X", "y"),
    [
        ("1\t,0\n2,1\n", [[1], [2]], [0, 1]),
        ("a,y\n1,p;1\n2,q;2\n", [[1], [2]], ["p;1", "q;2"]),
        ("1,p;q\n2,q;p\n", [[1], [2]], ["p;q", "q;p"]),
        (",a,y\n0.5,1,0\n1.5,2,1\n", [[0.5, 1], [1.5, 2]], [0, 1]),
        (",a,y\n1,1,0\n1,2,1\n", [[1, 1], [1, 2]], [0, 1]),
        ("id,a,y\n0,1,0\n1,2,1\n", [[0, 1], [1, 2]], [0, 1]),
        ("a,y\n1,99999999999999999999999\n2,5\n", [[1], [2]], [1e23, 5.0]),
    ],
)
def test_unusual_but_valid_tables_are_read(text, X, y, read):
    found = read(text)
    assert np.array_equal(found[0], X) and np.array_equal(found[1], y)
    assert found[1].dtype.kind in "ifU"


def test_numbered_headers_are_recognised(read):
    """A header of column numbers, as pandas writes it, is skipped. A line of whole numbers that may
    be a sample is kept.
    """
    for text in (
        "0,1,2\n0.5,1.5,0\n2.5,3.5,1\n",
        "0,1,y\n5,1,0\n2,3,1\n",
        "0,1,2,3,4\n1,2,3,4,0\n5,6,7,8,1\n",
    ):
        X, y = read(text, None)
        assert len(X) == len(y) == 2
    for text in ("0,1\n1,0\n-1,1\n", "0,1,a\n1,0,b\n1,1,a\n"):
        assert len(read(text, None)[0]) == 3
