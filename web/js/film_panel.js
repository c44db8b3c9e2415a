// Under the script of Film a card for each shot: where it runs, what the next run makes of it, or what is wrong with it.
// Whatever a card does is a change of the script's text: the same can be typed, and nothing else is remembered.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { element, showDialog } from "./elements.js";
import { askFilm } from "./script_check.js";
import { ScriptPanel, addScriptPanel, clock, said, seconds } from "./script_panel.js";
import { text } from "./texts.js";

const LARGEST_SEED = 2 ** 32;
const CAST = "SkyReelsCast";
const MADE = ["done", "locked", "kept", "more"]; // states in which the film shows what the last run made

export function addFilmPanel(node) {
    addScriptPanel(node, FilmPanel);
}

class FilmPanel extends ScriptPanel {
    maxHeight = 340; // pixels: two rows of cards

    question() {
        const connected = (this.node.inputs ?? []).filter((input) => input.link != null).map((input) => input.name);
        const last = this.lastRun();
        const now = (name) => this.node.widgets.find((widget) => widget.name === name)?.value;
        const settings = Object.entries(last?.settings ?? {}).map(([name, before]) => [
            name,
            connected.includes(name) ? before : now(name), // what comes from a connection is seen when it runs
        ]);
        const script = String(this.script.value ?? "");
        return { text: script, cast: this.cast(), connected, settings: Object.fromEntries(settings), last };
    }

    check(asked) {
        this.shots = new Map((asked.last?.shots ?? []).map((shot) => [shot.number, shot]));
        return askFilm(asked);
    }

    /** What the last run was asked for, to be looked at. */
    async checkLinked(asked) {
        return asked.last ? this.check({ ...asked, text: asked.last.script }) : super.checkLinked();
    }

    /** What the page keeps of the node's last run, through an undo too; null before there is one. */
    lastRun() {
        const { graph, id } = this.node;
        const inside = graph && graph !== (app.rootGraph ?? app.graph);
        const output = app.nodeOutputs?.[inside ? `${graph.id}:${id}` : id];
        const run = output?.skyreels_film_run?.[0];
        return run ? { ...run, shots: output.skyreels_film } : null;
    }

    /** Names of the connected Cast nodes to whether they have a voice, or "dialogue"; null where one cannot be read here. */
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
            const name = source.widgets.find((widget) => widget.name === "name")?.value;
            found[String(name ?? "")] = has("dialogue") ? "dialogue" : has("voice");
            node = source;
        }
        return null;
    }

    summaryOf(checked, right, wrong) {
        const length = right.reduce((sum, line) => sum + (line.length ?? 0), 0);
        const time = `${right.some((line) => line.length == null) ? "> " : ""}${seconds(length)}`;
        const parts = wrong ? [text(wrong === 1 ? "one_wrong" : "n_wrong", { n: wrong })] : [];
        parts.push(text("film_total", { n: right.length, time }));
        if (!wrong && right.length) {
            parts.push(text(checked.to_make ? "to_make" : "all_made", { n: checked.to_make }));
            if (checked.loads) parts.push(text(checked.loads === 1 ? "one_load" : "film_loads", { n: checked.loads }));
        }
        return parts.join(" · ");
    }

    /** A card for each line. Whoever is at a button with the keyboard stays there. */
    table(lines) {
        const at = this.said.contains(document.activeElement) ? document.activeElement.dataset.act : undefined;
        const cards = lines.map((line) => (line.wrong ? this.wrongCard(line) : this.card(line)));
        const strip = element("div", { className: "skyreels-strip", role: "list", ariaLabel: text("shots") }, ...cards);
        if (at) queueMicrotask(() => strip.querySelector(`[data-act="${at}"]`)?.focus({ preventScroll: true }));
        return strip;
    }

    wrongCard(line) {
        const properties = { className: "skyreels-shot skyreels-whole skyreels-wrong", role: "listitem" };
        return element("div", properties, this.goButton(line.number), said("wrong", line.wrong));
    }

    card(line) {
        const shot = this.shots.get(line.was);
        const picture = shot
            ? element("img", { src: viewed(shot.picture), alt: line.text, loading: "lazy" })
            : element("div", { className: "skyreels-blank" }, line.text);
        const stop = line.length == null ? "" : clock(line.start + line.length);
        const times = line.start == null ? null : element("div", {}, `${clock(line.start)} – ${stop}`);
        const length = line.length == null ? "?" : seconds(line.length);
        return element(
            "div",
            { className: `skyreels-shot skyreels-${line.state}`, role: "listitem", title: line.text },
            picture,
            element("div", {}, line.number ? this.goButton(line.number) : null, ` ${line.kind} · ${length}`),
            times,
            element("div", { className: "skyreels-state" }, this.stateOf(line)),
            element("div", { className: "skyreels-actions" }, ...this.actions(line, shot)),
        );
    }

    stateOf(line) {
        const takes = line.missing > 1 ? ` · ${text("n_takes", { n: line.missing })}` : "";
        const needs = line.state === "planned" ? ["", ...line.models].join(" · ") : "";
        return `${text(`state_${line.state}`)}${takes}${needs}`;
    }

    actions(line, shot) {
        const { number } = line;
        const act = (key, sign, onclick) => {
            const button = element("button", { type: "button", title: text(key, { n: number }), onclick }, sign);
            button.dataset.act = `${key.replace("unlock", "lock")}-${number}`;
            return button;
        };
        const actions = shot ? [act("play", "▶", () => this.play(shot))] : [];
        if (!shot || !number || !line.models.length || this.connected("script")) return actions;
        const seed = () => String(Math.floor(Math.random() * LARGEST_SEED));
        actions.push(act("reroll", "↻", () => this.edit(number, "seed", seed())));
        if (line.locked) actions.push(act("unlock", text("unlock_word"), () => this.edit(number, "lock", null)));
        else if (line.state !== "changed") actions.push(act("lock", text("lock_word"), () => this.edit(number, "lock", "")));
        if (shot.takes.length > 1 && MADE.includes(line.state)) actions.push(this.chooser(line, shot));
        return actions;
    }

    chooser(line, shot) {
        const options = shot.takes.map((take) => {
            const told = Object.entries(take.measures).map(([name, value]) => `${name} ${Number(value.toPrecision(3))}`);
            const label = [text("take_n", { n: take.take }), ...told].join(" · ");
            const selected = line.take == null ? take.chosen : take.take === line.take;
            return element("option", { value: String(take.take), selected }, label);
        });
        const onchange = (event) => this.edit(line.number, "take", event.target.value);
        const select = element("select", { ariaLabel: text("take", { n: line.number }), onchange }, ...options);
        select.dataset.act = `take-${line.number}`;
        return select;
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
        const dialog = element("dialog", { className: "skyreels-player" }, video, close);
        showDialog(dialog);
    }
}

function viewed(file) {
    return api.apiURL(`/view?${new URLSearchParams(file)}`);
}
