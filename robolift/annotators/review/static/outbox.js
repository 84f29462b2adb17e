// What was said and is not stored yet. It lives in localStorage, so neither a reload nor a lost network loses a mark.

const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const WAIT_MS = 200;
const BATCH = 200;
const BACK_OFF_MS = [500, 1000, 2000, 4000, 5000];

/** A ULID: 48 bits of time and 80 random ones, 26 characters. */
export function ulid(now = Date.now()) {
  let time = "";
  for (let rest = now, k = 0; k < 10; k += 1, rest = Math.floor(rest / 32)) time = CROCKFORD[rest % 32] + time;
  const random = crypto.getRandomValues(new Uint8Array(16));
  return time + Array.from(random, (byte) => CROCKFORD[byte % 32]).join("");
}

export class Outbox {
  #waiting = []; // events in the order in which they were made
  #epochs = new Map(); // item -> epoch of the lease under which it may be posted
  #chain = Promise.resolve();
  #timer = null;
  #failures = 0;
  #signedOut = false;
  #kept = true;
  #refused = new Map(); // item -> why the server does not take its events

  /**
   * @param {object} options api; scope, which names job and annotator; storage, localStorage; onChange(summary);
   *   onLost(item, error), when the lease is not ours or an event is refused
   */
  constructor({ api, scope, storage = localStorage, onChange, onLost }) {
    Object.assign(this, { api, storage, onChange, onLost, prefix: `robolift.outbox.${scope}.` });
    this.counter = `robolift.seq.${scope}`;
    const keys = Object.keys(storage).filter((key) => key.startsWith(this.prefix));
    this.#waiting = keys.map((key) => JSON.parse(storage.getItem(key))).sort((a, b) => a.seq - b.seq);
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden && this.#leave());
  }

  /** Makes an event durable here and sends it soon. */
  add(item, op, fields = {}) {
    const seq = this.nextSeq();
    const event = { ulid: ulid(), item, seq, op, from: null, to: null, value: null, client_ms: Date.now(), ...fields };
    this.#keep(event);
    this.#waiting.push(event);
    this.#changed();
    this.#schedule(WAIT_MS);
    return event;
  }

  #keep(event) {
    try {
      this.storage.setItem(this.prefix + event.ulid, JSON.stringify(event));
    } catch {
      this.#kept = false; // storage is full: the event is in memory only, which must be told
    }
  }

  nextSeq() {
    const seq = Number(this.storage.getItem(this.counter) ?? 0) + 1;
    this.storage.setItem(this.counter, String(seq));
    return seq;
  }

  /** The counter never falls behind what the server already has from this annotator. */
  atLeast(seq) {
    if (seq > Number(this.storage.getItem(this.counter) ?? 0)) this.storage.setItem(this.counter, String(seq));
  }

  of(item) {
    return this.#waiting.filter((event) => event.item === item);
  }

  items() {
    return [...new Set(this.#waiting.map((event) => event.item))];
  }

  get summary() {
    const refused = [...this.#refused].map(([item, why]) => ({ item, why, count: this.of(item).length }));
    return {
      unsaved: this.#waiting.length,
      offline: this.#failures > 0,
      signedOut: this.#signedOut,
      refused: refused.filter(({ count }) => count),
      kept: this.#kept || !this.#waiting.length,
    };
  }

  /** From now on events of `item` go out under this lease. */
  allow(item, epoch) {
    this.#epochs.set(item, epoch);
    this.#refused.delete(item);
    this.#schedule(0);
  }

  forbid(item) {
    this.#epochs.delete(item);
  }

  /** Runs `work` while nothing is being posted: a renewed lease must not overtake a post made under the old one. */
  exclusive(work) {
    const result = this.#chain.then(work);
    this.#chain = result.catch(() => undefined);
    return result;
  }

  /** Sends all that may go; true when nothing of `item` is left here. */
  async settle(item) {
    clearTimeout(this.#timer);
    this.#timer = null;
    await this.exclusive(() => this.#post());
    return this.of(item).length === 0;
  }

  hurry() {
    this.#schedule(0);
  }

  /** Forgets events that the annotator decided to give up, and returns them. */
  discard(item) {
    const gone = this.of(item);
    this.#forget(gone.map((event) => event.ulid));
    this.#refused.delete(item);
    this.#changed();
    return gone;
  }

  #schedule(delay) {
    if (this.#timer !== null && delay > 0) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.exclusive(() => this.#post());
    }, delay);
  }

  async #post() {
    for (const item of this.items()) {
      while (this.#epochs.has(item) && !this.#refused.has(item) && this.of(item).length) {
        if (!(await this.#postBatch(item))) return;
      }
    }
  }

  /** One request; false when the server can't be reached, so that the rest waits too. */
  async #postBatch(item) {
    const events = this.of(item).slice(0, BATCH).map(({ item: _, ...event }) => event);
    try {
      const { stored } = await this.api.events(item, this.#epochs.get(item), events);
      this.#forget(stored);
      this.#failures = 0;
      this.#changed();
      return stored.length > 0;
    } catch (error) {
      return this.#failed(item, error);
    }
  }

  #failed(item, error) {
    this.#signedOut = error.status === 401;
    if (error.passing || error.status === 401 || error.status === 403) {
      this.#schedule(BACK_OFF_MS[Math.min(this.#failures, BACK_OFF_MS.length - 1)]);
      this.#failures += 1;
      this.#changed();
      return false;
    }
    this.#refused.set(item, error.message);
    this.#epochs.delete(item);
    this.#changed();
    this.onLost(item, error);
    return true;
  }

  /** The page goes away: one last try that outlives it. What does not arrive is still in storage. */
  #leave() {
    for (const item of this.items()) {
      const events = this.of(item).slice(0, BATCH).map(({ item: _, ...event }) => event);
      if (this.#epochs.has(item)) {
        this.api.events(item, this.#epochs.get(item), events, { leaving: true }).then(
          ({ stored }) => { this.#forget(stored); this.#changed(); },
          () => undefined,
        );
      }
    }
  }

  #forget(ulids) {
    const gone = new Set(ulids);
    for (const id of gone) this.storage.removeItem(this.prefix + id);
    this.#waiting = this.#waiting.filter((event) => !gone.has(event.ulid));
  }

  #changed() {
    this.onChange(this.summary);
  }
}
