// The lanes below the frames: what was said about each frame, by whom, and where we are.

import { el, fill } from "./dom.js";
import { runs, UNKNOWN } from "./labels.js";

const SYMBOLS = new Map([[-1, "−"], [0, "0"], [1, "+"], [UNKNOWN, "?"]]);
const STAGE_COLOURS = 6;

export class Timeline {
  #lanes = [];
  #length = 1;
  #colours = {};
  #sizes = new Map(); // canvas -> [width, height] as last laid out

  /** `onSeek(k)` hears where the pointer is held. */
  constructor(root, { onSeek }) {
    this.onSeek = onSeek;
    this.names = el("div", { class: "lane-names" });
    this.tracks = el("div", { class: "lane-tracks" });
    this.pending = el("div", { class: "pending", hidden: true });
    this.playhead = el("div", { class: "playhead" });
    this.hover = el("div", { class: "hover", hidden: true });
    this.tip = el("div", { class: "tip", hidden: true });
    this.area = el(
      "div",
      { class: "lane-area", id: "scrubber", role: "slider", tabindex: "0", "aria-label": "frame", "aria-valuemin": "0" },
      this.tracks, this.pending, this.hover, this.playhead, this.tip,
    );
    fill(root, this.names, this.area);
    this.#listen();
    new ResizeObserver(() => this.draw()).observe(this.area);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  open(length, fps) {
    this.#length = length;
    this.#lanes = [];
    this.fps = fps;
    this.area.setAttribute("aria-valuemax", String(length - 1));
  }

  /**
   * lanes: [{ id, name, kind, values | text }]; a lane with `text` says why there is nothing to see.
   * A label changes one lane of the same ones: only what differs is drawn again.
   */
  setLanes(lanes) {
    const before = this.#lanes;
    this.#lanes = lanes;
    const outline = ({ id, name, kind, text }) => `${id}\n${name}\n${kind}\n${text ?? ""}`;
    if (before.length === lanes.length && lanes.every((lane, index) => outline(lane) === outline(before[index]))) {
      lanes.forEach((lane, index) => same(lane, before[index]) || this.#drawLane(this.#canvas(index), lane));
      return;
    }
    fill(this.names, lanes.map((lane) => el("div", { class: `lane-name ${heightOf(lane)}` }, lane.name)));
    fill(this.tracks, lanes.map((lane) => {
      const content = lane.text ? el("span", { class: "withheld" }, lane.text) : el("canvas", { "aria-hidden": "true" });
      return el("div", { class: `lane ${heightOf(lane)}`, "data-lane": lane.id }, content);
    }));
    this.draw();
  }

  setFrame(k) {
    const share = (frame) => `${(100 * frame) / this.#length}%`;
    this.playhead.style.left = share(k);
    this.playhead.style.width = share(1);
    this.area.setAttribute("aria-valuenow", String(k));
    this.area.setAttribute("aria-valuetext", `frame ${k}, ${seconds(k, this.fps)}`);
  }

  /** The range that the next label would take, with the marks that bound it. */
  setPending([from, to], marks) {
    this.pending.hidden = false;
    this.pending.style.left = `${(100 * from) / this.#length}%`;
    this.pending.style.width = `${(100 * (to - from)) / this.#length}%`;
    this.pending.classList.toggle("has-start", marks.start !== null);
    this.pending.classList.toggle("has-end", marks.end !== null);
  }

  hidePending() {
    this.pending.hidden = true;
  }

  draw() {
    const style = getComputedStyle(document.documentElement);
    this.#colours = new Proxy({}, { get: (_, name) => style.getPropertyValue(`--${name}`).trim() });
    const canvases = this.#lanes.map((_, index) => this.#canvas(index));
    this.#sizes = new Map(canvases.map((canvas) => [canvas, [canvas?.clientWidth, canvas?.clientHeight]])); // all at once: one layout
    this.#lanes.forEach((lane, index) => this.#drawLane(canvases[index], lane));
  }

  #canvas(index) {
    return this.tracks.children[index]?.querySelector("canvas");
  }

  #drawLane(canvas, lane) {
    const [width, height] = this.#sizes.get(canvas) ?? [];
    if (!canvas || !width) return;
    const ratio = devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const x = (frame) => (frame * width) / this.#length;
    const pen = { context, width, height, x, colours: this.#colours, length: this.#length };
    PAINTERS[lane.kind](pen, lane);
  }

  #listen() {
    const frameAt = (event) => {
      const box = this.area.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      return Math.max(0, Math.min(this.#length - 1, Math.floor(share * this.#length)));
    };
    this.area.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.area.setPointerCapture(event.pointerId);
      this.onSeek(frameAt(event));
    });
    this.area.addEventListener("pointermove", (event) => {
      const frame = frameAt(event);
      if (event.buttons & 1) this.onSeek(frame);
      this.hover.hidden = this.tip.hidden = false;
      const left = `${(100 * (frame + 0.5)) / this.#length}%`;
      this.hover.style.left = this.tip.style.left = left;
      this.tip.style.transform = `translateX(${(-100 * (frame + 0.5)) / this.#length}%)`; // inside at both ends
      this.tip.textContent = `${frame} · ${seconds(frame, this.fps)}`;
    });
    this.area.addEventListener("pointerleave", () => {
      this.hover.hidden = this.tip.hidden = true;
    });
  }
}

