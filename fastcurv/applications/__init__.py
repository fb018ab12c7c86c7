"""Applications of the core: what is built on products, spectra and verdicts. The core imports
nothing from here; `make core` runs without this folder.

Applications use the public names of `fastcurv`, and those without an underscore of these modules:

- arguments, messages and files: ``common.checks``, ``common.errors``, ``common.files``,
  ``common.optional``, ``common.progress``, ``common.read_only``, ``common.runtime``,
  ``common.sentences``, ``network.arguments``;
- numbers: ``_engine``, ``common.linalg``, ``common.vectors``;
- networks and rows: ``structure.parameters``, ``structure.saturation``, ``structure.symmetry``,
  ``structure.tables``, ``structure.user_functions``, ``network.mlp``, ``network.objective``,
  ``network.factor``, ``network.input_derivatives``, ``network.row_views``, ``network.save``;
- objectives of any kind, and what is proved about them: ``common.objectives``,
  ``common.protocols``;
- spectra: ``spectrum.density``, ``spectrum.density_curve``, ``spectrum.draw``, ``spectrum.eigsh``,
  ``spectrum.results``;
- verdicts and runs: ``critical.classify``, ``critical.nearness``, ``critical.report``,
  ``optimize.escape``, ``optimize.find``, ``optimize.minimize``,
  ``optimize.problem``, ``optimize.run``, ``optimize.steps``.

A module enters this list if an application needs it. A change of a name that one of these modules
defines is a change of both wings; other modules of the core may change alone.
"""
