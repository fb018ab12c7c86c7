"""Look up which tests run a line, in the data that `make coverage` collects with contexts."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

SKIPPED_TESTS = ("ctrl_c", "interrupt", "killed", "n_threads", "exit", "fork", "drift", "takes")


class Covering:
    """The coverage data of the suite, which record the test functions that ran each line."""

    def __init__(self, data: Path) -> None:
        self.base = sqlite3.connect(f"file:{data}?mode=ro", uri=True)
        self.files = dict(self.base.execute("select path, id from file"))
        self.names = dict(self.base.execute("select id, context from context where context != ''"))
        self.all = {self._node(context) for context in self.names.values()}
        counts = "select context_id, count(*) from arc group by context_id"
        self.sizes = Counter(dict(self.base.execute(counts)))

    def tests(self, path: str, lines: range, function: range) -> list[str]:
        """Return the names, as in pytest, of the tests that run one of the lines of a file. Tests
        of the file's own subpackage come first, then those that run the fewest lines. If no test
        runs these lines, the result is that for the lines of `function`, or else for the whole
        file.
        """
        ids = [number for name, number in self.files.items() if name.endswith("/" + path)]
        for part in (lines, function, range(1, 10**6)):
            found = {context for number in ids for context in self._contexts(number, part)}
            named = [c for c in found if not any(word in self.names[c] for word in SKIPPED_TESTS)]
            if named:
                break
        else:
            return []
        subpackage = "tests." + path.split("/")[1].removesuffix(".py") + "."
        named.sort(
            key=lambda c: (not self.names[c].startswith(subpackage), self.sizes[c], self.names[c])
        )
        return [self._node(self.names[c]) for c in named]

    def _contexts(self, file: int, part: range) -> list[int]:
        """Return the ids of the test contexts in which one of the lines `part` of a file ran. Lines
        that run at import have no context.
        """
        if not part:
            return []
        asked = (
            "select distinct context_id from arc where file_id = ? and "
            "(abs(tono) between ? and ? or abs(fromno) between ? and ?)"
        )
        ends = (part.start, part.stop - 1)
        return [c for (c,) in self.base.execute(asked, (file, *ends, *ends)) if c in self.names]

    @staticmethod
    def _node(context: str) -> str:
        module, _, test = context.rpartition(".")
        return f"{module.replace('.', '/')}.py::{test}"
