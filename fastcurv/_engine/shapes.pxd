"""Choice of layout (samples as rows, or transposed) and of the number of panels, by sizes alone."""


cdef enum:
    # bytes of parameters up to which products run panel-parallel
    PANEL_PARALLEL_MAX_BYTES = 1 << 18
    # flops of a product below which waking a second thread costs more than it saves
    SERIAL_FLOPS = 3000000
    # The same bound in the transposed layout, where a product is one job and needs no packing
    # first.
    SERIAL_TRANSPOSED_FLOPS = 300000
    # bytes of state that stay in the third-level cache; the state of larger plans is read from
    # memory
    L3_BYTES = 24 << 20
    # The share of that cache that two cores of a server have, with the rest in use by others. Below
    # this size, prefetching the next panel costs more than waiting for it.
    L3_SHARE_BYTES = 10 << 20
