"""The texts of verdicts, endings, causes, advice and reports equal those of the golden file, which
``python -m tests.applications.sentences`` writes.
"""

import pytest

from fastcurv.applications.cli import report

from . import sentences


@pytest.mark.filterwarnings("ignore")
def test_sentences_equal_those_of_the_golden_file(monkeypatch):
    monkeypatch.setattr(report, "svg_markup", lambda *_, **__: "")  # the texts have no figures
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    assert sentences.sentences().splitlines() == sentences.PATH.read_text("utf-8").splitlines()
