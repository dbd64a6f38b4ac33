"""How Gaussian, how round, how concentrated a receptive field is; conventions as in `erf.measures.size`."""

import numpy as np

from erf.measures.grid import Array, Grid, smooth, stretch_length

_STEPS = 60
_ROUNDS = 12


def fit_gaussian(positions: Array, values: Array) -> tuple[Array, Array, Array, Array]:
    """Least-squares fit of `a exp(-(x - mu)² / (2 sigma²))` to values (..., L): (a, mu, sigma, R²).

    Levenberg-Marquardt, for all of a batch at once. R², at most 1, is one minus the squared residuals over the squared
    deviations from the mean; a straight line fits as well at 0.
    """
    flat = values.reshape(-1, values.shape[-1])
    largest = flat.max(-1, keepdims=True)
    scale = np.where(largest > 0, largest, 1)
    flat = flat / scale
    step = float(np.median(np.diff(positions)))
    top = flat.max(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.clip(flat.sum(-1) * step / (top * np.sqrt(2 * np.pi)), step / 2, np.ptp(positions))
    fit = np.stack([top, positions[flat.argmax(-1)], np.where(np.isfinite(spread), spread, step)], axis=-1)
    damping = np.full(len(flat), 1e-3)
    error = ((_gaussian(positions, fit) - flat) ** 2).sum(-1)
    for _ in range(_STEPS):
        trial = fit + _marquardt_step(positions, flat, fit, damping)
        trial[:, 2] = np.clip(np.abs(trial[:, 2]), step / 4, 10 * np.ptp(positions))
        trial_error = ((_gaussian(positions, trial) - flat) ** 2).sum(-1)
        better = trial_error < error
        settled = (np.abs(error - trial_error) <= 1e-12 * error) | (error == 0)
        fit[better], error[better] = trial[better], trial_error[better]
        damping = np.where(better, damping / 5, np.minimum(damping * 4, 1e12))
        if settled.all():
            break
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1 - error / ((flat - flat.mean(-1, keepdims=True)) ** 2).sum(-1)
    batch = values.shape[:-1]
    fit[:, 0] *= scale[:, 0]
    a, mu, sigma = (fit[:, index].reshape(batch) for index in range(3))
    return a, mu, sigma, r2.reshape(batch)


def _gaussian(positions: Array, fit: Array) -> Array:
    a, mu, sigma = (fit[:, index, None] for index in range(3))
    return np.asarray(a * np.exp(-((positions - mu) ** 2) / (2 * sigma**2)))


def _marquardt_step(positions: Array, values: Array, fit: Array, damping: Array) -> Array:
    a, mu, sigma = (fit[:, index, None] for index in range(3))
    away = (positions - mu) / sigma
    bell = np.exp(-(away**2) / 2)
    slopes = np.stack([bell, a * bell * away / sigma, a * bell * away**2 / sigma], axis=-2)
    residual = values - a * bell
    normal = slopes @ slopes.swapaxes(-1, -2)
    diagonal = np.einsum("bpp->bp", normal)
    diagonal *= 1 + damping[:, None]
    diagonal += 1e-12 * diagonal.max(-1, keepdims=True) + 1e-30  # of a curve of zeros, nothing is to be found
    return np.linalg.solve(normal, slopes @ residual[..., None])[..., 0]


def gaussian_curve(curve: Array) -> tuple[Array, Array]:
    """(sigma in pixels, R²) of the Gaussian that fits a curve (..., L) best, on means over stretches of pixels."""
    positions, means = smooth(curve, stretch_length(curve.shape[-1]))
    _, _, sigma, r2 = fit_gaussian(positions, means)
    return sigma, r2


def gaussian_map(small: Array, grid: Grid) -> tuple[Array, Array, Array]:
    """(sigma_y, sigma_x, R²) of the Gaussian with axes along the image that fits a map best.

    Of `a g(y) h(x)` with one factor fixed, the best other factor is a fit to a curve; both are fitted in turn.
    """
    (y, x), density = grid.middles, small / grid.areas
    curve_y = density.sum(-1)
    for _ in range(_ROUNDS):
        _, mu_y, sigma_y, _ = fit_gaussian(y, curve_y)
        along_y = _unit_bell(y, mu_y, sigma_y)
        _, mu_x, sigma_x, _ = fit_gaussian(x, np.einsum("...hw,...h->...w", density, along_y))
        along_x = _unit_bell(x, mu_x, sigma_x)
        curve_y = np.einsum("...hw,...w->...h", density, along_x)
    explained = np.einsum("...h,...h->...", curve_y, along_y) ** 2
    squares = (density**2).sum((-2, -1))
    deviations = squares - density.mean((-2, -1)) ** 2 * np.prod(density.shape[-2:])
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1 - (squares - explained) / deviations
    return sigma_y, sigma_x, r2


def _unit_bell(positions: Array, mu: Array, sigma: Array) -> Array:
    bell = np.exp(-((positions - mu[..., None]) ** 2) / (2 * sigma[..., None] ** 2))
    return np.asarray(bell / np.linalg.norm(bell, axis=-1, keepdims=True))


def covariance(small: Array, across_rows: Array, across_columns: Array, grid: Grid) -> Array:
    """Covariance (..., 2, 2) of the mass, in px²: variances along y and x from the curves, the rest from the map."""
    out = np.empty((*small.shape[:-2], 2, 2))
    for axis, curve in enumerate((across_columns, across_rows)):
        places = np.arange(curve.shape[-1])
        with np.errstate(invalid="ignore", divide="ignore"):
            p = curve / curve.sum(-1, keepdims=True)
        mean = p @ places
        out[..., axis, axis] = (p * (places - mean[..., None]) ** 2).sum(-1)
    y, x = grid.middles
    with np.errstate(invalid="ignore", divide="ignore"):
        p = small / small.sum((-2, -1), keepdims=True)
    mean_y, mean_x = p.sum(-1) @ y, p.sum(-2) @ x
    mixed = np.einsum("...hw,h,w->...", p, y, x) - mean_y * mean_x
    out[..., 0, 1] = out[..., 1, 0] = mixed
    return out


def anisotropy(covariances: Array) -> Array:
    """Ratio of the longer to the shorter axis of the ellipse of a covariance (..., 2, 2): 1 for round."""
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.linalg.eigvalsh(np.where(np.isfinite(covariances), covariances, 0))
        return np.asarray(np.sqrt(values[..., 1] / np.maximum(values[..., 0], 0)))


def orientation(covariances: Array) -> Array:
    """Angle of the longer axis from the x axis, in degrees, -90 to 90, counted downwards as rows are."""
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
