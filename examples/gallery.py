"""Run every example and build one page to teach from, in the order of the lectures' story: each
claim with its picture, its sentence, its code and what it does not show. ``make examples`` does it.

python examples/gallery.py [--quick | --full] [--slides] [--out figures] [--only NAME ...]
"""

import argparse
import base64
import html
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import notebooks
import playground
from common import SCALES, full_times
from story import (
    FIRST_PICTURES,
    FROM_LECTURES,
    MEMBERS,
    ORDER,
    STORY,
    anchor,
    claim,
    corrections,
    docstring,
    lectures,
    members,
)

from fastcurv.applications.cli.report import Report

FOLDER = Path(__file__).parent
# Networks this small gain nothing from a second thread, and waiting threads take time of their own.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "FASTCURV_NUM_THREADS": "1"}
CONTENTS = "<!-- contents -->"


class Lectures(Report):
    """A report of chapters and examples, with a table of contents, pictures from files, and
    code.
    """

    def __init__(self, title, folder):
        super().__init__(title)
        self.folder = folder  # where the page is written
        self.listed = []  # lines of the list of contents
        self.small = []  # the pictures with which the page begins, as links to their examples

    def contents(self):
        return self.add_markup(CONTENTS)

    def chapter(self, heading):
        words = html.escape(heading, quote=False)
        self.listed.append(f"</ul><h3>{words}</h3><ul>")
        self.add_markup(f"<h2>{words}</h2>")
        if heading in notebooks.CHAPTERS:
            self.link(f"{notebooks.file_name(heading)}.ipynb", notebooks.INVITATION)
        return self

    def example(self, name):
        """Add the claim of an example as a heading, whose address is the name of the example."""
        words, at = to_html_text(claim(name)), anchor(name)
        self.listed.append(f'<li><a href="#{at}">{words}</a></li>')
        self.add_markup(f'<h3 id="{at}">{words}</h3>')
        for lecture in lectures(name):
            self.add_markup(f'<p class="soft">Lecture: {html.escape(lecture)}</p>')
        return self

    def correction(self, name, words):
        link = f'<a href="#{anchor(name)}">The picture</a>'
        return self.add_markup(f"<p>{to_html_text(words)} {link}</p>")

    def link(self, target, words):
        return self.add_markup(f'<p><a href="{target}">{html.escape(words)}</a></p>')

    def picture(self, path, caption):
        data, name = base64.b64encode(path.read_bytes()).decode(), html.escape(caption)
        shown = f'<img alt="{name}" src="data:image/png;base64,{data}">'
        if path.stem in FIRST_PICTURES:
            small = shown.replace("<img", '<img width="300"')
            self.small.append(f'<a href="#{anchor(path.stem)}">{small}</a>')
        text = f"<figcaption>{html.escape(caption, quote=False)}</figcaption>"
        return self.add_markup(f'<figure class="image">{shown}{text}</figure>')

    def add_source(self, path, seconds):
        """Link to the code of an example, and state its processor time."""
        target = os.path.relpath(path, self.folder)
        link = f'<a href="{target}"><code>examples/{path.name}</code></a>'
        return self.add_markup(f"<p>{link}, {seconds:.0f} s of a processor</p>")

    def to_html(self):
        small = f"<p>{' '.join(self.small)}</p>"
        contents = f"{small}<nav><ul>{''.join(self.listed)}</ul></nav>"
        return super().to_html().replace(CONTENTS, contents)


def main():
    args = parse_arguments()
    began = time.perf_counter()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    playground.write(args.out)
    notebooks.write(args.out)
    wanted = args.only or ORDER
    page, failed, spent = first_page(wanted, args.out), [], {}
    for heading, names in STORY.items():
        chosen = [name for name in names if name in wanted]
        if chosen:
            page.chapter(heading)
        for name in chosen:
            start = processor_time()
            print(name, flush=True)  # before it runs: some take minutes
            # A process each, so that one cannot disturb the next and memory is given back.
            command = [sys.executable, str(FOLDER / f"{name}.py"), "--out", args.out]
            command += [] if args.scale == "normal" else [f"--{args.scale}"]
            command += ["--slides"] * args.slides
            env = ONE_THREAD | os.environ
            run = subprocess.run(command, capture_output=True, text=True, env=env)
            seconds = processor_time() - start
            if run.returncode:
                failed.append(name)
                print(f"{name}: FAILED\n{run.stderr}", file=sys.stderr)
                continue
            sentence = run.stdout.strip().splitlines()[-2]
            print(f"  {seconds:.0f} s. {sentence}", flush=True)
            spent[name] = seconds
            add_example(page, name, Path(args.out) / f"{name}.png", sentence, seconds)
            save_sentence(Path(args.out) / "captions.json", name, sentence)
    if spent:
        longest = max(spent, key=spent.get)
        words = (
            f"{sum(spent.values()):.0f} s of processor time, the longest {longest} with "
            f"{spent[longest]:.0f} s"
        )
        page.add_text(f"All of this took {words}.")
        seconds = time.perf_counter() - began
        print(f"{len(spent)} examples in {words}; {seconds:.0f} s in all")
    print(f"gallery: {page.write(Path(args.out) / 'index.html')}")
    return 1 if failed else 0


def first_page(names, folder="."):
    """Return the page with the introduction before the examples, to be written in `folder`."""
    page = Lectures("The lectures, seen", folder)
    page.add_text(
        "Claims about the loss surfaces of networks, tested on real networks, each with a "
        f"picture and a number. {FROM_LECTURES} The heading of an example states what was found, "
        "even if the lecture states something else."
    )
    page.link(playground.PAGE_NAME, "Playground: train a small network and see all its eigenvalues")
    page.contents().add_section("Claims that are wrong, or half right")
    for name in names:
        for paragraph in corrections(name):
            page.correction(name, paragraph)
    return page


def add_example(page, name, picture, sentence, seconds):
    """Add an example: its claim, its picture, the text of its docstring, and its code."""
    page.example(name).picture(picture, sentence)
    for paragraph in docstring(name)[1:]:
        page.add_text(paragraph)
    if name in MEMBERS:
        page.add_text(members(name))
    page.add_source(FOLDER / f"{name}.py", seconds)


def processor_time():
    """Return the processor time of all examples so far in seconds, which depends little on other
    work.
    """
    times = os.times()
    return times.children_user + times.children_system


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=full_times())
    size = parser.add_mutually_exclusive_group()
    words = {
        "quick": "seconds each",
        "normal": "at most three minutes each (default)",
        "full": "the size of a paper",
    }
    for scale in SCALES:
        size.add_argument(
            f"--{scale}", dest="scale", action="store_const", const=scale, help=words[scale]
        )
    parser.set_defaults(scale="normal")
    parser.add_argument(
        "--slides", action="store_true", help="a slide of each picture too, as SVG and PDF"
    )
    parser.add_argument("--out", default="figures", help="folder (default %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=ORDER, metavar="NAME", help=f"some of: {', '.join(ORDER)}"
    )
    return parser.parse_args()


def save_sentence(path, name, sentence):
    """Write the sentence of an example next to its picture, for the page of the site."""
    captions = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(captions | {name: sentence}, indent=1))


def to_html_text(text):
    """Return text as HTML, with text in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


if __name__ == "__main__":
    sys.exit(main())
