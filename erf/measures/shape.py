"""Measures of shape: Gaussian fits, anisotropy, concentration; conventions as in `erf.measures.size`."""

import numpy as np

from erf.measures.grid import SMOOTHED_POINTS, smooth
from erf.results.grid import Array, Grid

_STEPS = 60
_ROUNDS = 12


def fit_gaussian(positions: Array, values: Array, widths: Array | None = None) -> tuple[Array, Array, Array, Array]:
    """Least-squares fit of `a exp(-(x - mu)² / (2 sigma²))` to values (..., L): (a, mu, sigma, squared residuals).

    Levenberg-Marquardt, for a whole batch at once. `widths` (L,) are the weights of the positions.
    For a single position, as across a signal, there is no fit, and all results are NaN.
    """
    if len(positions) < 2:
        nothing = np.full(values.shape[:-1], np.nan)
        return nothing, nothing, nothing, nothing
    flat = values.reshape(-1, values.shape[-1])
    largest = flat.max(-1, keepdims=True)
    scale = np.where(largest > 0, largest, 1)
    flat, step = flat / scale, float(np.diff(positions).min())
    counted = np.full(len(positions), step) if widths is None else widths
    fit = _first_guess(positions, flat, counted, step)
    damping = np.full(len(flat), 1e-3)
    error = _squares(positions, flat, fit, counted)
    for _ in range(_STEPS):
        trial = fit + _marquardt_step(positions, flat, fit, counted, damping)
        trial[:, 2] = np.clip(np.abs(trial[:, 2]), step / 4, 10 * np.ptp(positions))
        trial_error = _squares(positions, flat, trial, counted)
        better = trial_error < error
        settled = (np.abs(error - trial_error) <= 1e-12 * error) | (error == 0)
        fit[better], error[better] = trial[better], trial_error[better]
        damping = np.where(better, damping / 5, np.minimum(damping * 4, 1e12))
        if settled.all():
            break
    batch = values.shape[:-1]
    fit[:, 0] *= scale[:, 0]
    a, mu, sigma = (fit[:, index].reshape(batch) for index in range(3))
    return a, mu, sigma, (error * scale[:, 0] ** 2).reshape(batch)


