// A box in a picture: left, top, right, bottom, each from 0 to 1, as the inputs box_1 and box_2 have it.

const SMALLEST = 0.02; // of a side: below it, it was a click

/** The box of a text such as "0.05, 0.1, 0.45, 0.9"; null for anything else. */
export function readBox(written) {
    const box = String(written ?? "").split(/[,;]/).map((part) => (part.trim() ? Number(part) : NaN));
    return box.length === 4 && isBox(box) ? box : null;
}

/** The text of a box; "" for none. */
export function writeBox(box) {
    return box ? box.map((side) => String(Math.round(side * 1000) / 1000)).join(", ") : "";
}

/** The box between two points, in any order. */
export function boxBetween([x, y], [u, v]) {
    return [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)].map(inside);
}

/** The box moved as far as the picture reaches. */
export function moved([left, top, right, bottom], x, y) {
    const across = Math.min(Math.max(x, -left), 1 - right);
    const down = Math.min(Math.max(y, -top), 1 - bottom);
    return [left + across, top + down, right + across, bottom + down];
}

/** The box with its right lower corner moved. */
export function resized([left, top, right, bottom], x, y) {
    return [left, top, Math.max(left + SMALLEST, inside(right + x)), Math.max(top + SMALLEST, inside(bottom + y))].map(inside);
}

/** Whether a box is one that the node takes, and not just a click. */
export function isBox([left, top, right, bottom]) {
    return left >= 0 && top >= 0 && right <= 1 && bottom <= 1 && right - left >= SMALLEST && bottom - top >= SMALLEST;
}

function inside(side) {
    return Math.min(1, Math.max(0, side));
}
