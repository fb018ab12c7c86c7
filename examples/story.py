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
SMOOTH = ("tanh", "gelu", "silu", "softplus", "sigmoid")
WIDTHS = (1, 1.5, 2)
# For headings that name a class of networks: the activations tried in place of tanh, the factors of
# the widths of hidden layers, and for how many of twelve members, with other samples and starts,
# the heading holds.
MEMBERS = {
    "batch_size": (SMOOTH, WIDTHS, 12),
    "bent_path": (SMOOTH, WIDTHS, 10),
    "best_steps": (("tanh",), WIDTHS, 10),
    "constant_rate": (SMOOTH, WIDTHS, 12),
    "covariate_shift": (SMOOTH, WIDTHS, 12),
    "early_stopping": (SMOOTH, WIDTHS, 12),
    "edge_of_stability": (("tanh",), WIDTHS, 12),
    "escape_step": (SMOOTH[:3], WIDTHS, 12),
    "escape_times": (SMOOTH[:3], WIDTHS, 10),
    "gradient_flat": (("tanh",), (1,), 12),
    "gradients_by_depth": (("tanh",), WIDTHS, 12),
    "hessian_cost": (SMOOTH, WIDTHS, 12),
    "hidden_way_out": (SMOOTH[:3], WIDTHS, 7),
    "index_against_loss": (SMOOTH, WIDTHS, 9),
    "input_covariance": (SMOOTH, WIDTHS, 12),
    "many_starts": (("tanh",), WIDTHS, 12),
    "matched_units": (SMOOTH[:4], (1,), 11),
    "newton_steps": (("tanh",), (1,), 12),
    "outliers": (("tanh",), WIDTHS, 7),
    "permutations": (("tanh",), WIDTHS, 12),
    "running_average": (SMOOTH, WIDTHS, 11),
    "spread_by_width": (SMOOTH, (1,), 10),
    "straight_line": (SMOOTH, WIDTHS, 12),
    "sudden_drop": (("tanh",), WIDTHS, 12),
    "taylor_error": (SMOOTH, WIDTHS, 12),
    "two_weights": (SMOOTH, WIDTHS, 10),
}
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


def members(name):
    """Return the sentence on the members of a class of networks on which a heading was tried."""
    activations, factors, holds = MEMBERS[name]
    units = f"{' or '.join(activations)} units in place of tanh, " if len(activations) > 1 else ""
    wide = f"hidden layers {' or '.join(map(str, factors))} times as wide, "
    return (
        f"Tried on twelve other networks, with {units}{wide if len(factors) > 1 else ''}other "
        f"samples and other starts: what is said of the class holds for {holds} of them."
    )


def anchor(name):
    """Return the address of an example on the pages, which does not depend on other examples."""
    return name.replace("_", "-")
