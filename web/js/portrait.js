// Which picture or video arrives at an input, as far as the page can know before a run.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const SUBGRAPH_INPUT = -10; // the page's id for the inputs of the subgraph that a node is in

// Nodes that load a file of the artist's, and their widget of its name.
const LOADERS = { LoadImage: "image", LoadImageOutput: "image", LoadVideo: "file" };

/** {url, title, moving} of the picture or video at a node's input, or {title} without any; null where no node is. */
export function pictureAt(node, name) {
    const from = sourceOf(node, name);
    return from && { title: from.title ?? from.type, url: chosenFile(from) ?? shown(from), moving: from.type === "LoadVideo" };
}

/** The node that is connected to an input, as `origin` finds it. */
export function sourceOf(node, name) {
    return origin(node, node.inputs?.findIndex((input) => input.name === name) ?? -1);
}

/** The node that an input's link starts at, through reroutes and out of subgraphs; undefined where there is none. */
function origin(node, slot) {
    const link = slot < 0 ? null : node.getInputLink(slot);
    if (!link) return undefined;
    if (Number(link.origin_id) === SUBGRAPH_INPUT) {
        const outside = app.graph.rootGraph ?? app.graph;
        const host = everyNode(outside).find((one) => one.subgraph === node.graph);
        return host && origin(host, link.origin_slot);
    }
    const from = node.graph.getNodeById(link.origin_id);
    return from?.type === "Reroute" ? origin(from, 0) : (from ?? undefined);
}

function everyNode(graph) {
    return graph.nodes.flatMap((node) => (node.subgraph ? [node, ...everyNode(node.subgraph)] : [node]));
}

/** The address of the file that a loading node is set to; null for other nodes. */
function chosenFile(node) {
    const value = node.widgets?.find((widget) => widget.name === LOADERS[node.type])?.value;
    const [, path, type] = /^(.*?)(?: \[(input|output|temp)\])?$/.exec(String(value ?? "")) ?? [];
    if (!path) return null;
    const slash = path.lastIndexOf("/");
    const where = {
        filename: path.slice(slash + 1),
        subfolder: path.slice(0, Math.max(0, slash)),
        type: type ?? (node.type === "LoadImageOutput" ? "output" : "input"),
        // As a picture arrives: what was painted away for a mask is there too.
        ...(LOADERS[node.type] === "image" ? { channel: "rgb" } : {}),
    };
    return api.apiURL(`/view?${new URLSearchParams(where)}`);
}

/** The address of the first picture that a node shows after a run. */
function shown(node) {
    return node.imgs?.[0]?.src ?? null;
}