/** Whether two lanes look the same: each value is a number, a word, null or a small object. */
function same(one, other) {
  if (one.values === other.values && one.value === other.value) return true;
  if (JSON.stringify(one.value) !== JSON.stringify(other.value)) return false;
  return one.values?.length === other.values?.length && (one.values ?? []).every((value, k) => value === other.values[k]);
}

/** Signed lanes need room above and below their middle; the ruler and single marks need little. */
function heightOf({ kind, text }) {
  if (kind === "tri" && !text) return "tall";
  return ["ruler", "outcome", "bits", "differs"].includes(kind) ? "low" : "";
}

export const seconds = (frame, fps) => `${(frame / fps).toFixed(2)} s`;

const PAINTERS = {
  ruler({ context, width, x, length, colours }) {
    const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
    const every = steps.find((step) => x(step) >= 64) ?? 10000;
    context.fillStyle = colours.muted;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (let frame = 0; frame < length; frame += every) {
      context.fillRect(Math.round(x(frame)), 0, 1, 5);
      const text = `${frame}`;
      if (x(frame) + 8 + context.measureText(text).width < width) context.fillText(text, x(frame) + 4, 10);
    }
  },

  /** Progressing stands above the middle, regressing below, stalled on it: colour is never the only cue. */
  tri({ context, height, x, colours }, { values }) {
    context.fillStyle = colours.line;
    context.fillRect(0, height / 2, x(values.length), 1);
    for (const [from, to, value] of runs(values)) {
      if (value === null || value === undefined) continue;
      const [top, tall] = { "-1": [0.5, 0.5], 0: [0.3, 0.4], 1: [0, 0.5] }[value] ?? [0.18, 0.64];
      block(context, { x: x(from), y: top * height, width: x(to) - x(from), height: tall * height }, colours, value);
    }
  },

  bits({ context, height, x, colours }, { values, symbol }) {
    for (const [from, to, value] of runs(values)) {
      if (value === null || value === 0) continue;
      context.fillStyle = colours["lane-strong"];
      context.fillRect(x(from), 2, Math.max(1, x(to) - x(from)), height - 4);
      label(context, symbol ?? "", { x: x(from), y: 2, width: x(to) - x(from), height: height - 4 }, colours["on-strong"]);
    }
  },

  frames({ context, height, x, colours }, { values }) {
    for (const [from, to, value] of runs(values)) {
      if (value === null) continue;
      const box = { x: x(from), y: value ? 0 : height * 0.6, width: x(to) - x(from), height: value ? height : height * 0.4 };
      context.fillStyle = value ? colours.plus : colours.zero;
      context.fillRect(box.x, box.y, Math.max(1, box.width - 1), box.height);
      if (value) label(context, "1", box, colours["on-strong"]);
    }
  },

  line({ context, height, x, colours }, { values, range }) {
    const known = values.filter((value) => value !== null);
    const [low, high] = range ?? [Math.min(...known), Math.max(...known)];
    const y = (value) => height - 3 - ((value - low) / (high - low || 1)) * (height - 6);
    context.strokeStyle = colours["lane-strong"];
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.beginPath();
    let drawing = false;
    values.forEach((value, frame) => {
      if (value !== null) context[drawing ? "lineTo" : "moveTo"](x(frame + 0.5), y(value));
      drawing = value !== null;
    });
    context.stroke();
  },

  stages({ context, height, x, length, colours }, { values: boundaries, names }) {
    const cuts = [0, ...boundaries, length];
    for (let stage = 0; stage + 1 < cuts.length; stage += 1) {
      const box = { x: x(cuts[stage]), y: 3, width: x(cuts[stage + 1]) - x(cuts[stage]), height: height - 6 };
      context.fillStyle = colours[`stage-${stage % STAGE_COLOURS}`];
      context.fillRect(box.x, box.y, box.width - 1, box.height);
      const name = names?.[stage] ? `${stage + 1} ${names[stage]}` : `${stage + 1}`;
      label(context, context.measureText(name).width + 8 < box.width ? name : `${stage + 1}`, box, colours["on-strong"]);
    }
    context.fillStyle = colours.ink;
    for (const cut of boundaries) context.fillRect(Math.round(x(cut)) - 1, 0, 2, height);
  },

  outcome({ context, height, x, length, colours }, { value }) {
    if (!value) return;
    const middle = x(value.frame + 0.5);
    context.fillStyle = value.value === "success" ? colours.plus : colours.minus;
    context.fillRect(x(value.frame), 0, Math.max(2, x(1)), height);
    context.font = "600 11px system-ui, sans-serif";
    context.textBaseline = "middle";
    const text = value.value === "success" ? "✓ success" : "✗ failure";
    const fits = middle + 8 + context.measureText(text).width < x(length);
    context.textAlign = fits ? "left" : "right";
    context.fillText(text, fits ? x(value.frame + 1) + 4 : x(value.frame) - 4, height / 2 + 0.5);
    context.textAlign = "left";
  },

  differs({ context, height, x, colours }, { values }) {
    for (const [from, to, differs] of runs(values)) {
      if (!differs) continue;
      hatch(context, { x: x(from), y: 2, width: Math.max(2, x(to) - x(from)), height: height - 4 }, colours.minus);
    }
  },
};

function block(context, box, colours, value) {
  const width = Math.max(1, box.width - 1);
  if (value === UNKNOWN) {
    hatch(context, { ...box, width }, colours.muted);
    return;
  }
  context.fillStyle = { "-1": colours.minus, 0: colours.zero, 1: colours.plus }[value];
  context.fillRect(box.x, box.y, width, box.height);
  label(context, SYMBOLS.get(value), { ...box, width }, colours["on-strong"]);
}

function label(context, text, box, colour) {
  if (!text || box.width < 12) return;
  context.fillStyle = colour;
  context.font = "600 11px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(text, box.x + box.width / 2, box.y + box.height / 2 + 0.5);
  context.textAlign = "left";
}

function hatch(context, { x, y, width, height }, colour) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.strokeRect(x + 0.75, y + 0.75, width - 1.5, height - 1.5);
  context.beginPath();
  for (let at = x - height; at < x + width; at += 6) {
    context.moveTo(at, y + height);
    context.lineTo(at + height, y);
  }
  context.stroke();
  context.restore();
}
