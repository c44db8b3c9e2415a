// Asks the server what a run would make of a script. The grammar is the node's own, in Python: nothing here knows it.
import { api } from "../../../scripts/api.js";

const ROUTE = "/skyreels_v3/script";
const FILM = "/skyreels_v3/film";
const DIALOGUE = "/skyreels_v3/dialogue";

/** The server's answer to {text, official, model, shot_model}, or null where it has none, as without the route. */
export function checkScript(asked) {
    return ask(ROUTE, asked);
}

/** The same for a film: {text, cast, connected}; with {edit: {line, option, value}} the changed script, {text}. */
export function askFilm(asked) {
    return ask(FILM, asked);
}

/** Who speaks in the dialogue {text}: {names}, in the order of their places. */
export function askDialogue(asked) {
    return ask(DIALOGUE, asked);
}

async function ask(route, asked) {
    try {
        const answer = await api.fetchApi(route, { method: "POST", body: JSON.stringify(asked) });
        return answer.ok ? await answer.json() : null;
    } catch {
        return null; // no server just now: what is shown stays
    }
}
