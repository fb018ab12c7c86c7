"""Data sets from files: what fits a loss, and one sentence for what does not."""

import hashlib

import numpy as np
import pytest

from fastcurv.cli.data import _is_number, load_dataset

X = np.arange(24.0).reshape(12, 2)


@pytest.fixture
def file(tmp_path):
    def write(y, X=X, target=None, text=None, **options):
        path = tmp_path / ("data.csv" if text is not None else "data.npz")
        if text is None:
            np.savez(path, X=X, y=np.asarray(y))
        else:
            path.write_text(text)
        return load_dataset(str(path), target=target, **options)

    return write


REFUSED = {
    "words as X": ({"y": np.zeros(12), "X": np.full((12, 2), "a")}, "wanted numbers"),
    "complex y": ({"y": np.zeros(12, complex)}, "wanted numbers"),
    "unknown loss": ({"y": np.zeros(12), "loss": "hinge"}, "wanted one of"),
    "words for mse": ({"y": ["a", "b"] * 6, "loss": "mse"}, "holds words"),
    "columns of classes": ({"y": np.eye(12, 2), "loss": "cross_entropy"}, "one class a sample"),
    "halves": ({"y": np.arange(12) / 2, "loss": "cross_entropy"}, "not whole"),
    "three for two": ({"y": np.arange(12) % 3, "loss": "binary_cross_entropy"}, "3 classes"),
    "one class": ({"y": np.zeros(12, int)}, "single class"),
    "too many": ({"y": np.arange(12)}, "12 different whole numbers"),
    "no column": ({"y": 0, "text": "1,2\n3,4\n5,6\n", "target": "7"}, "2 columns without names"),
    "mixed": ({"y": 0, "text": "1,a\n2,3\n3,a\n"}, "mix words"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name, file):
    given, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as error:
        file(**given)
    assert "\n" not in str(error.value)


def test_targets_of_a_csv_file(file):
    """A column by its number; numbers with a point; words."""
    first = file(0, text="0,1,5\n1,2,6\n0,3,7\n1,4,8\n" * 3, target="0")
    assert first.loss == "cross_entropy" and first.n_outputs == 2
    assert first.X.shape[1] == 2 and set(np.unique(first.y)) == {0, 1}
    halves = file(0, text="".join(f"{i},{i}.5\n" for i in range(12)))
    assert halves.loss == "mse" and halves.y.dtype == np.float64
    assert file(0, text="".join(f"{i},{'ab'[i % 2]}\n" for i in range(12))).n_outputs == 2


def test_classes_that_a_model_counts_from_another_number(file):
    """As many as it has outputs, but not from 0: they are ranked; fewer could be any."""
    ranked = file(np.arange(12) % 3 + 1, n_outputs=3)
    assert ranked.n_outputs == 3 and set(np.unique(ranked.y)) == {0, 1, 2}
    with pytest.raises(ValueError, match="classes from 2 to 3; wanted 0 to 2"):
        file(np.arange(12) % 2 + 2, n_outputs=3)


def test_columns_of_whole_numbers(file):
    """One column of them is classes; two are numbers."""
    one = file((np.arange(12) % 2)[:, None])
    assert one.loss == "cross_entropy" and one.n_outputs == 2
    two = file(np.stack([np.arange(12), np.arange(12)], axis=1))
    assert two.loss == "mse" and two.n_outputs == 2


def test_accuracy_of_two_classes_told_by_one_output(file):
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
    # 11 numbers of scikit-learn 1.7, beside the oldest NumPy, are off by an ulp: other data
    "diabetes": ["5033943a8168941c", "3741ea870d987c3f"],
}


@pytest.mark.parametrize("name", DIGESTS)
def test_digests_that_saved_runs_hold(name):
    pytest.importorskip("sklearn")
    assert load_dataset(name).digest in DIGESTS[name]


def test_a_digest_is_the_same_on_every_machine(file):
    """Whatever the width and the order of bytes in which its numbers came; other numbers and
    other words have others.
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
