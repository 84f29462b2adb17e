// One annotator's events on one item: what the server has, then what still waits here.

import { fold } from "./labels.js";

export class Record {
  #events = [];

  /** `length` is the episode's, 0 for a pair; onChange(state) after every event. */
  constructor({ outbox, item, length, onChange }) {
    Object.assign(this, { outbox, item, length, onChange });
  }

  /**
   * Takes what the server answered as `mine` and puts the waiting events behind it. Returns how many of the server's
   * events were not known here: the annotator made them in another window.
   */
  restore({ events }) {
    const known = new Set(this.#events.map(({ ulid }) => ulid));
    this.outbox.learn(this.item, events);
    this.#events = [...events, ...this.outbox.of(this.item)];
    this.#refold();
    return events.filter(({ ulid }) => !known.has(ulid)).length;
  }

  say(op, fields = {}) {
    this.#events.push(this.outbox.add(this.item, op, fields, this.#events.length));
    this.#refold();
  }

  /** Undoes the last mark and returns it; null when there is none. */
  undo() {
    const mark = this.state.undoable.at(-1);
    if (!mark) return null;
    this.say("undo", { value: mark.ulid });
    return mark;
  }

  redo() {
    const mark = this.state.redoable.at(-1);
    if (!mark) return null;
    this.say("redo", { value: mark.ulid });
    return mark;
  }

  get closed() {
    return this.state.complete || this.state.skipped !== null;
  }

  #refold() {
    this.state = fold(this.#events, this.length);
    this.onChange(this.state);
  }
}
