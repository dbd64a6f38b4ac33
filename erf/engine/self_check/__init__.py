"""Self-check: comparison of the fast way of computing gradients with the plain one on the first image of a run.

A way is used only if it gives the same gradient as the plain way: one image, contiguous memory, the whole image, the
library's backward passes. Both differ by rounding. Where they differ by more than rounding usually explains, its
possible effect is measured: inputs and parameters are perturbed by a few units in the last place, and each pixel may
differ by a small multiple of the change this makes to the plain gradient around it. Ties of maxima over a constant
background could hide a defect from that test, so it is repeated on the image with a texture that leaves no ties. Where
a unit of the first image sees a blank background, both ways are compared on the image with noise instead.
"""

from erf.engine.self_check.choosing import Choice, choose_for_image, unchecked

__all__ = ["Choice", "choose_for_image", "unchecked"]
