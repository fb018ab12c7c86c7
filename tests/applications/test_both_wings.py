"""Statements about the core together with the applications."""

import re

import fastcurv
from fastcurv import applications
from fastcurv.common import protocols

from ..test_layers import ROOT, layers_script
from ..test_repository import INSIDE, MODULES, imports_of


def test_names_listed_in_the_protocols_are_used_by_other_subpackages():
    """Each name listed in `common/protocols.py` is used outside the subpackage that defines it, and
    is hidden from `dir`.
    """
    listed = re.findall(r"^(?:- |Of a model, )``(\w+)", protocols.__doc__, re.MULTILINE)
    assert sorted(listed) == sorted(protocols.NAMES_HIDDEN_FROM_DIR)
    uses, defines = {}, {}
    for name in INSIDE:
        home, text = name.partition(".")[0], MODULES[name].read_text(encoding="utf-8")
        for word in protocols.NAMES_HIDDEN_FROM_DIR:
            used = re.search(rf"""\.{word}\b|etattr\(.*"{word}"|hasattr\(.*"{word}\"""", text)
            uses.setdefault(word, set()).update([home] if used else [])
            made = re.search(rf"def {word}\(|^    {word}: |self\.{word} =", text, re.MULTILINE)
            defines.setdefault(word, set()).update([home] if made else [])
    for word in protocols.NAMES_HIDDEN_FROM_DIR:
        assert any(user != home for user in uses[word] for home in defines[word]), word
    ob = fastcurv.Objective(fastcurv.MLP([1, 1]), [[1.0]], [[1.0]], "mse")
    for one in (ob, ob.model, ob.hessian([1.0, 1.0])):
        assert not protocols.NAMES_HIDDEN_FROM_DIR & set(dir(one))


def test_the_picture_of_the_layers_is_drawn_from_the_imports():
    assert (ROOT / "docs" / "layers.svg").read_text(encoding="utf-8") == layers_script["drawing"]()


def test_applications_use_only_the_modules_of_their_interface():
    listed = set(re.findall(r"``([\w.]+)``", applications.__doc__))
    used = {
        other
        for name in INSIDE
        if name.startswith("applications.")
        for other in imports_of(name)
        if other in MODULES and not other.startswith("applications.")
    }
    assert listed == used
