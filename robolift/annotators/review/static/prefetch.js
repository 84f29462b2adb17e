// The first frames of the item that probably comes next, fetched while this one is labelled.

import { splitItem } from "./api.js";
import { chunkOf } from "./frames.js";

const LIST_AT_MOST = 2000; // beyond that the list of items is too long to ask for at each item
const CALM_MS = 1500; // the frames of the item at hand go first

export class Prefetch {
  #timer = null;

  constructor(api, session) {
    Object.assign(this, { api, session });
  }

  after(item) {
    clearTimeout(this.#timer);
    const [kind, id] = splitItem(item);
    if (kind === "episode") this.#timer = setTimeout(() => this.#fetch(Number(id)).catch(() => undefined), CALM_MS);
  }

  /** Frames can be cached for ever, so a guess that turns out wrong costs one small request and nothing else. */
  async #fetch(index) {
    const next = await this.#guess(index);
    if (next === null) return;
    const { cameras, length } = await this.api.episode(next);
    const [start, stop] = chunkOf(0, length);
    await Promise.all(Object.keys(cameras).map((camera) => this.api.frames(`episodes/${next}`, camera, start, stop)));
  }

  async #guess(index) {
    const { num_episodes: count } = this.session.dataset;
    if (count > LIST_AT_MOST) return index + 1 < count ? index + 1 : null;
    const open = (await this.api.items("episode")).filter(({ state }) => state === "open").map(({ item }) => Number(splitItem(item)[1]));
    return open.find((other) => other > index) ?? open.find((other) => other !== index) ?? null;
  }
}
