// Boxes drawn on a picture or in a video, and written into a node's inputs, which the node reads: of the speakers in a
// portrait into box_1 and box_2, or, where a Dialogue names who speaks, into places, a line for each name; of the head in
// footage into box.
import { app } from "../../../scripts/app.js";
import { boxBetween, isBox, moved, readBox, resized, writeBox } from "./box.js";
import { element, showDialog } from "./elements.js";
import { pictureAt, sourceOf } from "./portrait.js";
import { askDialogue } from "./script_check.js";
import { text } from "./texts.js";

// What is drawn on, the inputs of the boxes and of the masks that count before them, and what begins the keys of texts.
const SPEAKERS = { shown: "portrait", boxes: ["box_1", "box_2"], masks: ["mask_1", "mask_2"], words: "" };
const HEAD = { shown: "source", boxes: ["box"], masks: ["mask"], words: "head_" };
const PLACES = "places";
const STEP = 0.01; // of the picture, for one press of an arrow key
const ARROWS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

/** Adds the button that opens the picker, as a node's last widget. */
export function addBoxPicker(node, kind = SPEAKERS) {
    if (!kind.boxes.every((name) => widgetOf(node, name))) return;
    const open = async () => new BoxPicker(node, kind, await namesOf(node)).open();
    // Named by what it says: older pages show no other label in Nodes 2.0.
    const button = node.addWidget("button", text(`${kind.words}draw`), null, open, { serialize: false }); // in prompts
    button.serialize = false; // in workflows; it must stay the last one for older pages
}

/** The same for the one head in footage. */
export function addHeadPicker(node) {
    addBoxPicker(node, HEAD);
}

function widgetOf(node, name) {
    return node.widgets?.find((widget) => widget.name === name);
}

/** Who speaks, by the script of the Dialogue that the speech comes from; none where it is not one that can be read. */
async function namesOf(node) {
    const source = sourceOf(node, "speech");
    if (source?.comfyClass !== "SkyReelsDialogue" || !widgetOf(node, PLACES)) return [];
    if (source.inputs?.find((input) => input.name === "script")?.link != null) return writtenPlaces(node).map(([name]) => name);
    return (await askDialogue({ text: String(widgetOf(source, "script")?.value ?? "") }))?.names ?? [];
}

