"""The chapters of the gallery, and the parts of the docstring of each example."""

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
STORY = {
    "What a critical point is": (
        "where_training_stops",
        "taylor_error",
        "eigenvalues_tell",
        "toy_surface",
        "escape_step",
    ),
    "Saddles, or poor minima?": (
        "saddles_against_size",
        "minimum_ratio",
        "wider_net",
        "two_weights",
        "hidden_way_out",
        "poor_minima",
        "ten_million",
    ),
    "What slows training": (
        "plateaus",
        "sudden_drop",
        "running_average",
        "escape_times",
        "failed_training",
        "why_it_fails",
    ),
    "Depth": (
        "gradients_by_depth",
        "initial_scale",
        "skip_connections",
        "covariate_shift",
    ),
    "One network, many solutions": (
        "permutations",
        "many_starts",
    ),
    "Stochastic gradients": (
        "learning_rates",
        "constant_rate",
        "early_stopping",
        "batch_size",
    ),
    "Newton's method": (
        "newton_parabola",
        "flat_and_steep",
        "hessian_cost",
        "newton_steps",
    ),
    "Ten papers, reproduced": (
        "edge_of_stability",
        "straight_line",
        "bent_path",
        "matched_units",
        "index_against_loss",
        "spread_by_width",
        "best_steps",
        "gradient_flat",
        "outliers",
        "input_covariance",
    ),
}
# The twelve pictures with which the gallery begins.
FIRST_PICTURES = (
    "where_training_stops",
    "toy_surface",
    "eigenvalues_tell",
    "hidden_way_out",
    "wider_net",
    "minimum_ratio",
    "saddles_against_size",
    "plateaus",
    "sudden_drop",
    "gradients_by_depth",
    "learning_rates",
    "newton_parabola",
)
ORDER = tuple(name for names in STORY.values() for name in names)
# The lectures, and the numbers of their claims as the docstrings of the examples give them.
LECTURES = {
    "Andrew Ng, on local optima and plateaus": range(1, 4),
    "Hung-yi Lee, on points of small gradient, their Hessian and how to leave them": range(4, 10),
    "a course on vanishing gradients, initialisation, batch normalisation and skip connections": (
        range(10, 12)
    ),
    "Hugo Larochelle, on symmetry, stochastic gradient descent, early stopping, mini-batches, "
    "momentum and Newton's method": range(12, 19),
}
FROM_LECTURES = (
    "The claims come from five lectures on how neural networks are trained: one by Andrew Ng, two "
    "by Hung-yi Lee, one by Hugo Larochelle, and one of a course on gradients in deep networks."
)
NUMBERS = re.compile(r"^(L\d+(?:, L\d+)*)\. ")


def docstring(name):
    """Return the paragraphs of an example's docstring: the claim first, the limits last."""
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def claim(name):
    """Return what an example shows, without the numbers of the lectures' claims."""
    return NUMBERS.sub("", docstring(name)[0])


def lectures(name):
    """Return the lectures from which the claim of an example is taken."""
    found = NUMBERS.match(docstring(name)[0])
    numbers = [int(number) for number in re.findall(r"\d+", found[1])] if found else []
    return [words for words, own in LECTURES.items() if any(n in own for n in numbers)]


def corrections(name):
    """Return the paragraphs that state how far a lecture's claim is wrong."""
    return [text for text in docstring(name) if text.startswith(("Half right: ", "Wrong: "))]


def anchor(name):
    """Return the address of an example on the pages, which does not depend on other examples."""
    return name.replace("_", "-")
