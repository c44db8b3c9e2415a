// Boxes of two speakers, drawn on the portrait: what is drawn is written into box_1 and box_2, which the node reads.
import { app } from "../../../scripts/app.js";
import { boxBetween, isBox, moved, readBox, resized, writeBox } from "./box.js";
import { element } from "./elements.js";
import { pictureAt } from "./portrait.js";
import { text } from "./texts.js";

const PEOPLE = [1, 2];
const STEP = 0.01; // of the picture, for one press of an arrow key
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

/** Adds the button that opens the picker, as a node's last widget. */
export function addBoxPicker(node) {
    if (!PEOPLE.every((n) => boxWidget(node, n))) return;
    // Named by what it says: older pages show no other label in Nodes 2.0.
    const button = node.addWidget("button", text("draw"), null, () => new BoxPicker(node).open(), {
        serialize: false, // in prompts
    });
    button.serialize = false; // in workflows; it must stay the last one for older pages
}

function boxWidget(node, n) {
    return node.widgets?.find((widget) => widget.name === `box_${n}`);
}

class BoxPicker {
    constructor(node) {
        this.node = node;
        this.boxes = PEOPLE.map((n) => readBox(boxWidget(node, n).value));
        this.chosen = 0; // which speaker's box is drawn next
        this.drag = null; // (point) => box, while the pointer is down
    }

    open() {
        const picture = pictureAt(this.node, "portrait");
        const linked = PEOPLE.filter((n) => this.isLinked(`box_${n}`));
        this.said = element("div", { className: "skyreels-said", role: "status" });
        this.dialog = element("dialog", { className: "skyreels-picker" });
        this.dialog.setAttribute("aria-label", text("where"));
        this.dialog.append(element("h2", {}, text("where")));
        if (picture.url && !linked.length) {
            this.dialog.append(element("p", {}, text("how")), this.choice(), this.picture(picture), this.said);
        } else {
            const problems = linked.length ? linked.map((n) => text("box_linked", { n })) : [picture.problem];
            this.dialog.append(...problems.map((problem) => element("p", {}, problem)));
        }
        this.dialog.append(this.buttons(Boolean(picture.url) && !linked.length));
        // The page takes keys for its own: Delete would remove the node behind the dialog.
        this.dialog.addEventListener("keydown", (event) => event.stopPropagation());
        this.dialog.addEventListener("close", () => this.dialog.remove());
        document.body.append(this.dialog);
        this.dialog.showModal();
        if (this.stage) this.draw();
    }

    isLinked(name) {
        return this.node.inputs?.find((input) => input.name === name)?.link != null;
    }

    choice() {
        this.radios = PEOPLE.map((n, index) =>
            element("input", {
                type: "radio",
                name: "skyreels-speaker",
                checked: index === this.chosen,
                onchange: () => this.choose(index),
            }),
        );
        const labels = this.radios.map((radio, index) =>
            element("label", { className: `skyreels-speaker-${index + 1}` }, radio, ` ${text(`speaker_${index + 1}`)}`),
        );
        const group = element("div", { className: "skyreels-choice" }, ...labels);
        group.setAttribute("role", "radiogroup");
        return group;
    }

    choose(index) {
        this.chosen = index;
        this.draw();
    }

    picture({ url, title }) {
        const image = element("img", { src: url, alt: title, draggable: false });
        image.onerror = () => this.said.replaceChildren(text("broken", { title }));
        this.frames = PEOPLE.map((n, index) => {
            const corner = element("span", { className: "skyreels-corner" });
            const frame = element("div", { className: `skyreels-box skyreels-speaker-${n}`, tabIndex: 0 }, `${n}`, corner);
            frame.addEventListener("focus", () => index !== this.chosen && this.choose(index));
            frame.addEventListener("keydown", (event) => this.onKey(event, index));
            return frame;
        });
        this.stage = element("div", { className: "skyreels-stage" }, image, ...this.frames);
        this.stage.addEventListener("pointerdown", (event) => this.onDown(event));
        this.stage.addEventListener("pointermove", (event) => this.onMove(event));
        this.stage.addEventListener("pointerup", () => this.onUp());
        this.stage.addEventListener("pointercancel", () => this.onUp());
        return this.stage;
    }

