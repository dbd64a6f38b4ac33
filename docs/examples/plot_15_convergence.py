"""
How many images are enough?
===========================

Measures settle as images are added. The band is the 95 % interval over images.
"""

import erf

result = erf.compute("gmic", n=40, size=(208, 160), layer="stage3", progress=False)
result.plot(layout="convergence")

# %%
# The argument ``until`` stops a run as soon as a measure is known well enough.

enough = erf.StoppingRule(0.1, "r50")
short = erf.compute("gmic", n=200, size=(208, 160), layer="stage3", until=enough, progress=False)
short.count(), short.measure("r50")