/** [name, box] of each line of places. */
function writtenPlaces(node) {
    const lines = String(widgetOf(node, PLACES)?.value ?? "").split(/\r\n|[\r\n]/);
    return lines.flatMap((line) => {
        const [, name, box] = /^\s*([^#:：][^:：]*)[:：](.*)$/.exec(line) ?? [];
        return name ? [[name.trim(), readBox(box)]] : [];
    });
}

const sameName = (name) => name.normalize("NFKC").replace(/\s+/g, " ").trim().toLowerCase();

class BoxPicker {
    /** names: of a dialogue's people, in order; none for those who have an input each. */
    constructor(node, kind, names) {
        this.node = node;
        this.kind = kind;
        this.names = names;
        this.people = names.length ? names : kind.boxes.map((_, index) => index + 1);
        const written = new Map(writtenPlaces(node).map(([name, box]) => [sameName(name), box]));
        const own = (index) => readBox(widgetOf(node, kind.boxes[index])?.value ?? "");
        this.boxes = this.people.map((who, index) => written.get(sameName(String(who))) ?? own(index));
        this.chosen = 0; // whose box is drawn next
        this.drag = null; // (point) => box, while the pointer is down
    }

    open() {
        const picture = pictureAt(this.node, this.kind.shown);
        const linked = this.widgets.filter((name) => this.isLinked(name));
        this.said = element("div", { className: "skyreels-said", role: "status" });
        this.dialog = element("dialog", { className: "skyreels-picker" });
        this.dialog.setAttribute("aria-label", this.text("where"));
        this.dialog.append(element("h2", {}, this.text("where")));
        if (picture?.url && !linked.length) {
            this.dialog.append(element("p", {}, this.text("how")), this.choice(), ...this.picture(picture), this.said);
        } else {
            const lacking = picture ? this.text("unseen", picture) : this.text("nothing");
            const problems = linked.length ? linked.map((name) => text("box_linked", { name })) : [lacking];
            this.dialog.append(...problems.map((problem) => element("p", {}, problem)));
        }
        this.dialog.append(this.buttons(Boolean(this.stage)));
        showDialog(this.dialog);
        if (this.stage) this.draw();
    }

    /** What this kind of boxes says. */
    text(key, values) {
        return text(`${this.kind.words}${key}`, values);
    }

    /** Names of the inputs that boxes are written into. */
    get widgets() {
        return this.names.length ? [PLACES] : this.kind.boxes;
    }

    isLinked(name) {
        return this.node.inputs?.find((input) => input.name === name)?.link != null;
    }

    choice() {
        this.radios = this.people.map((who, index) =>
            element("input", {
                type: "radio",
                name: "skyreels-speaker",
                checked: index === this.chosen,
                onchange: () => this.choose(index),
            }),
        );
        const label = (index) => this.names[index] ?? this.text(`speaker_${index + 1}`);
        const labels = this.radios.map((radio, index) =>
            element("label", { className: `skyreels-speaker-${index + 1}` }, radio, ` ${label(index)}`),
        );
        const group = element("div", { className: "skyreels-choice", hidden: this.people.length === 1 }, ...labels);
        group.setAttribute("role", "radiogroup");
        return group;
    }

    choose(index) {
        this.chosen = index;
        this.draw();
    }

    picture({ url, title, moving }) {
        const broken = () => this.said.replaceChildren(text(moving ? "broken_video" : "broken", { title }));
        const image = moving
            ? element("video", { src: url, preload: "auto", muted: true })
            : element("img", { src: url, alt: title, draggable: false });
        image.onerror = broken;
        this.frames = this.people.map((who, index) => {
            const corner = element("span", { className: "skyreels-corner" });
            const className = `skyreels-box skyreels-speaker-${index + 1}`;
            const frame = element("div", { className, tabIndex: 0 }, this.people.length > 1 ? `${who}` : "", corner);
            frame.addEventListener("focus", () => index !== this.chosen && this.choose(index));
            frame.addEventListener("keydown", (event) => this.onKey(event, index));
            return frame;
        });
        this.stage = element("div", { className: "skyreels-stage" }, image, ...this.frames);
        this.stage.addEventListener("pointerdown", (event) => this.onDown(event));
        this.stage.addEventListener("pointermove", (event) => this.onMove(event));
        this.stage.addEventListener("pointerup", () => this.onUp());
        this.stage.addEventListener("pointercancel", () => this.onUp());
        return moving ? [this.stage, this.slider(image, broken)] : [this.stage];
    }

    /** Moves through a video; it begins where the node does. */
    slider(video, broken) {
        const slider = element("input", { type: "range", min: 0, step: 0.01, className: "skyreels-time" });
        slider.setAttribute("aria-label", text("time"));
        slider.oninput = () => (video.currentTime = slider.value);
        video.onloadedmetadata = () => {
            if (!video.videoWidth) return broken(); // it plays the sound alone
            slider.max = video.duration;
            slider.value = video.currentTime = Number(widgetOf(this.node, "start")?.value) || 0;
        };
        return slider;
    }

    buttons(usable) {
        const button = (key, onclick, className = "") =>
            element("button", { type: "button", className, onclick }, key);
        const cancel = button(text("cancel"), () => this.dialog.close());
        if (!usable) return element("div", { className: "skyreels-buttons" }, cancel);
        const clear = button(this.text("clear"), () => this.set(this.people.map(() => null)));
        const apply = button(text("apply"), () => this.apply(), "skyreels-apply");
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
        // After one speaker's box comes that of the next who has none.
        const after = this.people.map((_, index) => (this.chosen + index) % this.people.length);
        const next = after.find((index) => !this.boxes[index]);
        if (this.boxes[this.chosen] && next !== undefined) this.choose(next);
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
            frame.setAttribute("aria-label", this.text("box", { n: this.people[index], box: writeBox(box) }));
        });
        const without = this.people.length > SPEAKERS.boxes.length ? "no_place" : "no_box";
        const told = this.people.map((n, index) => {
            const mask = ["masks", this.kind.masks[index]].find((name) => this.isLinked(name));
            if (mask) return this.text("mask", { mask, n });
            const box = this.boxes[index];
            return this.text(box ? "box" : without, { n, box: writeBox(box) });
        });
        this.said.replaceChildren(...told.map((sentence) => element("div", {}, sentence)));
    }

    apply() {
        const lines = this.names.flatMap((name, index) => (this.boxes[index] ? [`${name}: ${writeBox(this.boxes[index])}`] : []));
        this.kind.boxes.forEach((name, index) => this.write(name, this.names.length ? "" : writeBox(this.boxes[index])));
        if (this.names.length) this.write(PLACES, lines.join("\n"));
        app.canvas?.setDirty(true, true);
        this.dialog.close();
    }

    write(name, value) {
        const widget = widgetOf(this.node, name);
        widget.value = value;
        widget.callback?.(value); // Nodes 2.0 shows what the callback was told
    }
}
