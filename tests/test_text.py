"""Texts of others: whatever they hold, they come out as they are written, on every way out."""

import csv
import html
import io
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from erf.cli.tables import print_table
from erf.plotting.saving import save_figure
from erf.text import for_csv, for_html, for_latex, for_markdown, for_script, from_csv, one_line, printable

ROOT = Path(__file__).parent.parent
ESCAPE = "\x1b]0;owned\x07\x1b[2J"
MARKUP = "[/red] [bold]a[link=file:///etc/passwd]b"
BACKWARDS = "gpj\u202eexe"


@given(st.text())
def test_nothing_hidden_is_printed(text: str) -> None:
    shown = printable(text)
    assert all(sign.isprintable() or sign == "\n" or sign.isspace() for sign in shown)
    assert not set(shown) & set("\x1b\r\t\x85\u2028")
    assert shown.count("\n") == text.count("\n")
    shown.encode()  # no lone surrogates
    assert "\n" not in one_line(text)


def test_hidden_signs_are_named() -> None:
    assert printable("a\x1b[0m\u202eb\udcff\x9b") == "a\\x1b[0m\\u202eb\\udcff\\x9b"
    assert printable("Grüße 乳腺 √ – ×") == "Grüße 乳腺 √ – ×"


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "＝1", " =1", "'=1", "-inf", "+", "-1e"]
)
def test_formulas_are_texts_in_a_csv(text: str) -> None:
    assert str(for_csv(text)).startswith("'")
    assert from_csv(str(for_csv(text))) == text


@pytest.mark.parametrize("value", ["-2", "+3.5e-7", "-.5", "a=b", "x", "", -2.5, None, True])
def test_numbers_and_other_texts_stay_in_a_csv(value: object) -> None:
    assert for_csv(value) == value


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_a_csv_gives_texts_back(text: str) -> None:
    file = io.StringIO()
    csv.writer(file).writerow([for_csv(text), "end"])
    (row,) = csv.reader(io.StringIO(file.getvalue()))
    assert [from_csv(row[0]), row[1]] == [text, "end"]


def test_markdown_stays_a_table() -> None:
    assert for_markdown("a|b\n| c") == "a\\|b \\| c"
    assert for_markdown("[x](http://a) ![y](z) <img src=x> `c` *d* _e_ &lt;") == (
        "[x]\\(http://a) \\![y]\\(z) \\<img src=x> \\`c\\` \\*d\\* \\_e\\_ \\&lt;"
    )
    assert for_markdown("left_right_tv 412 [401, 420], p < 0.001") == "left_right_tv 412 [401, 420], p < 0.001"


def test_latex_reads_no_commands() -> None:
    assert for_latex(r"\input{/etc/passwd} $x$ a_b 5%") == (r"\textbackslash{}input\{/etc/passwd\} \$x\$ a\_b 5\%")
    assert for_latex("[2cm]") == "{}[2cm]"  # not the space after a line break


@given(st.text())
def test_pages_hold_texts(text: str) -> None:
    assert "<" not in for_html(text)
    assert html.unescape(for_html(text)) == printable(text)
    assert not set(for_script(text)) & set("<>&")


@pytest.mark.parametrize("text", [r"$\frac{$", "$a$", r"\$ $x$", "$^$", "$" * 4, ESCAPE])
def test_titles_are_no_formulas(text: str, tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 2))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot([1, 10], [1, 100], label=text)
    axis.set_yscale("log")
    axis.set_title(text)
    axis.annotate(text, (1, 1))
    axis.legend()
    figure.suptitle(text)
    with mpl.rc_context({"svg.fonttype": "none"}):
        save_figure(figure, tmp_path / "a.svg")
    page = (tmp_path / "a.svg").read_text()
    assert page.count(f">{html.escape(printable(text), quote=False)}</text>") == 4
    assert "10" in page


def test_tables_show_markup_and_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(MARKUP, [MARKUP, ESCAPE], [[MARKUP, BACKWARDS]], left=2)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert shown.count("[/red]") == 3
    assert "gpj\\u202eexe" in shown


SHOWN = "from erf.cli.tables import print_table\nfrom erf.cli.console import reported_errors, say\n"
SHOWN += "import typer\n@typer.run\ndef main() -> None:\n    with reported_errors():\n"
SHOWN += "        for number in range(2000):\n            say(f'{number} √ line')\n"
SHOWN += "        print_table('title', ['a'], [['b']])\n"


@pytest.mark.parametrize(("to", "code", "words"), [("/dev/full", 2, "No space left"), ("closed", 141, "")])
def test_output_that_takes_nothing_ends_in_a_line(to: str, code: int, words: str) -> None:
    if to != "closed" and not Path(to).is_char_device():
        pytest.skip("no /dev/full here")
    out = os.open(to, os.O_WRONLY) if to != "closed" else _closed_pipe()
    done = subprocess.run(
        [sys.executable, "-c", SHOWN],
        check=False,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
    )
    os.close(out)
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == (1 if words else 0)


def _closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing
