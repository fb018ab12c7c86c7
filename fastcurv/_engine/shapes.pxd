"""How samples lie, as rows or across, and in how many panels: by sizes alone."""


cdef enum:
    TALL_WEIGHTS = 1 << 18      # bytes of parameters up to which products are better served tall
    SERIAL_FLOPS = 3000000      # below this, waking a thread costs more than it saves
    # the same where samples lie across: a product is one job, and nothing is packed before it
    SERIAL_ACROSS = 300000
    FAR_BYTES = 24 << 20        # more does not stay in the third-level cache,
    NEAR_BYTES = 10 << 20       # nor in the share of it that two cores of a machine have, of which
    # others use the rest: up to there asking for the next panel costs more than waiting for it
