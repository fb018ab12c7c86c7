"""What every room uses: checks, errors, files, dense linear algebra, threads, progress."""
