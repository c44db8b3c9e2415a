// Under the script of Film: where each line runs, or what is wrong with it, and a card for each shot of the last run.
// Whatever a card does is a change of the script's text: the same can be typed, and nothing else is remembered.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { element } from "./elements.js";
import { askFilm } from "./script_check.js";
import { ScriptPanel, addScriptPanel, clock, seconds } from "./script_panel.js";
import { text } from "./texts.js";

const LARGEST_SEED = 2 ** 32;
const CAST = "SkyReelsCast";

export function addFilmPanel(node) {
    addScriptPanel(node, FilmPanel);
}

class FilmPanel extends ScriptPanel {
    heads = ["line", "shot", "times", "length", "takes"];
    maxHeight = 340; // pixels: a row of cards besides

    constructor(node, script) {
        super(node, script);
        this.shots = []; // of the last run
        this.strip = element("div", { className: "skyreels-strip" });
        const panel = this;
        const before = node.onExecuted;
        node.onExecuted = function (output) {
            before?.apply(this, arguments);
            if (output?.skyreels_film) panel.showShots(output.skyreels_film);
        };
    }

    question() {
        const connected = (this.node.inputs ?? []).filter((input) => input.link != null).map((input) => input.name);
        return { text: String(this.script.value ?? ""), cast: this.cast(), connected };
    }

    check(asked) {
        return askFilm(asked);
    }

    /** Names of the connected Cast nodes, each with whether it has a voice; null where one cannot be read here. */
    cast() {
        const found = {};
        let node = this.node;
        for (let index = 0; index < 100; index++) {
            const link = node.inputs?.find((input) => input.name === "cast")?.link;
            if (link == null) return found;
            const source = node.graph?.getNodeById(node.graph.links.get?.(link)?.origin_id ?? node.graph.links[link]?.origin_id);
            if (source?.comfyClass !== CAST) return null; // from a subgraph, or by another node
            const has = (name) => source.inputs?.find((input) => input.name === name)?.link != null;
            if (has("name")) return null;
            found[String(source.widgets.find((widget) => widget.name === "name")?.value ?? "")] = has("voice");
            node = source;
        }
        return null;
    }

    cells(line) {
        const start = line.start == null ? "?" : clock(line.start);
        const stop = line.start == null || line.length == null ? "?" : clock(line.start + line.length);
        const takes = `${line.takes}${line.locked ? ` · ${text("locked")}` : ""}`;
        return [line.kind, `${start} – ${stop}`, line.length == null ? "?" : seconds(line.length), takes];
    }

    summaryOf(checked, right, wrong) {
        const length = right.reduce((sum, line) => sum + (line.length ?? 0), 0);
        const loads = text(checked.loads === 1 ? "one_load" : "film_loads", { n: checked.loads });
        const made = text("film_total", { n: right.length, time: seconds(length) });
        return wrong
            ? `${text(wrong === 1 ? "one_wrong" : "n_wrong", { n: wrong })} · ${made}`
            : `${made}${checked.loads ? ` · ${loads}` : ""}`;
    }

    show(checked, linked) {
        super.show(checked, linked);
        this.drawShots();
    }

    showShots(shots) {
        this.shots = shots;
        this.drawShots();
    }

    drawShots() {
        const cards = this.shots.map((shot) => this.card(shot));
        this.strip.replaceChildren(...cards);
        this.strip.setAttribute("role", "list");
        this.strip.setAttribute("aria-label", text("shots"));
        if (cards.length) this.said.append(this.strip);
        else this.strip.remove();
    }

    card(shot) {
        const written = this.lineOf(shot.number);
        const changed = shot.number > 0 && written !== shot.written;
        const state = changed ? "changed" : shot.state;
        const picture = element("img", { src: viewed(shot.picture), alt: shot.text, loading: "lazy" });
        const act = (key, sign, onclick, disabled = false) =>
            element("button", { type: "button", title: text(key, { n: shot.number }), onclick, disabled }, sign);
        const actions = [act("play", "▶", () => this.play(shot))];
        if (shot.made && shot.number > 0 && !changed) {
            const seed = () => String(Math.floor(Math.random() * LARGEST_SEED));
            actions.push(act("reroll", "↻", () => this.edit(shot.number, "seed", seed())));
            const [key, value] = shot.locked ? ["unlock", null] : ["lock", ""];
            actions.push(act(key, text(`${key}_word`), () => this.edit(shot.number, "lock", value)));
            if (shot.takes.length > 1) actions.push(this.chooser(shot));
        }
        return element(
            "div",
            { className: `skyreels-shot skyreels-${state}`, role: "listitem" },
            picture,
            element("div", {}, `${shot.number || ""} ${shot.kind} · ${seconds(shot.seconds)}`),
            element("div", { className: "skyreels-state" }, text(`state_${state}`)),
            element("div", { className: "skyreels-actions" }, ...actions),
        );
    }

    chooser(shot) {
        const options = shot.takes.map((take) => {
            const told = Object.entries(take.measures).map(([name, value]) => `${name} ${Number(value.toPrecision(3))}`);
            const label = [text("take_n", { n: take.take }), ...told].join(" · ");
            return element("option", { value: String(take.take), selected: take.chosen }, label);
        });
        const onchange = (event) => this.edit(shot.number, "take", event.target.value);
        return element("select", { ariaLabel: text("take", { n: shot.number }), onchange }, ...options);
    }

    lineOf(number) {
        return String(this.script.value ?? "").split(/\r\n|[\r\n\v\f\u0085\u2028\u2029]/)[number - 1];
    }

    /** On the canvas a new node is as high as its widgets were when it was made, before there were cards. */
    fit() {
        super.fit();
        const least = this.node.computeSize?.()[1] ?? 0;
        if (this.node.size[1] < least) this.node.setSize([this.node.size[0], least]);
    }

    /** Changes one option of a line; the server knows the grammar. */
    async edit(line, option, value) {
        const answer = await askFilm({ text: String(this.script.value ?? ""), edit: { line, option, value } });
        if (!answer || answer.text === this.script.value) return;
        this.script.value = answer.text;
        this.script.callback?.(answer.text);
        app.graph.setDirtyCanvas(true, true);
        app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.(); // so that it can be undone
    }

    /** Plays the shot out of the film, over the page. */
    play(shot) {
        const video = element("video", { src: `${viewed(shot.film)}#t=${shot.start},${shot.start + shot.seconds}` });
        Object.assign(video, { controls: true, autoplay: true });
        const close = element("button", { type: "button", onclick: () => dialog.close() }, text("close"));
        const dialog = element("dialog", { className: "skyreels-player", onclose: () => dialog.remove() }, video, close);
        document.body.append(dialog);
        dialog.showModal();
    }
}

function viewed(file) {
    return api.apiURL(`/view?${new URLSearchParams(file)}`);
}
