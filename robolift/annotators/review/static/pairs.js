// Which of two clips is better: both play together and loop, in the order that the server drew for this annotator.

import { el, fill, find, findAll } from "./dom.js";
import { BITMAPS_BYTES } from "./frames.js";
import { Player } from "./player.js";
import { Record } from "./record.js";

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const footageOf = ({ episode, clip }) => (clip === undefined ? `episodes/${episode}` : `clips/${clip}`);
const WORDS = { A: "A is better", B: "B is better", tie: "Alike" };

export class PairView {
  tools = new Set();
  #place = 0;
  #playing = false;
  #speed = 1;

  constructor(app) {
    this.app = app;
    this.root = find("#pair");
    this.players = ["#clip-a", "#clip-b"].map((selector) => new Player(find(selector), { onFrame: () => this.#shown(), budget: BITMAPS_BYTES / 2 }));
    find("#pair-place").addEventListener("input", (event) => {
      this.#pause();
      this.#seek(Number(event.target.value));
    });
  }

  /** Shows a pair; `mine` is what the server has of this annotator, `pair` which clips it has. */
  async open(item, mine, pair) {
    const { api, outbox } = this.app;
    const footage = [pair.a, pair.b].map(footageOf);
    const facts = await Promise.all(footage.map((name) => api.footage(name)));
    Object.assign(this, { item, pair });
    this.root.hidden = false;
    this.clips = [pair.a, pair.b];
    this.lengths = this.clips.map(({ start, stop }) => stop - start);
    this.length = Math.max(...this.lengths);
    this.fps = facts[0].fps;
    this.#place = 0;
    find("#pair-place").max = String(this.length - 1);
    this.record = new Record({ outbox, item, length: 0, onChange: (state) => this.#changed(state) });
    this.record.restore(mine);
    const shown = this.players.map((player, side) => player.open(api, { ...this.clips[side], footage: footage[side], facts: facts[side] }));
    Promise.all(shown).then(() => this.item === item && !this.record?.closed && !calm() && this.#play(), (error) => this.app.trouble(error));
  }

  close() {
    this.#pause();
    this.players.forEach((player) => player.close());
    this.record = null;
    this.root.hidden = true;
  }

  async reload() {}

  /** Place k of the pair is frame start + k of each clip; the shorter one holds its last frame. */
  #seek(place) {
    this.#place = Math.max(0, Math.min(this.length - 1, place));
    const shown = this.players.map((player, side) =>
      player.seek(this.clips[side].start + Math.min(this.#place, this.lengths[side] - 1)));
    return Promise.all(shown).catch((error) => this.app.trouble(error));
  }

  #shown() {
    find("#pair-place").value = String(this.#place);
    find("#pair-frame").textContent = String(this.#place);
    find("#pair-of").textContent = `of 0–${this.length - 1} · ${(this.#place / this.fps).toFixed(2)} s`;
  }

  #play() {
    if (this.#playing) return;
    this.#playing = true;
    fill(find("#pair-play"), "❚❚");
    let due = performance.now();
    const tick = async (now) => {
      if (!this.#playing) return;
      const frame_ms = 1000 / (this.fps * this.#speed);
      if (now >= due) {
        due = Math.max(due + frame_ms, now - frame_ms);
        await this.#seek((this.#place + 1) % this.length); // both clips have it before time goes on
      }
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  #pause() {
    this.#playing = false;
    fill(find("#pair-play"), "▶");
  }

  #changed({ prefer, complete, skipped }) {
    for (const button of findAll(".choice .big")) {
      button.setAttribute("aria-pressed", String(button.dataset.command === `prefer:${prefer}`));
    }
    const closed = complete || skipped !== null;
    const notice = find("#pair-notice");
    notice.hidden = !closed;
    if (complete) fill(notice, el("strong", {}, `Complete: ${WORDS[prefer] ?? "–"}.`), " Enter goes on, r reopens.");
    else if (closed) fill(notice, el("strong", {}, "Skipped: "), skipped, ". Enter goes on, r takes it up again.");
    find("#pair-reopen").hidden = !closed;
    const finish = find("#pair-complete");
    fill(finish, closed ? "Next item " : "Complete ", el("kbd", {}, "Enter"));
    finish.classList.toggle("ready", closed || prefer !== null);
  }

  /** Runs a command of the table of keys; false when it is not one of this view's. */
  run(command) {
    const [name, value] = command.split(":");
    const action = this.#actions[name];
    if (!action) return false;
    action(value);
    return true;
  }

  #step(count) {
    this.#pause();
    this.#seek(this.#place + count);
  }

  #actions = {
    step: (count) => this.#step(Number(count)),
    first: () => this.#step(-this.length),
    last: () => this.#step(this.length),
    play: () => (this.#playing ? this.#pause() : this.#play()),
    slower: () => { this.#speed = Math.max(0.5, this.#speed / 2); },
    faster: () => { this.#speed = Math.min(2, this.#speed * 2); },
    camera: () => this.players.forEach((player) => player.enlargeNext()),
    prefer: (value) => this.#prefer(value),
    undo: () => this.#history("undo", "Undone"),
    redo: () => this.#history("redo", "Done again"),
  };

  #open() {
    if (this.record.closed) this.app.say("This pair is done; r reopens it.");
    return !this.record.closed;
  }

  /** The same answer twice is a quick way to complete. */
  #prefer(value) {
    if (!this.#open()) return;
    if (this.record.state.prefer === value) {
      this.app.run("complete");
      return;
    }
    this.record.say("prefer", { value });
    this.app.say(`${WORDS[value]}. Enter, or the same key again, completes.`);
  }

  #history(way, words) {
    if (!this.#open()) return;
    this.app.say(this.record[way]() ? words : `Nothing to ${way}.`);
  }

  complete() {
    if (this.record.state.prefer === null) {
      this.app.say("Not complete yet: say which clip is better with a, b or t.", "refused");
      return false;
    }
    this.#pause();
    this.record.say("complete");
    this.app.say("Complete.");
    return true;
  }
}
