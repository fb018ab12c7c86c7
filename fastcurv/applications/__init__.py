"""Applications of the core: what is built on products, spectra and verdicts. The core imports
nothing from here; `make core` runs without this folder.
"""