    buttons(usable) {
        const button = (key, onclick, className = "") =>
            element("button", { type: "button", className, onclick }, text(key));
        const cancel = button("cancel", () => this.dialog.close());
        if (!usable) return element("div", { className: "skyreels-buttons" }, cancel);
        const clear = button("clear", () => this.set([null, null]));
        const apply = button("apply", () => this.apply(), "skyreels-apply");
        return element("div", { className: "skyreels-buttons" }, clear, cancel, apply);
    }

    /** Where the pointer is in the picture, each from 0 to 1. */
    point(event) {
        const { left, top, width, height } = this.stage.getBoundingClientRect();
        return [(event.clientX - left) / width, (event.clientY - top) / height];
    }

    onDown(event) {
        if (event.button !== 0) return;
        event.preventDefault(); // the browser would drag the picture away
        this.stage.setPointerCapture(event.pointerId);
        const [x, y] = this.point(event);
        const hit = this.frames.findIndex((frame) => frame.contains(event.target));
        if (hit < 0) {
            this.drag = (point) => boxBetween([x, y], point);
            return;
        }
        this.choose(hit);
        this.frames[hit].focus();
        const box = this.boxes[hit];
        const change = event.target.className === "skyreels-corner" ? resized : moved;
        this.drag = ([u, v]) => change(box, u - x, v - y);
    }

    onMove(event) {
        if (!this.drag) return;
        const box = this.drag(this.point(event));
        if (isBox(box)) this.set(this.replaced(box));
    }

    onUp() {
        if (!this.drag) return;
        this.drag = null;
        if (this.boxes[this.chosen]) this.frames[this.chosen].focus({ preventScroll: true }); // for the arrow keys
        // After the first speaker's box comes the second's.
        if (this.boxes[this.chosen] && !this.boxes[1 - this.chosen]) this.choose(1 - this.chosen);
    }

    onKey(event, index) {
        const step = ARROWS[event.key];
        if (!step) return;
        event.preventDefault(); // the dialog would scroll
        this.chosen = index;
        this.set(this.replaced((event.shiftKey ? resized : moved)(this.boxes[index], ...step)));
    }

    replaced(box) {
        return this.boxes.map((old, index) => (index === this.chosen ? box : old));
    }

    set(boxes) {
        this.boxes = boxes;
        this.draw();
    }

    draw() {
        this.radios.forEach((radio, index) => (radio.checked = index === this.chosen));
        this.frames.forEach((frame, index) => {
            const box = this.boxes[index];
            frame.hidden = !box;
            frame.classList.toggle("skyreels-chosen", index === this.chosen);
            if (!box) return;
            const [left, top, right, bottom] = box.map((side) => 100 * side);
            Object.assign(frame.style, { left: `${left}%`, top: `${top}%` });
            Object.assign(frame.style, { width: `${right - left}%`, height: `${bottom - top}%` });
            frame.setAttribute("aria-label", text("box", { n: index + 1, box: writeBox(box) }));
        });
        const told = PEOPLE.flatMap((n, index) => {
            const box = this.boxes[index];
            const place = box ? text("box", { n, box: writeBox(box) }) : text("no_box", { n });
            return this.isLinked(`mask_${n}`) ? [text("mask", { n })] : [place];
        });
        this.said.replaceChildren(...told.map((sentence) => element("div", {}, sentence)));
    }

    apply() {
        PEOPLE.forEach((n, index) => {
            const widget = boxWidget(this.node, n);
            widget.value = writeBox(this.boxes[index]);
            widget.callback?.(widget.value); // Nodes 2.0 shows what the callback was told
        });
        app.canvas?.setDirty(true, true);
        this.dialog.close();
    }
}
