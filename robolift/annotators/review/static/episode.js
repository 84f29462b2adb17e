// Labelling one episode: frames, lanes and the panel, and what each command does to them.

import { splitItem } from "./api.js";
import { el, fill, find, plural } from "./dom.js";
import { edges, missing, pendingRange, UNKNOWN } from "./labels.js";
import { comparison, lanesOf } from "./lanes.js";
import { Panel } from "./panel.js";
import { Player, SPEEDS } from "./player.js";
import { Record } from "./record.js";
import { seconds, Timeline } from "./timeline.js";

const NAMES = { "-1": "regressing", 0: "stalled", 1: "progressing", [UNKNOWN]: "unknown", null: "nothing" };

export class EpisodeView {
  #marks = { start: null, end: null };
  #lanes = null;
  #others = null;

  constructor(app) {
    this.app = app;
    this.job = app.session.job;
    this.tool = this.job.ask.includes("segments") ? "segments" : this.job.ask.includes("frames") ? "frames" : null;
    this.root = find("#episode");
    this.panel = new Panel(find("#panel"), this.job);
    this.panel.setTool(this.tool);
    this.timeline = new Timeline(find("#timeline"), { onSeek: (k) => this.#seek(k) });
    this.player = new Player(find("#cameras"), {
      onFrame: (k) => this.#shown(k),
      onWait: (k) => this.#waits(k),
      onPlay: (playing) => fill(find("#play"), playing ? "❚❚" : "▶"),
    });
  }

  get tools() {
    const tools = new Set(this.job.ask.filter((ask) => ask !== "segments" && ask !== "frames"));
    if (this.tool) tools.add(this.tool);
    if (this.job.ask.includes("segments") && this.job.ask.includes("frames")) tools.add("both");
    return tools;
  }

  /** Shows an item; `mine` is what the server has of this annotator, `episode` what it is. */
  async open(item, mine, episode) {
    const { api, outbox } = this.app;
    const index = Number(splitItem(item)[1]);
    Object.assign(this, { item, index, episode });
    [this.#lanes, this.#others] = [null, null];
    this.#marks = { start: null, end: null };
    this.root.hidden = false;
    this.timeline.open(episode.length, episode.fps);
    this.record = new Record({ outbox, item, length: episode.length, onChange: () => this.#changed() });
    this.record.restore(mine);
    const onTrouble = (text) => text && this.app.say(text);
    this.player.open(api, { footage: `episodes/${index}`, facts: episode, onTrouble }).catch((error) => this.app.trouble(error));
    find("#frame-of").textContent = "";
    await this.reload();
  }

  close() {
    this.player.close();
    this.record = null;
    this.root.hidden = true;
  }

  /** Asks for the lanes anew: those that were withheld come after one's own pass. */
  async reload() {
    const { api } = this.app;
    const { item } = this;
    if (!this.record) return;
    const complete = this.record.state.complete;
    const [lanes, others] = await Promise.all([
      api.lanes(this.index),
      complete ? api.others(this.index).catch(() => null) : null,
    ]);
    if (this.item !== item || !this.record) return;
    this.#lanes = lanes;
    this.#others = others?.annotators ?? null;
    this.#changed();
  }

  #seek(k) {
    this.player.pause();
    this.player.seek(k).catch((error) => this.app.trouble(error));
  }

  #shown(k) {
    this.timeline.setFrame(k);
    find("#frame-number").textContent = String(k);
    find("#frame-of").textContent = `of 0–${this.episode.length - 1} · ${seconds(k, this.episode.fps)}`;
    this.#showPending();
  }

  #waits(k) {
    const waiting = find("#waiting");
    waiting.hidden = k === null;
    const kept = this.player.frame === null ? "" : `, still showing ${this.player.frame}`;
    waiting.textContent = k === null ? "" : `Loading frame ${k}${kept}`;
  }

  get #values() {
    return this.tool === "frames" ? this.record.state.frames : this.record.state.tri;
  }

  /** The range of the next label: single frames where frames are asked, unless marks say otherwise. */
  #range() {
    const here = this.player.frame ?? 0;
    const unmarked = this.#marks.start === null && this.#marks.end === null;
    if (this.tool === "frames" && unmarked) return [here, here + 1];
    return pendingRange(this.#values, this.#marks, here);
  }

  #showPending() {
    if (!this.tool || !this.record || this.record.closed || this.player.frame === null) {
      this.timeline.hidePending();
      return;
    }
    const [from, to] = this.#range();
    this.timeline.setPending([from, to], this.#marks);
    this.panel.setRange(to - from === 1 ? `Next label: frame ${from}` : `Next label: frames ${from}–${to - 1}`);
  }

  #changed() {
    if (!this.record) return;
    const { state } = this.record;
    const left = missing(state, this.job);
    this.panel.update(state, left, { readOnly: this.record.closed });
    this.timeline.setLanes(lanesOf({ state, lanes: this.#lanes, exist: this.app.session.lanes, others: this.#others, job: this.job, fps: this.episode.fps }));
    const rows = state.complete && this.#others ? comparison({ state, lanes: this.#lanes, others: this.#others, fps: this.episode.fps }) : null;
    this.panel.setComparison(rows);
    this.#notice(state);
    this.#showPending();
    if (this.player.frame !== null) this.timeline.setFrame(this.player.frame);
  }

  #notice(state) {
    const notice = find("#notice");
    notice.hidden = !this.record.closed;
    if (state.complete) fill(notice, el("strong", {}, "Complete."), " Compare below; Enter goes on, r reopens.");
    else if (state.skipped !== null) fill(notice, el("strong", {}, "Skipped: "), state.skipped, ". Enter goes on, r takes it up again.");
  }

  /** Runs a command of the table of keys; false when it is not one of this view's. */
  run(command) {
    const [name, value] = command.split(":");
    const action = this.#actions[name];
    if (!action) return false;
    action(value);
    return true;
  }

  #actions = {
    step: (count) => this.player.step(Number(count)).catch((error) => this.app.trouble(error)),
    first: () => this.#seek(0),
    last: () => this.#seek(this.episode.length - 1),
    edge: (direction) => this.#toEdge(Number(direction)),
    play: () => this.player.toggle(),
    slower: () => this.#speed(-1),
    faster: () => this.#speed(1),
    camera: () => this.player.enlargeNext(),
    tool: () => this.#switchTool(),
    mark: (which) => this.#mark(which),
    paint: (value) => this.#label("paint", value === UNKNOWN ? value : Number(value), NAMES[value]),
    frame: (value) => this.#label("frame_reward", Number(value), `reward ${value}`),
    erase: () => this.#label(this.tool === "frames" ? "frame_reward" : "paint", null, "nothing"),
    outcome: (value) => this.#outcome(value),
    boundary: () => this.#boundary(),
    undo: () => this.#history("undo", "Undone"),
    redo: () => this.#history("redo", "Done again"),
  };

  #speed(direction) {
    const at = SPEEDS.indexOf(this.player.speed) + direction;
    this.player.setSpeed(SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, at))]);
    find("#speed").textContent = `${String(this.player.speed).replace("0.5", "½")}×`;
  }

  #switchTool() {
    this.tool = this.tool === "segments" ? "frames" : "segments";
    this.panel.setTool(this.tool);
    this.app.nameKeys();
    this.#showPending();
    this.app.say(this.tool === "frames" ? "Single frames: keys 0 and 1" : "Segments: keys 1, 2, 3 and 0");
  }

  #toEdge(direction) {
    const here = this.player.wanted;
    const found = edges(this.record.state);
    const next = direction > 0 ? found.find((frame) => frame > here) : found.findLast((frame) => frame < here);
    if (next !== undefined) this.#seek(next);
  }

  /** Frames can be labelled once they are seen, and while the item is open. */
  #ready() {
    if (this.record.closed) {
      this.app.say(this.record.state.complete ? "This item is complete; r reopens it." : "This item is skipped; r takes it up again.");
      return false;
    }
    return this.player.frame !== null;
  }

  #mark(which) {
    if (!this.tool || !this.#ready()) return;
    const here = this.player.frame;
    this.#marks = which === "clear" ? { start: null, end: null } : { ...this.#marks, [which]: here };
    this.#showPending();
    const words = { start: `Segment starts at ${here}`, end: `Segment ends with ${here}`, clear: "Marks forgotten" };
    this.app.say(words[which]);
  }

  #label(op, value, words) {
    if (!this.tool || !this.#ready()) return;
    const [from, to] = this.#range();
    const single = this.tool === "frames" && this.#marks.start === null && this.#marks.end === null;
    if (single && this.player.wanted !== from) {
      this.app.say(`Frame ${this.player.wanted} is still loading: nothing was labelled.`, "refused");
      return;
    }
    this.#marks = { start: null, end: null };
    this.record.say(op, { from, to, value });
    this.app.say(to - from === 1 ? `Frame ${from}: ${words}` : `Frames ${from}–${to - 1}: ${words}`);
    if (single && value !== null) this.#seek(from + 1);
  }

  #outcome(value) {
    if (!this.#ready()) return;
    const { outcome } = this.record.state;
    const again = outcome?.value === value && outcome.frame === this.player.frame;
    this.record.say("outcome", { from: this.player.frame, value: again ? null : value });
    this.app.say(again ? "Outcome taken off" : `Outcome: ${value} at frame ${this.player.frame}`);
  }

  #boundary() {
    if (!this.#ready()) return;
    const here = this.player.frame;
    const there = this.record.state.boundaries.includes(here);
    const most = this.job.num_task_stages - 1;
    if (here === 0) this.app.say("The first stage starts at frame 0 anyway.");
    else if (!there && this.record.state.boundaries.length >= most) {
      this.app.say(`${plural(this.job.num_task_stages, "stage")} have ${plural(most, "boundary").replace("boundarys", "boundaries")}; take one off first (b on it).`);
    } else {
      this.record.say("boundary", { from: here, value: !there });
      this.app.say(there ? `No stage starts at ${here}` : `A stage starts at ${here}`);
    }
  }

  #history(way, words) {
    if (!this.#ready()) return;
    const mark = this.record[way]();
    if (!mark) this.app.say(`Nothing to ${way}.`);
    else this.app.say(mark.from === null ? words : `${words}: ${describe(mark)}`);
  }

  /** Completes the item, or says what is missing and goes to where it is. True when it is complete now. */
  complete() {
    const [first] = missing(this.record.state, this.job);
    if (first) {
      if (first.frame !== null) this.#seek(first.frame);
      this.app.say(`Not complete yet: ${first.text}.`, "refused");
      return false;
    }
    this.player.pause();
    this.record.say("complete");
    this.app.say("Complete.");
    return true;
  }
}

function describe({ op, from, to, value }) {
  if (op === "paint") return `${NAMES[value]} on ${from}–${to - 1}`;
  if (op === "frame_reward") return `reward ${value ?? "none"} on ${from}–${to - 1}`;
  if (op === "outcome") return `outcome ${value ?? "none"} at ${from}`;
  return `${value ? "boundary" : "no boundary"} at ${from}`;
}
