"""The facts about a fit that notebooks show above scikit-learn's diagram of an estimator."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

# Key: a value of `stopped_` that needs an explanation. Value: its meaning.
ENDING_SENTENCES = {
    "callback": "the gradient met tol",
    "held_out": "the loss of rows held out improved no more",
    "patience": "no more progress",
    "max_iter": "max_iter was reached",
    "max_time": "max_time was reached",
}


class FitReprMixin:
    """A mixin for estimators that adds facts about the fit to their HTML representation."""

    if TYPE_CHECKING:
        curvature_: Any
        loss_: float
        n_iter_: int
        stopped_: str
        model_: Any

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)  # type: ignore[misc]
        if "text/html" in found:
            found["text/html"] = self._fit_paragraph() + found["text/html"]
        return found

    def _repr_html_inner(self) -> str:
        diagram: str = super()._repr_html_inner()  # type: ignore[misc]
        return self._fit_paragraph() + diagram

    def _fit_paragraph(self) -> str:
        """Return an HTML paragraph on the fit, from numbers that are already computed, or "" before
        a fit.
        """
        if not hasattr(self, "theta_"):
            return ""
        sizes = "-".join(map(str, self.model_.sizes))
        rows = vars(self).get("_training")
        of = "" if rows is None else f"{rows[0][0].shape[0]} rows, "
        ended = ENDING_SENTENCES.get(self.stopped_, self.stopped_)
        words = [
            f"{of}{self.model_.n_params} parameters ({sizes}). Loss {self.loss_:.4g} after "
            f"{self.n_iter_} iteration{'s' * (self.n_iter_ != 1)}: {ended}."
        ]
        if self.curvature_ is not None:
            words.append(str(getattr(self.curvature_, "sentence", self.curvature_.reason)))
        call = "fastcurv.report(estimator, X, y)"
        text = escape(" ".join(words))
        return f"<p>{text} How far can it be trusted? <code>{call}</code></p>"
