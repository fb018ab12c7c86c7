"""Networks of other libraries, read from and written to theirs."""
