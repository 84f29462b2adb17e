// The panel beside the frames: what may be said, what the next key would say, and what is still missing.

import { el, fill, percent } from "./dom.js";

const row = (command, symbol, text, key, tone) =>
  el("button", { "data-command": command, class: `say ${tone}` }, el("span", { class: "symbol", "aria-hidden": "true" }, symbol), el("span", {}, text), el("kbd", {}, key));

/** Builds the panel of what a job asks once; `update` keeps it true. */
export class Panel {
  constructor(root, job) {
    Object.assign(this, { root, job });
    const asks = (name) => job.ask.includes(name);
    this.range = el("p", { class: "range", id: "pending-text" });
    this.todo = el("ul", { class: "todo", "aria-label": "what this item needs" });
    this.compare = el("div", { class: "compare", hidden: true });
    this.finish = el("button", { "data-command": "complete", class: "primary", id: "complete" }, "Complete");
    this.reopen = el("button", { "data-command": "reopen", class: "quiet", hidden: true }, "Reopen ", el("kbd", {}, "r"));
    this.undo = el("button", { "data-command": "undo", class: "quiet" }, "Undo ", el("kbd", {}, "u"));
    this.redo = el("button", { "data-command": "redo", class: "quiet" }, "Redo ", el("kbd", {}, "Shift U"));
    this.skip = el("button", { "data-command": "skip", class: "quiet" }, "Skip ", el("kbd", {}, "n"));
    this.label = el(
      "div",
      { class: "labelling" },
      asks("segments") || asks("frames") ? this.#segments(asks) : null,
      asks("outcome") ? this.#outcome() : null,
      asks("stages") ? this.#stages() : null,
    );
    fill(
      root,
      this.label,
      this.compare,
      el("section", { class: "finish" }, this.todo, this.finish, this.reopen,
        el("div", { class: "pairs-of" }, this.undo, this.redo, this.skip)),
    );
  }

  #segments(asks) {
    this.segmentButtons = el("div", { class: "stack" },
      row("paint:1", "+", "Progressing", "3", "plus"),
      row("paint:0", "0", "Stalled", "2", "zero"),
      row("paint:-1", "−", "Regressing", "1", "minus"),
      row("paint:unknown", "?", "Unknown", "0", "unsure"));
    this.frameButtons = el("div", { class: "stack" },
      row("frame:1", "1", "Reward 1", "1", "plus"),
      row("frame:0", "0", "Reward 0", "0", "zero"));
    const both = asks("segments") && asks("frames");
    return el(
      "section",
      {},
      el("h2", {}, both ? "Label" : asks("segments") ? "Segment" : "Frame",
        both ? el("button", { "data-command": "tool", class: "quiet small" }, "switch ", el("kbd", {}, "v")) : null),
      this.range,
      this.segmentButtons,
      this.frameButtons,
      el("div", { class: "pairs-of" },
        el("button", { "data-command": "mark:start", class: "quiet", id: "mark-start" }, "Start ", el("kbd", {}, "[")),
        el("button", { "data-command": "mark:end", class: "quiet", id: "mark-end" }, "End ", el("kbd", {}, "]")),
        el("button", { "data-command": "erase", class: "quiet" }, "Erase ", el("kbd", {}, "⌫"))),
    );
  }

  #outcome() {
    return el("section", {}, el("h2", {}, "Outcome at this frame"), el("div", { class: "pairs-of" },
      row("outcome:success", "✓", "Success", "s", "plus"),
      row("outcome:failure", "✗", "Failure", "f", "minus")));
  }

  #stages() {
    return el("section", {}, el("h2", {}, "Task stages"), el("div", { class: "stack" },
      row("boundary", "|", "Next stage starts here", "b", "plain")));
  }

  /** What the next label takes, in words. */
  setRange(text) {
    if (this.range.textContent !== text) this.range.textContent = text;
  }

  setTool(tool) {
    if (this.segmentButtons) this.segmentButtons.hidden = tool !== "segments";
    if (this.frameButtons) this.frameButtons.hidden = tool !== "frames";
  }

  /** state folded from events; left, what is missing; readOnly, why nothing can be said now. */
  update(state, left, { readOnly }) {
    const asked = { segments: "Frames labelled", frames: "Frames with a reward", outcome: "Outcome", stages: "Task stages" };
    fill(this.todo, this.job.ask.filter((ask) => asked[ask]).map((ask) => {
      const open = left.find((entry) => entry.ask === ask);
      return el("li", { class: open ? "open" : "done" }, el("span", { "aria-hidden": "true" }, open ? "○" : "✓"),
        el("span", {}, `${asked[ask]}: ${detail(ask, state, this.job)}`, el("span", { class: "unseen" }, open ? " (missing)" : " (there)")));
    }));
    this.label.hidden = readOnly;
    this.undo.setAttribute("aria-disabled", String(!state.undoable.length));
    this.redo.setAttribute("aria-disabled", String(!state.redoable.length));
    fill(this.finish, readOnly ? "Next item " : "Complete ", el("kbd", {}, "Enter"));
    this.finish.classList.toggle("ready", state.complete || !left.length);
    this.reopen.hidden = !readOnly;
    this.skip.parentElement.hidden = readOnly;
    for (const name of ["success", "failure"]) {
      this.root.querySelector(`[data-command="outcome:${name}"]`)?.setAttribute("aria-pressed", String(state.outcome?.value === name));
    }
  }

  /** rows: [{ name, share, text }], agreement with the model and with others. */
  setComparison(rows) {
    this.compare.hidden = rows === null;
    if (rows === null) return;
    fill(this.compare, el("h2", {}, "Compared"), rows.length
      ? el("dl", {}, rows.map(({ name, share, text }) => [el("dt", {}, name), el("dd", {}, text ?? `${percent(share)} agree`)]).flat())
      : el("p", { class: "muted" }, "Nobody else has labelled this item yet."));
  }
}

function detail(ask, state, job) {
  const said = (values) => `${values.filter((value) => value !== null).length} / ${state.length}`;
  if (ask === "segments") return said(state.tri);
  if (ask === "frames") return said(state.frames);
  if (ask === "outcome") return state.outcome ? `${state.outcome.value} at ${state.outcome.frame}` : "–";
  return `${state.boundaries.length + 1} / ${job.num_task_stages}`;
}
