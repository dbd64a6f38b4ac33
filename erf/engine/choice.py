"""Choice of the way in which a run computes, before its first image."""

from collections.abc import Iterator
from itertools import islice

from erf.engine.batches import BatchGradients, LocatedSample
from erf.engine.memory import activation_bytes
from erf.engine.plan import Plan
from erf.engine.self_check import Choice, choose_for_image, unchecked
from erf.errors import CheckpointError, NoGradientError
from erf.gradients.way import PLAIN, Way
from erf.images import Failure, ImageSet
from erf.network.devices import available_memory, deterministic_algorithms, is_memory_error
from erf.profiling import stage
from erf.storage.checkpoint import Saved

_TRIED = 4
"""Maximum number of images the self-check tries until one has a finite gradient."""


def choose_for_run(plan: Plan) -> Choice:
    """Choose the way of computing by comparing the fastest with the plain one on the first usable image."""
    fast = plan.fastest()
    return _checked(plan, fast) if plan.settings.self_check else unchecked(fast, "not asked for")


def chosen_before(saved: Saved) -> Choice:
    """Return the way of computing of the run that is resumed; raises `CheckpointError` if it is not known."""
    try:
        return Choice(Way(**saved.identity["way"]), saved.provenance[0].self_check)
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            "the progress is of another version, which does not say how it computed",
            remedy="start again with `overwrite=True`",
        ) from error


def _checked(plan: Plan, fast: Way) -> Choice:
    if fast == PLAIN:
        return unchecked(fast, "computed in the plain way")
    needed, free = _needed(plan, fast), available_memory(plan.device)
    if needed > free:
        words = f"as the whole image takes {needed / 1e9:.1f} GB in the plain way and {free / 1e9:.1f} GB are free"
        return unchecked(fast, words, warns=True)
    gradients = plan.gradients(fast)
    try:
        with stage("check"), deterministic_algorithms(plan.settings.deterministic):
            choices = (
                choose_for_image(fast, gradients, plan.passes, item) for item in _samples(plan.images, gradients)
            )
            choice = next((choice for choice in islice(choices, _TRIED) if choice is not None), None)
    except NoGradientError:
        return unchecked(fast, "no gradient arrives")  # the run reports where it ends
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        return unchecked(fast, "as memory ran out in the plain way", warns=True)
    return choice or unchecked(fast, "no image has a finite gradient")


def _needed(plan: Plan, fast: Way) -> int:
    """Return the bytes of the run, of gradients on whole images, and of the whole-image maps that autograd keeps."""
    whole = fast.batch_size * plan.memory.gradients(plan.passes.whole)
    run = plan.memory.needed(plan.passes.in_way(fast), plan.settings.batch_size or 1)
    return run + 2 * whole + activation_bytes(plan.units)


def _samples(images: ImageSet, gradients: BatchGradients) -> Iterator[LocatedSample]:
    """Yield the usable images in the order of the run."""
    for sample in map(images.sample, images.images):
        item = sample if isinstance(sample, Failure) else gradients.locate(sample)
        if not isinstance(item, Failure):
            yield item
