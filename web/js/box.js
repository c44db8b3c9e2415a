// A box in a picture: left, top, right, bottom, each from 0 to 1, as the inputs box_1 and box_2 have it.

const SMALLEST = 0.02; // of a side: below it, it was a click

// As skyreels_v3/speech/masks.py reads it, which says more of what may be written.
const SEPARATORS = [/\s*;\s*/, /\s*(?:、|,(?=\s)|\s)\s*/, /\s*[;,、]\s*/];
const SIDE = /^[-+]?(\d+([.,]\d*)?|[.,]\d+)(e[-+]?\d+)?%?$/i;

/** The box of a text such as "0.05, 0.1, 0.45, 0.9" or "[5%; 10%; 45%; 90%]"; null for anything else. */
export function readBox(written) {
    const text = String(written ?? "")
        .normalize("NFKC")
        .replace(/[\][(){}<>"'【】「」]/g, " ")
        .replace(/\s+(?=[%,;、])/g, "")
        .trim();
    for (const separator of SEPARATORS) {
        const parts = text.split(separator);
        const box = parts.length === 4 && parts.every((part) => SIDE.test(part)) ? parts.map(side) : null;
        if (box && isInside(box)) return box;
    }
    return null;
}

function side(written) {
    const number = Number(written.replace("%", "").replace(",", "."));
    return written.endsWith("%") ? number / 100 : number;
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

/** Whether what was drawn is a box, and not just a click. */
export function isBox(box) {
    const [left, top, right, bottom] = box;
    return isInside(box) && right - left >= SMALLEST && bottom - top >= SMALLEST;
}

/** Whether the node takes a box. */
function isInside([left, top, right, bottom]) {
    return left >= 0 && top >= 0 && right <= 1 && bottom <= 1 && left < right && top < bottom;
}

function inside(side) {
    return Math.min(1, Math.max(0, side));
}
