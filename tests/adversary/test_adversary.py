"""A sample of the adversarial cases; `python -m tests.adversary.hunt 100000` tries many more."""

import pytest

from .statements import STATEMENTS, run

N_CASES = {  # three where a case takes more than a tenth of a second
    "batch_normalisation_is_never_certified": 3,
    "near_a_measured_minimum_nothing_is_lower": 3,
    "one_sided_labels_leave_no_critical_point": 3,
    "success_has_nothing_lower_nearby": 3,
    "the_unit_of_the_loss_changes_no_verdict": 3,
    "measured_saddles_at_large_n_hold": 3,
    "spectra_agree_with_the_matrix": 60,  # cases vary in operator and estimator
}


@pytest.mark.by_day(share=1 / 2)
@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.__name__)
def test_every_statement_holds_on_random_cases(statement):
    """Each statement holds on eight random cases, on three if it is slow, and on sixty if its cases
    vary much.
    """
    for seed in range(N_CASES.get(statement.__name__, 8)):
        run(statement, seed)


@pytest.mark.parametrize(
    "name, seed",
    [
        ("verdicts_from_products_hold_for_networks", 90114),  # symmetries span the whole space
        ("verdicts_from_products_hold_for_networks", 200551),  # all products are 0
        ("verdicts_from_products_hold_for_networks", 201014),  # units of 1e31 with float32
        (
            "verdicts_from_products_hold_for_networks",
            201517,
        ),  # a minimum at kinks, with negative curvature on one side
        # zero eigenvalues of symmetries are eigenvalues of H
        ("measured_saddles_at_large_n_hold", 400193),
        ("success_has_nothing_lower_nearby", 50319),  # losses that differ by rounding in float32
        # a norm of numbers near 1e-249, whose squares underflow
        ("spectra_agree_with_the_matrix", 202993),
        # a norm of numbers near 1e246, whose squares overflow
        ("spectra_agree_with_the_matrix", 204505),
        (
            "spectra_agree_with_the_matrix",
            211032,
        ),  # a remainder along deflated directions
        # equal samples: a pending row that is a combination of the others
        *[("spectra_agree_with_the_matrix", i) for i in (40001113, 40001143)],
        # products that underflow before they are multiplied by a large unit of the loss
        *[("overflow_of_squares_keeps_certified_kinds", i) for i in (93, 328, 424, 430, 468)],
        ("the_unit_of_the_loss_changes_no_verdict", 438),
        (
            "every_plan_gives_the_same_results",
            71027,
        ),  # the output of one sample along a vector, in which terms cancel
        (
            "success_of_user_losses_has_nothing_lower_nearby",
            910060,
        ),  # a start of 1e22, divided until the gradient is finite
    ],
)
def test_statements_hold_on_cases_that_once_failed(name, seed):
    (statement,) = (one for one in STATEMENTS if one.__name__ == name)
    run(statement, seed)
