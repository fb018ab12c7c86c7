"""Choice of layout (samples as rows, or transposed) and of the number of panels, by sizes alone."""


cdef enum:
    TALL_WEIGHTS = 1 << 18      # bytes of parameters up to which products run panel-parallel
    # flops of a product below which waking a second thread costs more than it saves
    SERIAL_FLOPS = 3000000
    # The same bound in the transposed layout, where a product is one job and needs no packing
    # first.
    SERIAL_ACROSS = 300000
    # bytes of state that stay in the third-level cache; the state of larger plans is read from
    # memory
    FAR_BYTES = 24 << 20
    # The share of that cache that two cores of a server have, with the rest in use by others. Below
    # this size, prefetching the next panel costs more than waiting for it.
    NEAR_BYTES = 10 << 20
