// Under the script of Extend Video: from when to when each line runs, or what is wrong with it, while it is written.
import { app } from "../../../scripts/app.js";
import { element } from "./elements.js";
import { checkScript } from "./script_check.js";
import { text } from "./texts.js";

// The script may be typed on the canvas or in Nodes 2.0, pasted, undone, loaded or set by another extension, and each
// version of the page tells of that in another way or not at all. Its text is looked at instead: that always holds.
const LOOK_EVERY = 300; // milliseconds; also the pause between two questions to the server
const MARGIN = 10; // pixels that the canvas leaves around the panel
const MAX_HEIGHT = 190; // pixels: about eight lines; more are scrolled
const PADDING = 9; // above and below, see skyreels.css
const FIRST_HEIGHT = 60; // until there is something to measure

/** Adds the panel to a new node, right behind its widget `script`. The saved workflow does not know of it. */
export function addScriptPanel(node, Panel = ScriptPanel) {
    const script = node.widgets?.find((widget) => widget.name === "script");
    if (!script) return;
    const panel = new Panel(node, script);
    const widget = node.addDOMWidget("skyreels_script_lines", "skyreels_script_lines", panel.root, {
        serialize: false, // in prompts
        margin: MARGIN,
        hideOnZoom: true,
        hideInPanel: true, // of the page's sidebar, which would show an empty row
    });
    // As high as what it says: both pages would otherwise share the node's free space between it and the text boxes.
    widget.computeSize = () => [0, panel.height + 2 * MARGIN];
    widget.computeLayoutSize = undefined;
    widget.serialize = false; // in workflows
    const others = node.widgets.filter((one) => one !== widget);
    others.splice(others.indexOf(script) + 1, 0, widget);
    node.widgets.splice(0, node.widgets.length, ...others);
    keepValuesInPlace(node);
    panel.follow();
}

/** Older pages leave a hole among the saved values where a widget is not saved, and read them back one place off. */
function keepValuesInPlace(node) {
    const before = node.onSerialize;
    node.onSerialize = function (saved) {
        before?.apply(this, arguments);
        const values = saved.widgets_values;
        if (Array.isArray(values) && Object.keys(values).length < values.length) {
            saved.widgets_values = values.filter(() => true); // skips holes
        }
    };
}

export class ScriptPanel {
    heads = ["line", "shot", "times", "length", "rolls"];
    maxHeight = MAX_HEIGHT;

    constructor(node, script) {
        this.node = node;
        this.script = script;
        this.height = FIRST_HEIGHT;
        this.seen = null;
        this.asking = false;
        this.summary = element("div", { className: "skyreels-summary", role: "status" });
        this.said = element("div"); // of its own height, whatever room there is for it
        this.lines = element("div", { className: "skyreels-lines" }, this.said);
        this.lines.dataset.captureWheel = "true"; // Nodes 2.0 would zoom instead of scroll
        this.root = element("div", { className: "skyreels-script" }, this.summary, this.lines);
        this.root.addEventListener("wheel", (event) => this.onWheel(event));
        this.sizes = new ResizeObserver(() => this.fit()); // text wraps anew as the node is made wider or narrower
    }

    /** Looks at the script as long as the node is there. */
    follow() {
        const timer = setInterval(() => this.look(), LOOK_EVERY);
        this.sizes.observe(this.said);
        const sizes = this.sizes;
        const before = this.node.onRemoved;
        this.node.onRemoved = function () {
            clearInterval(timer);
            sizes.disconnect();
            return before?.apply(this, arguments);
        };
    }

    async look() {
        this.takePlace();
        if (this.asking || !this.root.isConnected) return;
        const asked = this.question();
        const linked = this.connected("script");
        const now = JSON.stringify([asked, linked, text("line")]); // the language too
        if (now === this.seen) return;
        this.asking = true;
        const checked = linked ? await this.checkLinked(asked) : await this.check(asked);
        this.asking = false;
        this.seen = now;
        if (checked) this.show(checked, linked);
    }

    /** Nodes 2.0 draw a node that an undo or another workflow brings with the elements of the last one of its number. */
    takePlace() {
        const { node, root } = this;
        if (root.isConnected || app.canvas?.graph?.getNodeById(node.id) !== node) return;
        document.querySelector(`[data-node-id="${CSS.escape(node.id)}"] .skyreels-script`)?.replaceWith(root);
    }

    connected(name) {
        return this.node.inputs?.find((input) => input.name === name)?.link != null;
    }

    /** What the server is asked: see `checkScript`. */
    question() {
        return {
            text: String(this.script.value ?? ""),
            official: Boolean(this.node.widgets.find((widget) => widget.name === "official")?.value),
            model: this.connected("model"),
            shot_model: this.connected("shot_model"),
        };
    }

