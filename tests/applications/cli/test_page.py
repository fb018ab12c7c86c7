"""The page on a fit: its numbers, its sentences, and what a reader can choose on it."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.special import softmax

import fastcurv as fc
from fastcurv.applications.cli import measure, page
from fastcurv.applications.cli.page import build_page

from ..browser import needs_chromium, reported

pytest.importorskip("sklearn")

from sklearn import datasets
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, scale


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch):
    """Set the time limit of a report so high that every part is computed."""
    monkeypatch.setattr(measure, "EXTRA_REPORT_SECONDS", 1000.0)


def regression(rng, n=40, alpha=1.0, activation="tanh"):
    X = rng.standard_normal((n, 3))
    y = 40 + 10 * (np.sin(X[:, 0]) + X[:, 1] + 0.3 * rng.standard_normal(n))
    return fc.MLPRegressor((3,), activation, alpha=alpha, random_state=0).fit(X, y), X, y


def classification(rng, labels, n=50):
    X = rng.standard_normal((n, 2))
    y = np.array(labels)[
        np.digitize(X[:, 0] + 0.5 * rng.standard_normal(n), [-0.5, 0.5][: len(labels) - 1])
    ]
    return fc.MLPClassifier((3,), "tanh", alpha=1.0, random_state=0).fit(X, y), X, y


FITS = {
    "regression": lambda rng: regression(rng),
    "relu": lambda rng: regression(rng, activation="relu"),
    "three classes": lambda rng: classification(rng, ["a", "b", "c"]),
    "two classes": lambda rng: classification(rng, ["no", "yes"]),
}


def documented_names():
    """Return the names of the numbers of a page in the user guide."""
    text = (Path(__file__).parents[3] / "docs" / "report.md").read_text("utf-8")
    table = text.partition("| `to_dict()` |")[2].partition("\n\n")[0]
    return set(re.findall(r"`(\w+)`", table))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FITS)
def test_numbers_of_a_page_are_those_of_the_functions_of_fastcurv(rng, kind):
    """Scores and errors follow from `leave_one_out` or from refits of folds, every name is in the
    user guide, and long names are cut.
    """
    fit, X, y = FITS[kind](rng)
    made = build_page(
        fit, X, y, names=[f"{i}{'x' * 60}" for i in range(X.shape[1])], target="y" * 60
    )
    found = made.to_dict()
    assert set(found) <= documented_names()
    json.dumps(found, allow_nan=False)
    text = html.unescape(made.to_html())
    assert not re.search(r"(src|href)=[\"']?https?:|x{41}|y{41}", text) and "yyy" in text
    assert found["left_out_by"] == "folds" or kind != "relu"
    assert (found["n_rows"], found["n_columns"]) == X.shape and found["n_folds"] == 10
    if found["left_out_by"] == "folds":
        assert found["left_out_score"] == found["folds_score"]
        return
    ob = fit.objective(X, y)
    out = fc.leave_one_out(ob, fc.minimize(ob, fit.theta_, rng=0).x)
    assert found["left_out_score"] == pytest.approx(out.score)
    assert found["cooks_distance"] == pytest.approx(np.sort(out.cooks_distance)[:-6:-1])
    if "typical_error" in found:
        errors = (ob.y - out.predictions).ravel() * fit.y_scale_[0]
        assert found["typical_error"] == pytest.approx(np.sqrt(np.mean(errors**2)))
        assert found["inside"] >= 0.9
    else:
        assert found["left_out_log_loss"] == pytest.approx(out.losses.mean())
        assert np.sum(found["confusion"]) == len(y)


@pytest.mark.filterwarnings("ignore")
def test_report_accepts_a_pipeline_and_renders_in_notebooks(rng, tmp_path):
    _, X, y = regression(rng)
    pipe = make_pipeline(StandardScaler(), fc.MLPRegressor((3,), "tanh", alpha=1, random_state=0))
    pipe.fit(X, y)
    made = fc.report(pipe, X, y, tmp_path / "r.html", names=["a", "b", "c"], target="height")
    text = (tmp_path / "r.html").read_text()
    assert text == made.to_html() and "height: how far" in text
    assert made._repr_html_().startswith("<iframe") and "srcdoc=" in made._repr_html_()
    assert tables(text)[0][-3:] == ["a", "b", "c"]


class Unnamed(TransformerMixin, BaseEstimator):
    """A transformer that returns the first `n` columns, and does not name its outputs."""

    def __init__(self, n=3):
        self.n = n

    def fit(self, X, y=None):
        self.n_features_in_ = np.shape(X)[1]
        return self

    def transform(self, X):
        return np.asarray(X)[:, : self.n]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n_kept", [None, 3, 2])
def test_pipelines_without_output_names_are_reported(rng, n_kept):
    est, X, y = regression(rng)
    pipe = make_pipeline(est) if n_kept is None else make_pipeline(Unnamed(n_kept), est).fit(X, y)
    names, seen = ["a", "b", "c"], X[:, :n_kept]
    facts = fc.report(pipe, X, y, names=names).to_dict()
    assert facts["left_out_score"] == fc.report(pipe[-1], seen, y).to_dict()["left_out_score"]
    if n_kept is not None:
        found = page._transformed_column_names(pipe[:-1], names, seen)
        assert found == (names if n_kept == 3 else None)
        assert page._transformed_column_names(pipe[:-1], None, seen) is None


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore")
def test_sparse_rows_are_reported_like_dense_ones(rng, monkeypatch):
    est, X, y = regression(rng)
    found = [fc.report(est, rows, y).to_dict() for rows in (X, csr_matrix(X))]
    assert found[0]["left_out_score"] == found[1]["left_out_score"]
    monkeypatch.setattr(page, "MAX_PAGE_DENSE_ENTRIES", 119)
    with pytest.raises(ValueError, match=r"at most 119 entries for a report, got \(40, 3\)"):
        fc.report(est, csr_matrix(X), y)


class Frame:
    """A data frame with the few attributes that a report uses, so that pandas is not needed."""

    def __init__(self, columns, values):
        self.columns, self.values, self.shape = columns, values, values.shape

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class OneHot(TransformerMixin, BaseEstimator):
    """A scikit-learn transformer that one-hot encodes the last column, which holds words."""

    def fit(self, X, y=None):
        self.words_ = np.unique(np.asarray(X)[:, -1].astype(str))
        return self

    def transform(self, X):
        X = np.asarray(X)
        return np.hstack([X[:, :-1].astype(float), X[:, -1:].astype(str) == self.words_])

    def get_feature_names_out(self, names):
        return [*names[:-1], *(f"{names[-1]}={word}" for word in self.words_)]


def frames(rng, kind):
    """Return (table, targets, pipeline): a data frame with a column of words, named targets, and a
    pipeline that is not fitted, with pandas if `kind` is "pandas".
    """
    _, X, y = regression(rng)
    words = np.array(["red", "green", "blue"], object)[np.arange(len(X)) % 3]
    values, names = np.column_stack([X[:, :2].astype(object), words]), ["a", "b", "colour"]
    est = fc.MLPRegressor((3,), "tanh", alpha=1.0, random_state=0)
    if kind == "pandas":
        pandas = pytest.importorskip("pandas")
        table = pandas.DataFrame(values, columns=names).astype({"a": float, "b": float})
        encoder = make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough")
        return table, pandas.Series(y, name="height"), make_pipeline(encoder, est)
    return Frame(names, values), Frame(["height"], y[:, None]), make_pipeline(OneHot(), est)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["stand-in", "pandas"])
def test_the_page_of_a_data_frame_counts_and_shows_its_columns(rng, kind):
    table, y, pipe = frames(rng, kind)
    pipe.fit(table, np.asarray(y).ravel())
    made = fc.report(pipe, table, y)
    assert made.subtitle.startswith(f"{len(y.values)} rows, 3 columns as 5 inputs; ")
    assert (made.to_dict()["n_columns"], made.to_dict()["n_inputs"]) == (3, 5)
    text = made.to_html()
    header, *lines = tables(text)
    assert "height: how far" in text and header[-3:] == ["a", "b", "colour"]
    values = np.asarray(table)
    for place, *_, a, b, colour in lines[:5]:
        row = int(place.removeprefix("row "))
        assert [float(a), float(b)] == pytest.approx(values[row, :2].astype(float), rel=1e-3)
        assert colour == values[row, 2]
    with pytest.raises(
        ValueError, match=r"names must hold a name for each of 3 columns of X, got \['a'\]"
    ):
        fc.report(pipe, table, y, names=["a"])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore")
def test_the_report_states_that_a_fit_has_not_converged(rng):
    _, X, y = regression(rng)
    est = fc.MLPRegressor((3,), "tanh", solver="adam", max_iter=3, random_state=0).fit(X, y)
    facts = fc.report(est, X, y).to_dict()
    assert "The fit has not converged" in facts["first_screen"][1]
    assert facts["left_out_by"] == "folds" and "change_without_row" not in facts
    assert "On the rows it was fitted to R" in facts["first_screen"][0]
    est = fc.MLPRegressor((3,), "tanh", early_stopping=True, random_state=0).fit(X, y)
    first = fc.report(est, X, y).to_dict()["first_screen"][0]
    assert "On all rows, some of which stopped the fit R" in first


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore")
def test_report_states_by_how_much_the_loss_of_a_linear_model_is_smaller(rng):
    X = rng.standard_normal((80, 3))
    y = X[:, 0] + 0.3 * rng.standard_normal(80)
    est = fc.MLPRegressor((3,), "tanh", alpha=20.0, random_state=0).fit(X, y)
    facts = fc.report(est, X, y).to_dict()
    assert facts["loss_difference"] < 0 and facts["network_needed"] is False
    sentence = facts["first_screen"][1]
    assert sentence.endswith("The network is not needed here: the linear model is better.")
    found = re.findall(r"typical error of ([\d.]+)|has ([\d.]+)\.", sentence)
    errors = [float(linear or network) for linear, network in found]
    assert len(errors) == 2 and errors[0] < errors[1]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore")
def test_report_prefers_a_linear_model_for_linearly_separable_classes(rng, monkeypatch):
    """If a line separates the classes, the report states that the rows do not need a network. No
    linear model is fitted above MAX_LINEAR_FLOPS.
    """
    X = rng.standard_normal((60, 2))
    y = X[:, 0] > 0.1
    est = fc.MLPClassifier((3,), "tanh", alpha=1e-3, random_state=0).fit(X, y)
    facts = fc.report(est, X, y).to_dict()
    assert facts["network_needed"] is False and facts["linear_error"] < 0.06
    assert re.search("is not needed here|do not show", facts["first_screen"][1])
    monkeypatch.setattr(measure, "MAX_LINEAR_FLOPS", 3**2 * len(X) - 1)
    assert "linear_score" not in fc.report(est, X, y).to_dict()


@pytest.mark.usefixtures("undrawn")
def test_unsupported_estimators_and_targets_raise_a_clear_error(rng):
    est, X, y = regression(rng)
    with pytest.raises(TypeError, match="estimator must be an MLPRegressor or an MLPClassifier"):
        fc.report(Ridge().fit(X, y), X, y)
    two = fc.MLPRegressor((3,), "tanh", alpha=1.0).fit(X, np.stack([y, y], 1))
    with pytest.raises(ValueError, match="y must have one target for each row for a report"):
        fc.report(two, X, np.stack([y, y], 1))
    labels = np.stack([y > 30, y > 40], 1).astype(int)
    with pytest.raises(ValueError, match="one class for each row for a report"):
        fc.report(fc.MLPClassifier((3,), "tanh", alpha=1.0).fit(X, labels), X, labels)
    with pytest.raises(ValueError, match=r"X and y must be all rows of the fit, .* Call fit on"):
        fc.report(est, X[::-1], y)
    weighted = fc.MLPRegressor((3,), "tanh", alpha=1.0).fit(X, y, np.arange(1.0, 41.0))
    with pytest.raises(ValueError, match="without sample_weight, got rows with a loss of"):
        fc.report(weighted, X, y)
    with pytest.raises(ValueError, match=r"sample_weight must be None or 1 .* got \[ ?1"):
        fc.report(weighted, X, y, sample_weight=np.arange(1.0, 41.0))
    with pytest.raises(ValueError, match="y must have at least 10 rows for a report, got 8"):
        fc.report(fc.MLPRegressor((3,), "tanh", alpha=1.0).fit(X[:8], y[:8]), X[:8], y[:8])
    with pytest.raises(ValueError, match=r"y must hold different values for a report, got 2\.0"):
        fc.report(fc.MLPRegressor((3,), "tanh").fit(X, 0 * y + 2), X, 0 * y + 2)
    with pytest.raises(ValueError, match="y must hold numbers, as in the fit, got 'a'"):
        fc.report(est, X, np.full(40, "a"))
    with pytest.raises(
        ValueError, match=r"names must hold a name for each of 3 columns of X, got \['a'\]"
    ):
        fc.report(est, X, y, names=["a"])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore")
def test_report_on_noise_prefers_the_mean_and_few_rows_have_no_interval(rng):
    """For targets of pure noise, the report states that neither model predicts better than the
    mean. For 15 samples, the report states that these are too few for intervals.
    """
    X, y = rng.standard_normal((60, 3)), rng.standard_normal(60)
    est = fc.MLPRegressor((3,), "tanh", alpha=60.0, random_state=0).fit(X, y)
    facts = fc.report(est, X, y).to_dict()
    assert facts["network_needed"] is False and facts["left_out_score"] <= 0
    assert facts["linear_score"] > -0.05  # the mean of the other 59 rows scores -0.034
    assert any("Neither predicts better than the mean" in s for s in facts["first_screen"])
    est = fc.MLPRegressor((3,), "relu", alpha=1.0, random_state=0).fit(X[:15], y[:15])
    facts = fc.report(est, X[:15], y[:15]).to_dict()
    assert facts["left_out_by"] == "folds" and "half_width" not in facts
    assert "15 rows are too few for intervals that hold 95% of new rows." in facts["first_screen"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore")
def test_cross_validation_handles_a_class_with_one_row(rng):
    X, y = rng.standard_normal((30, 2)), np.where(np.arange(30) == 3, "rare", "usual")
    facts = fc.report(fc.MLPClassifier((2,), "tanh", alpha=1.0).fit(X, y), X, y).to_dict()
    assert facts["most_frequent_class"] == 29 / 30 and facts["network_needed"] is False
    assert any(
        "the most frequent class would be right in 96.7%" in s for s in facts["first_screen"]
    )


def tables(text):
    """Return the cells of all lines of the tables of a page, without their markup."""
    lines = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    return [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line) for line in lines]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["regression", "three classes"])
def test_changes_without_a_row_are_those_of_leave_one_out(rng, kind):
    fit, X, y = FITS[kind](rng)
    found = build_page(fit, X, y).to_dict()
    ob = fit.objective(X, y)
    theta = fc.minimize(ob, fit.theta_, rng=0).x
    out = fc.leave_one_out(ob, theta)
    row = np.argmax(out.cooks_distance)
    z, changes = ob.model.predict(theta, X), out.output_changes(X)[:, :, row]
    if kind == "regression":
        moved = changes[:, 0] * fit.y_scale_[0]
    else:
        p, q = softmax(z, axis=1), softmax(z + changes, axis=1)
        own = np.arange(len(X)), p.argmax(axis=1)
        moved = q[own] - p[own]
    assert found["influential_rows"][0] == row
    assert found["change_without_row"] == pytest.approx(np.abs(moved).max(), rel=1e-6)
    assert found["mean_change_without_row"] == pytest.approx(np.sqrt(np.mean(moved**2)), rel=1e-6)


SIZES = """(page) => ({ wide: page.documentElement.scrollWidth,
  labels: [...page.querySelectorAll("svg")].map((one) => one.getAttribute("aria-label")),
  titles: [...page.querySelectorAll(".dot")].map((dot) => dot.textContent) })"""


@needs_chromium
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "width", [390, *(pytest.param(width, marks=pytest.mark.nightly) for width in (800, 1280))]
)
def test_a_page_with_hostile_names_fits_the_window_of_a_browser(rng, tmp_path, width):
    fit, X, y = regression(rng)
    name = "</script><img src=x onerror=x.y()> in thousands of euros for each year"
    made = build_page(fit, X, y, target=name, names=["<b>", "\"'", "\u00df `x`"])
    result = reported(made.to_html(), tmp_path, width, 3000, SIZES)
    assert result["wide"] <= width and all(result["labels"])
    assert result["titles"][0].startswith("row 0: ")


def generated(rng, n=600):
    """Return (X, y): n synthetic samples of eight features that resemble prices of houses in
    California. The target depends on an interaction of two features and on a third one alone.
    """
    X = rng.standard_normal((n, 8))
    place = np.sin(2 * X[:, 6]) * np.cos(2 * X[:, 7])
    return X, np.exp(0.5 * X[:, 0]) + place + 0.3 * rng.standard_normal(n)


def digits():
    X, y = datasets.load_digits(return_X_y=True)
    X, y = X[::4], y[::4]
    return X[:, X.std(axis=0) > 0], y


DATA = {
    "diabetes": lambda: datasets.load_diabetes(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),
    "breast cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "digits": digits,
    "iris": lambda: datasets.load_iris(return_X_y=True),
    "friedman1": lambda: datasets.make_friedman1(200, noise=1.0, random_state=0),
    "friedman2": lambda: datasets.make_friedman2(200, noise=50.0, random_state=0),
    "friedman3": lambda: datasets.make_friedman3(200, noise=0.1, random_state=0),
    "linear": lambda: datasets.make_regression(150, 8, noise=20.0, random_state=0),
    "small and noisy": lambda: datasets.make_sparse_uncorrelated(60, 4, random_state=0),
    "houses": lambda: generated(np.random.default_rng(0)),
}
STRONG_ALPHA = 5.0


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DATA)
def test_report_summary_agrees_with_the_computed_numbers(name):
    """The left-out score agrees with that of ten folds to 0.03. Where the losses of
    a linear model differ by more than four standard errors, the report says which one is lower.
    """
    X, y = DATA[name]()
    X, classes = scale(X), len(np.unique(y)) < 20
    kind = fc.MLPClassifier if classes else fc.MLPRegressor
    est = kind((8,), "tanh", alpha=STRONG_ALPHA, random_state=0).fit(X, y)
    facts = build_page(est, X, y).to_dict()
    line = LogisticRegression(C=0.2, max_iter=1000) if classes else RidgeCV(np.logspace(-3, 3, 13))
    cv = [(StratifiedKFold if classes else KFold)(10, shuffle=True, random_state=s) for s in (1, 2)]
    how = {"method": "predict_proba"} if classes else {}
    network, other = (
        [cross_val_predict(one, X, y, cv=folds, **how) for folds in cv] for one in (est, line)
    )
    if classes:
        codes = np.unique(y, return_inverse=True)[1]
        score = np.mean([(p.argmax(axis=1) == codes).mean() for p in network])
        losses = [-np.log(p[np.arange(len(y)), codes]) for p in (network[0], other[0])]
    else:
        score = np.mean([r2_score(y, p) for p in network])
        losses = [(y - p) ** 2 for p in (network[0], other[0])]
    assert abs(facts["left_out_score"] - score) <= 0.03
    d = losses[1] - losses[0]
    if abs(d.mean()) > 4 * d.std(ddof=1) / np.sqrt(len(d)):
        assert facts["network_needed"] == (d.mean() > 0)
    if not classes:
        inside = np.mean(np.abs(y - network[0]) <= facts["half_width"])
        assert 0.91 <= inside <= 0.99