def _first_guess(positions: Array, values: Array, widths: Array, step: float) -> Array:
    """Initial (a, mu, sigma) from the largest value, its position, and the area under the curve."""
    top = values.max(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.clip(values @ widths / (top * np.sqrt(2 * np.pi)), step / 2, np.ptp(positions))
    return np.stack([top, positions[values.argmax(-1)], np.where(np.isfinite(spread), spread, step)], axis=-1)


def _squares(positions: Array, values: Array, fit: Array, widths: Array) -> Array:
    return np.asarray((_gaussian(positions, fit) - values) ** 2 @ widths)


def _gaussian(positions: Array, fit: Array) -> Array:
    a, mu, sigma = (fit[:, index, None] for index in range(3))
    return np.asarray(a * np.exp(-((positions - mu) ** 2) / (2 * sigma**2)))


def _marquardt_step(positions: Array, values: Array, fit: Array, widths: Array, damping: Array) -> Array:
    a, mu, sigma = (fit[:, index, None] for index in range(3))
    away = (positions - mu) / sigma
    bell = np.exp(-(away**2) / 2)
    slopes = np.stack([bell, a * bell * away / sigma, a * bell * away**2 / sigma], axis=-2)
    residual = values - a * bell
    counted = slopes * widths
    normal = counted @ slopes.swapaxes(-1, -2)
    diagonal = np.einsum("bpp->bp", normal)
    diagonal *= 1 + damping[:, None]
    diagonal += 1e-12 * diagonal.max(-1, keepdims=True) + 1e-30  # keeps the matrix regular for a curve of zeros
    return np.linalg.solve(normal, counted @ residual[..., None])[..., 0]


def gaussian_curve(curve: Array, stretch: int, top: int) -> tuple[Array, Array]:
    """(sigma in pixels, R²) of the Gaussian that fits a curve (..., L) best, on means over stretches of pixels.

    R², at most 1, is one minus the squared residuals over the squared deviations from the mean; a straight line fits as
    well at 0. The fit is to a part around pixel `top`; beyond, many widths away, the Gaussian is nothing.
    """
    positions, means = smooth(curve, stretch)
    first = int(np.clip(top // stretch - SMOOTHED_POINTS // 2, 0, max(0, len(positions) - SMOOTHED_POINTS)))
    part = slice(first, first + SMOOTHED_POINTS)
    _, _, sigma, error = fit_gaussian(positions[part], means[..., part], np.ones(len(positions[part])))
    beyond = (means**2).sum(-1) - (means[..., part] ** 2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1 - (error + beyond) / ((means - means.mean(-1, keepdims=True)) ** 2).sum(-1)
    return sigma, r2


def gaussian_map(small: Array, grid: Grid) -> tuple[Array, Array, Array]:
    """(sigma_y, sigma_x, R²) of the Gaussian with axes along the image that fits a map best.

    Of `a g(y) h(x)` with one factor fixed, the best other factor is a fit to a curve; both are fitted in turn. Blocks
    count with their area.
    """
    (y, x), density = grid.middles, small / grid.areas
    tall, wide = (np.diff(edges) for edges in grid.edges)
    curve_y = density @ wide
    for _ in range(_ROUNDS):
        _, mu_y, sigma_y, _ = fit_gaussian(y, curve_y, tall)
        along_y = _unit_bell(y, mu_y, sigma_y, tall)
        _, mu_x, sigma_x, _ = fit_gaussian(x, np.einsum("...hw,...h->...w", density, along_y * tall), wide)
        along_x = _unit_bell(x, mu_x, sigma_x, wide)
        curve_y = np.einsum("...hw,...w->...h", density, along_x * wide)
    explained = (curve_y * along_y) @ tall
    squares = (density**2 * grid.areas).sum((-2, -1))
    deviations = squares - small.sum((-2, -1)) ** 2 / grid.areas.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1 - (squares - explained**2) / deviations
    return sigma_y, sigma_x, r2


def _unit_bell(positions: Array, mu: Array, sigma: Array, widths: Array) -> Array:
    bell = np.exp(-((positions - mu[..., None]) ** 2) / (2 * sigma[..., None] ** 2))
    return np.asarray(bell / np.sqrt(bell**2 @ widths)[..., None])


def covariance(across_rows: Array, across_columns: Array, products: Array, center: tuple[float, float]) -> Array:
    """Covariance (..., 2, 2) of the mass, along y and x in px²: variances from the curves, the rest from cross moments.

    `products` (...,) are sums of mass times its distances from the center (y, x).
    """
    out, means = np.empty((*products.shape, 2, 2)), np.ones(products.shape)
    for axis, (curve, middle) in enumerate(zip((across_columns, across_rows), center, strict=True)):
        places = np.arange(curve.shape[-1]) - middle
        with np.errstate(invalid="ignore", divide="ignore"):
            p = curve / curve.sum(-1, keepdims=True)
        mean = p @ places
        out[..., axis, axis] = (p * (places - mean[..., None]) ** 2).sum(-1)
        means = means * mean
    with np.errstate(invalid="ignore", divide="ignore"):
        out[..., 0, 1] = out[..., 1, 0] = products / across_rows.sum(-1) - means
    return out


def anisotropy(covariances: Array) -> Array:
    """Ratio of the longer to the shorter axis of the ellipse of a covariance (..., 2, 2): 1 for round."""
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.linalg.eigvalsh(np.where(np.isfinite(covariances), covariances, 0))
        return np.asarray(np.sqrt(values[..., 1] / np.maximum(values[..., 0], 0)))


def orientation(covariances: Array) -> Array:
    """Angle of the longer axis from the x axis, in degrees, -90 to 90, positive downwards like rows."""
    yy, xx, yx = covariances[..., 0, 0], covariances[..., 1, 1], covariances[..., 0, 1]
    return np.asarray(np.degrees(np.arctan2(2 * yx, xx - yy)) / 2)


def gini(small: Array, grid: Grid) -> Array:
    """Gini coefficient of the mass over the image: 0 where every pixel has the same, towards 1 where one has all.

    As in the Diffusion Index 100 (1 - Gini) of Gu, Dong. Interpreting super-resolution networks with local attribution
    maps. CVPR 2021. Blocks count with their area.
    """
    area = np.broadcast_to(grid.areas, small.shape).reshape(*small.shape[:-2], -1)
    mass = small.reshape(area.shape)
    order = np.argsort(mass / area, axis=-1)
    mass, area = np.take_along_axis(mass, order, -1), np.take_along_axis(area, order, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        held = np.cumsum(mass, -1) / mass.sum(-1, keepdims=True)
    covered = area / area.sum(-1, keepdims=True)
    before = np.concatenate([np.zeros((*held.shape[:-1], 1)), held[..., :-1]], axis=-1)
    return np.asarray(1 - (covered * (held + before)).sum(-1))  # twice the area under the Lorenz curve, by trapezia