    check(asked) {
        return checkScript(asked);
    }

    /** The same for a script that comes from a connection, whose text is not known here. */
    async checkLinked() {
        return { lines: [], notes: [], problem: null };
    }

    /** The cells of a right line, behind its number. */
    cells(line) {
        const times = `${clock(line.start)} – ${clock(line.stop)}`;
        return [line.kind, times, seconds(line.stop - line.start), String(line.rolls)];
    }

    summaryOf(checked, right, wrong) {
        return summaryOf(right, wrong);
    }

    /** The wheel scrolls lines that do not fit; else it zooms, as everywhere on the canvas. */
    onWheel(event) {
        if (this.lines.scrollHeight > this.lines.clientHeight && !event.ctrlKey) {
            event.stopPropagation();
        } else if (this.root.closest(".dom-widget")) {
            event.preventDefault();
            app.canvas.processMouseWheel(event); // which does not hear of events on elements above it
        }
    }

    show(checked, linked) {
        const right = checked.lines.filter((line) => !line.wrong);
        const wrong = checked.lines.length - right.length;
        this.summary.replaceChildren(linked ? text("linked") : this.summaryOf(checked, right, wrong));
        this.summary.classList.toggle("skyreels-wrong", wrong > 0);
        const notes = (checked.notes ?? []).map((note) => said("hint", note, "skyreels-note"));
        const problem = checked.problem ? [said("wrong", checked.problem, "skyreels-wrong")] : [];
        this.said.replaceChildren(...problem, ...(checked.lines.length ? [this.table(checked.lines)] : []), ...notes);
    }

    table(lines) {
        const heads = this.heads.map((key) => element("th", { scope: "col" }, text(key)));
        const rows = lines.map((line) => {
            const number = element("td", {}, this.goButton(line.number));
            if (line.wrong) {
                const told = element("td", { colSpan: heads.length - 1 }, said("wrong", line.wrong));
                return element("tr", { className: "skyreels-wrong" }, number, told);
            }
            return element("tr", {}, number, ...this.cells(line).map((cell) => element("td", {}, cell)));
        });
        return element("table", {}, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
    }

    goButton(number) {
        const title = text("go_to", { n: number });
        const onclick = () => this.goTo(number);
        return element("button", { type: "button", className: "skyreels-go", title, onclick }, String(number));
    }

    /** Gives the panel the height of what it says; on the canvas the node grows where it must. */
    fit() {
        const wanted = this.summary.offsetHeight + this.said.offsetHeight + PADDING;
        const height = Math.min(this.maxHeight, wanted);
        if (height === this.height || wanted === PADDING) return; // the latter: not shown just now
        this.height = height;
        this.root.style.setProperty("--skyreels-height", `${height}px`);
        app.canvas?.setDirty(true, true);
    }

    /** Selects a line in the box that the script is typed in, whichever the page has drawn. */
    goTo(number) {
        const box = this.textBox();
        if (!box) return;
        const lines = box.value.split(/[\n\v\f\u0085\u2028\u2029]/); // as the server counts them
        const start = lines.slice(0, number - 1).reduce((sum, line) => sum + line.length + 1, 0);
        box.focus();
        box.setSelectionRange(start, start + (lines[number - 1] ?? "").length);
        box.scrollTop = (box.scrollHeight / lines.length) * Math.max(0, number - 2);
    }

    textBox() {
        if (this.script.element?.isConnected) return this.script.element;
        const boxes = this.root.closest("[data-node-id]")?.querySelectorAll("textarea") ?? [];
        return [...boxes].find((box) => box.value === this.script.value);
    }
}

/** A sentence of the server, with a word before it: colour alone would not tell everybody. */
export function said(key, sentence, className = "") {
    return element("div", { className }, element("b", {}, text(key)), ` ${sentence}`);
}

function summaryOf(right, wrong) {
    const rolls = right.reduce((sum, line) => sum + line.rolls, 0);
    const time = seconds(Math.max(0, ...right.map((line) => line.stop)));
    const made = text("total", { time, rolls: text(rolls === 1 ? "one_roll" : "n_rolls", { n: rolls }) });
    return wrong ? `${text(wrong === 1 ? "one_wrong" : "n_wrong", { n: wrong })} · ${made}` : made;
}

export function seconds(time) {
    return text("seconds", { n: String(Math.round(time * 100) / 100) });
}

/** 75.5 as 1:15.5 */
export function clock(time) {
    const hundredths = Math.round(time * 100);
    const rest = (hundredths % 6000) / 100;
    return `${Math.floor(hundredths / 6000)}:${rest < 10 ? "0" : ""}${rest}`;
}
