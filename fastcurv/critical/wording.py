"""The sentences of a verdict."""

from ..spectrum.results import number

# A Newton step of more than this many lengths of theta leads out of every model of the loss: H is
# flat there.
FAR = 1e6


def is_plateau(ask, facts):
    """Gradient mostly outside the range of H, and H flat along it: beside its norm, or beside any
    step within reach.
    """
    residual, flat = facts["gradient_residual"], facts["gradient_flat_ratio"]
    return (
        residual is not None
        and residual >= 0.9
        and (flat is None or flat <= 0.25 or ask.relative >= FAR)
    )


def gradient_words(ask):
    if ask.g_norm == 0:
        return "the gradient is exactly 0"
    return f"||g|| = {number(ask.g_norm)} is within its tolerance {number(ask.tol)}"


def not_critical_sentence(ask, facts):
    text = f"Not critical: ||g|| = {number(ask.g_norm)} is above its tolerance {number(ask.tol)}"
    if not facts["plateau"]:
        return text + kink_words(ask) + "."
    text += (
        f"; a plateau, since H is flat along g and a share {number(facts['gradient_residual'])} "
        "of g lies outside "
        f"the range of H"
    )
    if hasattr(ask.ob, "saturation"):
        state = ask.ob.saturation(ask.theta)
        text += (
            f", with {100 * state['saturated']:.0f}% of the unit outputs saturated, "
            f"{state['dead_units']} of "
            f"{state['n_units']} units dead on every sample and {100 * state['certain']:.0f}% of "
            "the samples nearly certain"
        )
    return text + kink_words(ask) + "."


def kink_words(ask):
    if not ask.n_kinks:
        return ""
    one = ask.n_kinks == 1
    return (
        f"; {ask.n_kinks} pre-activation{'' if one else 's'} {'lies' if one else 'lie'} within "
        "rounding of a kink, "
        "where H is one-sided, so nothing is certified"
    )
