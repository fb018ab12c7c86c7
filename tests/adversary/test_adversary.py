"""A sample of the adversary in every run; `make adversary` tries a hundred thousand cases."""

import pytest

from .statements import STATEMENTS, run

LONG = (  # a case of them takes more than a tenth of a second
    "batch_normalisation_is_never_certified",
    "beside_a_measured_minimum_nothing_is_lower",
    "labels_that_pull_one_way_leave_no_critical_point",
    "success_has_nothing_lower_beside_it",
    "the_unit_of_the_loss_changes_no_verdict",
    "what_large_n_measures_is_worth_the_name",
)
WIDE = ("spaces_are_the_matrix",)  # spaces, operators, estimators


@pytest.mark.by_day(share=1 / 2)
@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: s.__name__)
def test_is_never_said(statement):
    """Each statement holds on twelve cases, on six where one takes long, on many where there are
    many kinds of them.
    """
    count = 6 if statement.__name__ in LONG else 100 if statement.__name__ in WIDE else 12
    for seed in range(count):
        run(statement, seed)


@pytest.mark.parametrize(
    "name, seed",
    [
        ("large_n_of_a_network_is_as_honest", 90114),  # symmetries fill the space
        ("large_n_of_a_network_is_as_honest", 200551),  # no product leaves 0
        ("large_n_of_a_network_is_as_honest", 201014),  # units of 1e31 beside float32
        ("large_n_of_a_network_is_as_honest", 201517),  # held by kinks, curved down on one side
        ("what_large_n_measures_is_worth_the_name", 400193),  # zeros of symmetries are H's too
        ("success_has_nothing_lower_beside_it", 50319),  # at the rounding of single precision
        ("spaces_are_the_matrix", 202993),  # squares of 1e-249 in a norm
        ("spaces_are_the_matrix", 204505),  # and of 1e246
        ("spaces_are_the_matrix", 211032),  # what is left lies along directions taken out
        # equal samples: a pending row that is a combination of the others
        *[("spaces_are_the_matrix", i) for i in (40001113, 40001143)],
        # what underflows, multiplied by a large unit of the loss
        *[("squares_that_are_no_numbers_change_no_verdict", i) for i in (93, 328, 424, 430, 468)],
        ("the_unit_of_the_loss_changes_no_verdict", 438),
        ("every_plan_gives_one_answer", 71027),  # one row's output along a vector that cancels
        ("given_activations_are_certified_where_they_rest", 71131),  # a Hessian that overflows
        ("given_losses_succeed_where_nothing_is_lower", 910060),  # at a share of a start of 1e22
    ],
)
def test_cases_that_were_broken_once(name, seed):
    (statement,) = (one for one in STATEMENTS if one.__name__ == name)
    run(statement, seed)
