"""Results of `erf compute` on the terminal and as a picture."""

from collections.abc import Sequence
from pathlib import Path

from erf.cli.console import say, warn
from erf.cli.job import MOST_DRAWN, Job
from erf.cli.remedies import translate
from erf.cli.tables import print_growth, print_subsets
from erf.results import ERF, SHIPPED, unit_labels
from erf.uncertainty import StoppingRule


def report(erfs: Sequence[ERF], written: Sequence[Path], job: Job) -> None:
    """Print the results, the files that were written, and warnings about images."""
    last = erfs[-1]
    shown = last.provenance.shown_definition
    if len(erfs) == 1:
        print_subsets(last, shown)
    else:
        print_growth(erfs, shown)
    if job.settings.until is not None:
        _report_precision(last, job.settings.until)
    if len(erfs) > MOST_DRAWN and job.picture is not None:
        warn(f"{len(erfs)} fields are too many for one picture; `erf plot` draws some of them")
    say("written: " + ", ".join(map(str, written)))
    if last.provenance.weights.startswith(SHIPPED):
        say("Weights: those of the package, trained on phantoms; --weights none gives the untrained network.")
    _report_images(last)


def draw(erfs: Sequence[ERF], picture: Path) -> Path:
    """Draw the results of one run: growth over layers, or maps side by side."""
    from erf.plotting import plot

    shown = erfs[-1].provenance.shown_definition
    several = len({erf.provenance.layer for erf in erfs}) == len(erfs) > 1
    layout = "growth" if several and shown != "signed" else "overview"
    labels = unit_labels([erf.provenance for erf in erfs]) if len(erfs) > 1 and not several else None
    return plot(erfs, picture, labels=labels, definition=shown, layout=layout, overwrite=True)


def _report_images(erf: ERF) -> None:
    """Print warnings about single images and list the skipped ones."""
    for remark in erf.remarks:
        warn(translate(remark))
    if erf.failures:
        warn(f"{len(erf.failures)} of {len(erf.images)} images were skipped:")
        for record in erf.failures:
            warn(f"  {translate(record.message)}")


def _report_precision(erf: ERF, rule: StoppingRule) -> None:
    from erf.comparison.formats import format_interval
    from erf.measures import MEASURES, observe

    measure = MEASURES[rule.measure]
    interval = rule.estimate(observe(erf, definition=erf.provenance.shown_definition))
    share = interval.half_width / abs(interval.value)
    words = f"{measure.name} {format_interval(interval, measure.factor)} {measure.unit}, ± {100 * share:.1f} %"
    say(f"after {erf.count()} images: {words}")
    if not rule.is_reached(interval):
        warn(f"{100 * rule.relative:g} % was asked for, which these images do not reach; ask for more with -n")
