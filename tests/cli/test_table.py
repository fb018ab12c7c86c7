"""Tables that others wrote: read as they are meant, or refused with what to do."""

import numpy as np
import pytest

from fastcurv.cli.data import read_csv

SEMICOLONS = "is separated by semicolons; wanted commas between columns and points in numbers"
INDEX = "numbers the rows, as an index of pandas does; wanted .*index=False"


@pytest.fixture
def read(tmp_path):
    def write(text, target=None):
        path = tmp_path / "t.csv"
        path.write_text(text)
        return read_csv(path, target)

    return write


REFUSED = {
    "wine quality": ('"fixed acidity";"pH";"quality"\n7.4;3.51;5\n7.8;3.2;5\n', SEMICOLONS),
    "without names": ("7.4;3.51;5\n7.8;3.2;5\n", SEMICOLONS),
    "decimal commas": ("a;b\n1,5;2\n2,5;3\n", SEMICOLONS),
    "decimal commas alone": ("1,5;2\n2,5;3\n", SEMICOLONS),
    "decimal commas and words": ("1,5;a\n2,5;b\n", SEMICOLONS),
    "tabs": ("a\tb\tc\n1\t2\t0\n3\t4\t1\n", "is separated by tabs"),
    "spaces": ("a b c\n1 2 0\n3 4 1\n", "two columns, separated by commas"),
    "empty": ("", "t.csv is empty; wanted numbers separated by commas, one sample a line"),
    "index": (",a,y\n0,1.5,0\n1,2.5,0\n2,3.5,1\n", INDEX),
    "shuffled index": (",a,y\n7,1.5,0\n3,2.5,0\n12,3.5,1\n", INDEX),
    "index read again": ("Unnamed: 0,a,y\n0,1.5,0\n1,2.5,1\n", INDEX),
    "index beside numbers as names": (",0,1\n0,1.5,0\n1,2.5,0\n2,3.5,1\n", INDEX),
    "gap": ("a,b,y\n1,2,0\n1,,0\n", "sample 2, column 'b': '' is not a finite number"),
    "gap beyond y": ("a,y,b\n1,0,2\n1,0,x\n", "sample 2, column 'b': 'x' is not"),
    "gap, no names": ("1,0,2\n1,0,x\n", r"sample 2, column 2 \(counted from 0\): 'x' is not"),
    "gap, one name": (",b,y\n0.5,1,0\n,2,0\n", r"sample 2, column 0 \(counted from 0\): ''"),
    "mixed": ("a,y\n1,0\n2,b\n", "column 'y': the targets mix words"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name, read):
    text, words = REFUSED[name]
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
def test_what_only_looks_odd_is_read(text, X, y, read):
    found = read(text)
    assert np.array_equal(found[0], X) and np.array_equal(found[1], y)
    assert found[1].dtype.kind in "ifU"
