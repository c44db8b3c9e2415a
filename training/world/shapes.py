"""Signed distances of simple shapes: below 0 inside, above 0 outside, in the unit of the coordinates.

x, y: coordinates that broadcast to [h, w], float32; x to the right, y up. Each answers float32 [h, w].
Source of the formulas: Inigo Quilez, 2D distance functions; the ellipse is the first-order estimate.
"""

import numpy as np

ZERO, ONE, TINY = np.float32(0), np.float32(1), np.float32(1e-9)


def ellipse(x, y, rx: float, ry: float):
    """Round the origin. Exact for a circle; else right near the edge, which is where it is looked at."""
    if rx == ry:
        return np.sqrt(x * x + y * y) - np.float32(rx)
    u, v = x * np.float32(1 / rx), y * np.float32(1 / ry)
    k = np.sqrt(u * u + v * v)
    u, v = u * np.float32(1 / rx), v * np.float32(1 / ry)
    return k * (k - 1) / (np.sqrt(u * u + v * v) + TINY)


def box(x, y, hx: float, hy: float, radius: float = 0.0):
    """Of half sides hx, hy round the origin, its corners rounded inside them."""
    u, v = np.abs(x) - np.float32(hx - radius), np.abs(y) - np.float32(hy - radius)
    outside = np.sqrt(np.maximum(u, 0) ** 2 + np.maximum(v, 0) ** 2)
    return outside + np.minimum(np.maximum(u, v), 0) - np.float32(radius)


def line(x, y, x0: float, y0: float, x1: float, y1: float, r0: float, r1: float):
    """A stroke with round ends, r0 thick (half) at its start and r1 at its end."""
    dx, dy = x1 - x0, y1 - y0
    px, py = x - np.float32(x0), y - np.float32(y0)
    share = (px * np.float32(dx) + py * np.float32(dy)) * np.float32(1 / (dx * dx + dy * dy + 1e-12))
    share = np.minimum(np.maximum(share, ZERO), ONE)
    px, py = px - share * np.float32(dx), py - share * np.float32(dy)
    return np.sqrt(px * px + py * py) - (np.float32(r0) + share * np.float32(r1 - r0))


def polygon(x, y, points, radius: float = 0.0):
    """Of corners [(x, y)], convex or not, its corners rounded outwards."""
    nearest, sign = None, None
    for (ax, ay), (bx, by) in zip(points, (*points[1:], points[0])):
        ex, ey = np.float32(bx - ax), np.float32(by - ay)
        px, py = x - np.float32(ax), y - np.float32(ay)
        share = (px * ex + py * ey) * np.float32(1 / (ex * ex + ey * ey + 1e-12))
        share = np.minimum(np.maximum(share, ZERO), ONE)
        u, v = px - share * ex, py - share * ey
        square = u * u + v * v
        above, before = py >= 0, py < ey
        left = ex * py > ey * px
        crossing = (above & before & left) | ~(above | before | left)
        nearest = square if nearest is None else np.minimum(nearest, square)
        sign = crossing if sign is None else sign ^ crossing
    distance = np.sqrt(nearest)
    return np.where(sign, -distance, distance) - np.float32(radius)


def convex(x, y, points):
    """Of the corners of a convex polygon, counter-clockwise: a third of `polygon`'s time; sharp corners."""
    total = None
    for (ax, ay), (bx, by) in zip(points, (*points[1:], points[0])):
        size = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5
        nx, ny = (by - ay) / size, (ax - bx) / size
        side = (x * np.float32(nx) - np.float32(ax * nx + ay * ny)) + y * np.float32(ny)
        total = side if total is None else np.maximum(total, side, out=total)
    return total


def union(distances):
    """Of several shapes."""
    total = distances[0]
    for one in distances[1:]:
        total = np.minimum(total, one)
    return total
