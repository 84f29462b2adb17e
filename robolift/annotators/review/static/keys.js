// One table of keys: it drives the keyboard, the sheet of keys and the tooltips of buttons.

import { el, fill, findAll } from "./dom.js";

const EPISODE = "episode";
const PAIR = "pair";

/** command, key as the browser names it, key as it is shown, what it does, group, mode, tool. */
const TABLE = [
  ["step:-1", "ArrowLeft", "←", "One frame back", "Move"],
  ["step:1", "ArrowRight", "→", "One frame on", "Move"],
  ["step:-10", "Shift+ArrowLeft", "Shift ←", "Ten frames back", "Move"],
  ["step:10", "Shift+ArrowRight", "Shift →", "Ten frames on", "Move"],
  ["edge:-1", "ArrowUp", "↑", "Previous edge of a segment", "Move", EPISODE],
  ["edge:1", "ArrowDown", "↓", "Next edge of a segment", "Move", EPISODE],
  ["first", "Home", "Home", "First frame", "Move"],
  ["last", "End", "End", "Last frame", "Move"],
  ["play", " ", "Space", "Play or pause", "Move"],
  ["slower", ",", ",", "Slower: half, normal, double", "Move"],
  ["faster", ".", ".", "Faster", "Move"],
  ["camera", "c", "c", "Enlarge the next camera", "Move"],
  ["mark:start", "[", "[", "A segment starts at this frame", "Label", EPISODE],
  ["mark:end", "]", "]", "A segment ends with this frame", "Label", EPISODE],
  ["mark:clear", "Escape", "Esc", "Forget the marks [ and ]", "Label", EPISODE],
  ["paint:-1", "1", "1", "Regressing", "Label", EPISODE, "segments"],
  ["paint:0", "2", "2", "Stalled", "Label", EPISODE, "segments"],
  ["paint:1", "3", "3", "Progressing", "Label", EPISODE, "segments"],
  ["paint:unknown", "0", "0", "Unknown: it can't be told", "Label", EPISODE, "segments"],
  ["frame:0", "0", "0", "Reward 0 for this frame, and one frame on", "Label", EPISODE, "frames"],
  ["frame:1", "1", "1", "Reward 1 for this frame, and one frame on", "Label", EPISODE, "frames"],
  ["erase", "Backspace", "⌫", "Take labels off the range", "Label", EPISODE],
  ["outcome:success", "s", "s", "Success, seen at this frame", "Label", EPISODE, "outcome"],
  ["outcome:failure", "f", "f", "Failure, seen at this frame", "Label", EPISODE, "outcome"],
  ["boundary", "b", "b", "The next task stage starts here (again: not here)", "Label", EPISODE, "stages"],
  ["prefer:A", "a", "a", "A is better", "Label", PAIR],
  ["prefer:B", "b", "b", "B is better", "Label", PAIR],
  ["prefer:tie", "t", "t", "They are alike", "Label", PAIR],
  ["undo", "u", "u", "Undo", "Label"],
  ["redo", "Shift+u", "Shift U", "Redo", "Label"],
  ["tool", "v", "v", "Switch between segments and single frames", "Label", EPISODE, "both"],
  ["complete", "Enter", "Enter", "Complete; once complete, on to the next", "Item"],
  ["skip", "n", "n", "Skip, with a reason", "Item"],
  ["reopen", "r", "r", "Reopen what was completed or skipped", "Item"],
  ["job", "g", "g", "The job: progress and list of items", "Pages"],
  ["disagreements", "d", "d", "Where annotators disagree", "Pages"],
  ["mode", "m", "m", "Switch between episodes and pairs", "Pages"],
  ["help", "?", "?", "This sheet", "Pages"],
].map(([command, key, shown, text, group, mode, tool]) => ({ command, key, shown, text, group, mode, tool }));

/** Keys that count in a mode with these tools ("segments", "frames", "outcome", "stages", "both"). */
export function keysFor(mode, tools) {
  return TABLE.filter((row) => (!row.mode || row.mode === mode) && (!row.tool || tools.has(row.tool)));
}

/** The command of a key press, or null; keys typed into fields, or pressed with Ctrl, Alt or Meta, are not ours. */
export function commandOf(event, mode, tools) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return null;
  const { target } = event;
  // The field or button of a dialog that was just closed keeps the focus until the next rendering.
  if (target.closest?.("input:not([type='range']), textarea, select")?.checkVisibility()) return null;
  if ((event.key === " " || event.key === "Enter") && target.closest?.("button, a, summary")?.checkVisibility()) return null;
  const plain = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const named = event.shiftKey && (plain.startsWith("Arrow") || /^[a-z]$/.test(plain)) ? `Shift+${plain}` : plain;
  return keysFor(mode, tools).find(({ key }) => key === named)?.command ?? null;
}

/** Buttons say which key does the same. */
export function nameKeys(mode, tools) {
  const rows = new Map(keysFor(mode, tools).map((row) => [row.command, row]));
  for (const button of findAll("[data-command]")) {
    const row = rows.get(button.dataset.command);
    if (!row) continue;
    button.title = `${row.text} (${row.shown})`;
    button.setAttribute("aria-keyshortcuts", row.key === " " ? "Space" : row.key);
    if (!button.textContent.trim()) button.setAttribute("aria-label", row.text);
    const shown = button.querySelector("kbd");
    if (shown) shown.textContent = row.shown;
  }
}

/** The sheet of keys, by group. */
export function keySheet(mode, tools) {
  const rows = keysFor(mode, tools);
  const groups = [...new Set(rows.map(({ group }) => group))];
  return groups.map((group) =>
    el(
      "section",
      {},
      el("h3", {}, group),
      el("dl", { class: "keys" }, rows.filter((row) => row.group === group).map(({ shown, text }) => [
        el("dt", {}, shown.split(" ").map((key) => el("kbd", {}, key))),
        el("dd", {}, text),
      ]).flat()),
    ),
  );
}

/** What a key that is held does again and again; anything else it does once. */
const repeats = (command) => /^(step|edge|undo|redo)\b/.test(command);

/** Hands keys and clicks to `run(command)`; `context()` says which keys count now, or null while a dialog is open. */
export function listen(run, context) {
  const held = new Map(); // key on the keyboard -> the command that its press was, until it is let go
  document.addEventListener("keydown", (event) => {
    const button = event.target.closest?.("button, a, summary");
    const first = held.get(event.code) ?? (event.repeat ? button?.dataset.command ?? (button ? "press" : null) : null);
    if (first && !repeats(first)) {
      event.preventDefault(); // nor may it press a button of a dialog that the first press opened
      return;
    }
    const now = context();
    const command = now && commandOf(event, now.mode, now.tools);
    if (!command) return;
    event.preventDefault();
    if (event.repeat && !repeats(command)) return;
    if (event.code) held.set(event.code, command);
    run(command);
  });
  document.addEventListener("keyup", (event) => held.delete(event.code));
  addEventListener("blur", () => held.clear());
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-command]");
    if (!button || button.getAttribute("aria-disabled") === "true") return;
    // After a click with the mouse the space bar must play, not press the same button again.
    if (event.detail > 0) button.blur();
    run(button.dataset.command);
  });
}

export const fillSheet = (element, mode, tools) => fill(element, keySheet(mode, tools));
