"""Computation of gradients batch by batch, in batches that fit into memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from erf.engine.batches import BatchGradients, ImageGradients, LocatedSample
from erf.engine.diagnosis import GradientDiagnosis
from erf.errors import NoGradientError
from erf.network.devices import is_memory_error, synchronise
from erf.profiling import stage


@dataclass
class BatchRunner:
    """Computes the gradients of batches; one image at a time once memory has run out."""

    gradients: BatchGradients
    diagnosis: GradientDiagnosis
    batch_size: int
    """Images per batch."""

    def compute(self, batch: Sequence[LocatedSample]) -> list[ImageGradients]:
        """Return the gradients of each image.

        Raises:
            LayerError: no gradient reaches the input; the error tells where it ends.
        """
        if len(batch) not in (1, self.batch_size):
            # The self-check covered only these batch sizes.
            return [gradients for item in batch for gradients in self.compute([item])]
        try:
            self.diagnosis.test_channels(batch[0])
            with stage("pass"):
                gradients = self.gradients.of(batch)
                synchronise(self.gradients.device)
                return gradients
        except NoGradientError as error:
            raise self.diagnosis.located(error, batch[0].sample) from error
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not is_memory_error(error):
                raise
        self.batch_size = 1  # from now on
        return self.compute(batch)
