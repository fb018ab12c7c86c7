"""Choice of the layout (samples as rows, or transposed) and of the number of panels. The choice
depends on sizes only.
"""


cdef enum:
    # Maximum bytes of parameters of panel-parallel plans in row-major layout.
    PANEL_PARALLEL_MAX_BYTES = 1 << 18
    # Maximum flops of a product that runs on one thread, because waking a second one costs more
    # time than it saves.
    SERIAL_MAX_FLOPS = 3000000
    # SERIAL_MAX_FLOPS for the transposed layout, in which a product is a single job of the thread
    # team and nothing is packed beforehand.
    SERIAL_TRANSPOSED_MAX_FLOPS = 300000
    # Bytes of state that remain in the L3 cache from one product to the next. The state of larger
    # plans is read from memory.
    L3_BYTES = 24 << 20
    # Bytes of L3 cache available to two cores of a server whose other cores are busy. For less
    # state than this, prefetching the next panel costs more time than the cache misses.
    L3_SHARE_BYTES = 10 << 20
