// What the pack's own widgets say. English, and Chinese where ComfyUI's page is set to it; for another language add a
// table with the same keys. Keywords of the script and names of inputs stay as they are typed.
import { app } from "../../../scripts/app.js";

export const TEXTS = {
    en: {
        line: "Line",
        shot: "Shot",
        times: "From – to",
        length: "Length",
        rolls: "Rolls",
        seconds: "{n} s",
        total: "{time} new in {rolls}",
        one_roll: "1 roll",
        n_rolls: "{n} rolls",
        one_wrong: "1 wrong line",
        n_wrong: "{n} wrong lines",
        go_to: "Go to line {n}",
        wrong: "Wrong:",
        hint: "Note:",
        linked: "The script comes from a connection; its lines are checked when the job runs.",
        draw: "Draw the boxes of two speakers",
        where: "Where are the two speakers?",
        how:
            "Drag a box around each speaker, face and body. Drag inside a box to move it, at its corner to resize it. " +
            "Arrow keys move the chosen box, with Shift they resize it.",
        speaker_1: "1: left speaker",
        speaker_2: "2: right speaker",
        box: "Box of speaker {n}: {box}",
        no_box: "Speaker {n}: no box: half of the picture, or, with one recording, silent like everyone else.",
        mask: "mask_{n} is connected and counts before the box of speaker {n}.",
        box_linked: "box_{n} comes from a connection and can't be drawn: disconnect it first.",
        no_portrait: "No portrait is connected: connect Load Image to portrait, then draw on it.",
        unseen: "“{title}” has no picture yet: run it once, or connect Load Image to portrait directly.",
        broken: "The picture of “{title}” can't be shown: choose it again there.",
        clear: "No boxes",
        cancel: "Cancel",
        apply: "Apply",
    },
    zh: {
        line: "行",
        shot: "镜头",
        times: "起止",
        length: "时长",
        rolls: "段数",
        seconds: "{n} 秒",
        total: "新内容 {time}，共 {rolls}",
        one_roll: "1 段",
        n_rolls: "{n} 段",
        one_wrong: "1 行有误",
        n_wrong: "{n} 行有误",
        go_to: "跳到第 {n} 行",
        wrong: "有误：",
        hint: "提示：",
        linked: "脚本来自连线，运行时才检查。",
        draw: "框出两位说话人",
        where: "两位说话人在哪里？",
        how:
            "在每位说话人（脸和身体）周围拖出一个框。在框内拖动可移动，拖动框角可改变大小。" +
            "方向键移动选中的框，按住 Shift 则改变大小。",
        speaker_1: "1：左边的人",
        speaker_2: "2：右边的人",
        box: "说话人 {n} 的框：{box}",
        no_box: "说话人 {n}：没有框：使用画面的那一半；只有一段录音时，和其他人一样不说话。",
        mask: "mask_{n} 已连接，优先于说话人 {n} 的框。",
        box_linked: "box_{n} 来自连线，不能在这里画：请先断开。",
        no_portrait: "没有连接人像：把加载图像接到 portrait，再在上面画框。",
        unseen: "“{title}”还没有图片：先运行一次，或把加载图像直接接到 portrait。",
        broken: "“{title}”的图片无法显示：请在那里重新选择。",
        clear: "不用框",
        cancel: "取消",
        apply: "应用",
    },
};

/** The text of a key in the page's language, with {names} replaced by `values`. */
export function text(key, values = {}) {
    const language = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? "en";
    const words = (TEXTS[language] ?? TEXTS.en)[key];
    return words.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
