"""A sample of the adversarial cases; `make adversary` tries a hundred thousand."""

import pytest

from .statements import STATEMENTS, run

SLOW_STATEMENTS = (  # a case of them takes more than a tenth of a second
    "batch_normalisation_is_never_certified",
    "near_a_measured_minimum_nothing_is_lower",
    "one_sided_labels_leave_no_critical_point",
    "success_has_nothing_lower_nearby",
    "the_unit_of_the_loss_changes_no_verdict",
    "measured_saddles_at_large_n_hold",
)
VARIED_STATEMENTS = ("every_space_agrees_with_the_matrix",)  # spaces, operators, estimators


@pytest.mark.by_day(share=1 / 2)
@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.__name__)
def test_every_statement_holds_on_random_cases(statement):
    """Each statement holds on twelve random cases, on six if it is slow, and on a hundred if its
    cases vary much.
    """
    count = (
        6
        if statement.__name__ in SLOW_STATEMENTS
        else 100
        if statement.__name__ in VARIED_STATEMENTS
        else 12
    )
    for seed in range(count):
        run(statement, seed)


@pytest.mark.parametrize(
    "name, seed",
    [
        ("verdicts_from_products_hold_for_networks", 90114),  # symmetries fill the space
        ("verdicts_from_products_hold_for_networks", 200551),  # no product leaves 0
        ("verdicts_from_products_hold_for_networks", 201014),  # units of 1e31 beside float32
        (
            "verdicts_from_products_hold_for_networks",
            201517,
        ),  # held by kinks, curved down on one side
        ("measured_saddles_at_large_n_hold", 400193),  # zeros of symmetries are H's too
        ("success_has_nothing_lower_nearby", 50319),  # at the rounding of single precision
        ("every_space_agrees_with_the_matrix", 202993),  # squares of 1e-249 in a norm
        ("every_space_agrees_with_the_matrix", 204505),  # and of 1e246
        (
            "every_space_agrees_with_the_matrix",
            211032,
        ),  # what is left lies along directions taken out
        # equal samples: a pending row that is a combination of the others
        *[("every_space_agrees_with_the_matrix", i) for i in (40001113, 40001143)],
        # what underflows, multiplied by a large unit of the loss
        *[("overflow_of_squares_keeps_certified_kinds", i) for i in (93, 328, 424, 430, 468)],
        ("the_unit_of_the_loss_changes_no_verdict", 438),
        (
            "every_plan_gives_the_same_results",
            71027,
        ),  # one row's output along a vector that cancels
        ("certified_points_of_user_activations_exist", 71131),  # a Hessian that overflows
        (
            "success_of_user_losses_has_nothing_lower_nearby",
            910060,
        ),  # at a share of a start of 1e22
    ],
)
def test_statements_hold_on_cases_that_once_failed(name, seed):
    (statement,) = (one for one in STATEMENTS if one.__name__ == name)
    run(statement, seed)
