// HTML elements in one line each, and the pack's stylesheet.

/** element("button", { className: "x", onclick }, "text", child, ...) */
export function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
}

/** Opens a dialog over the page, which takes keys for its own: Delete would remove the node behind it. */
export function showDialog(dialog) {
    dialog.addEventListener("keydown", (event) => event.stopPropagation());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
}

/** Loads the stylesheet beside this file. */
export function addStyles() {
    const href = new URL("./skyreels.css", import.meta.url).href;
    document.head.append(element("link", { rel: "stylesheet", href }));
}
