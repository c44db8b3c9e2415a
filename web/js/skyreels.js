// What the pack adds to its nodes on ComfyUI's page. Without it every node works the same, by typing.
import { app } from "../../../scripts/app.js";
import { addBoxPicker, addHeadPicker } from "./box_picker.js";
import { addStyles } from "./elements.js";
import { checkScript } from "./script_check.js";
import { addFilmPanel } from "./film_panel.js";
import { addScriptPanel } from "./script_panel.js";

const ADDED = {
    SkyReelsExtendVideo: (node) => addScriptPanel(node),
    SkyReelsFilm: addFilmPanel,
    SkyReelsTalkingAvatar: addBoxPicker,
    SkyReelsAvatarWindow: addBoxPicker,
    SkyReelsDubVideo: addHeadPicker,
};

app.registerExtension({
    name: "SkyReels-V3",
    async init() {
        addStyles();
        // Before the first node is made: an empty panel would stay under the script of a server without the route.
        if ((await checkScript({ text: "" })) === null) {
            delete ADDED.SkyReelsExtendVideo;
            delete ADDED.SkyReelsFilm;
        }
    },
    nodeCreated(node) {
        ADDED[node.comfyClass]?.(node);
    },
});
