// Frames of a clip, of all its cameras: JPEG packs fetched in chunks, decoded to bitmaps around the frame shown.

import { ApiError } from "./api.js";

const FIRST = 8; // the first chunk is small, so the first frame is there at once
const CHUNK = 64;
const AHEAD = 10; // frames decoded beyond the one shown, in the direction of travel
const BEHIND = 3;
const AT_ONCE = 2; // chunks that are fetched together
const PASSED_MS = 120; // a chunk that scrubbing passes within this time of the last is not even asked for
export const BITMAPS_BYTES = 256 * 2 ** 20; // over all cameras: 70 frames of three cameras of 480x640
const PACKS_BYTES = 256 * 2 ** 20;
const RETRY_MS = [300, 1000, 3000, 8000];

/** The chunk that holds frame k: [0, 8), [8, 64), [64, 128), ... cut at the episode's end. */
export function chunkOf(k, length) {
  const start = k < FIRST ? 0 : Math.max(FIRST, Math.floor(k / CHUNK) * CHUNK);
  const stop = k < FIRST ? FIRST : (Math.floor(k / CHUNK) + 1) * CHUNK;
  return [start, Math.min(stop, length)];
}

const passed = () => new DOMException("no longer wanted", "AbortError");
const pause = (ms) => (ms > 0 ? new Promise((resolve) => setTimeout(resolve, ms)) : undefined);

export class Clip {
  #packs = new Map(); // chunk start -> { stop, jpegs: [camera][frame], bytes, used }
  #fetching = new Map(); // chunk start -> { pack: promise, abort }
  #queue = []; // chunks to fetch next, the most needed first
  #asked = -PASSED_MS; // when a chunk was last asked for
  #target = null; // the chunk that is waited for
  #bitmaps = new Map(); // frame -> [bitmap of each camera]
  #bytes = 1; // of the bitmaps of one frame, known after the first
  #decoding = new Map(); // frame -> promise
  #ahead = 0;
  #centre = 0; // the frame shown last
  #closed = false;

  /** Frames [start, stop) of `footage` of `length` frames; `onTrouble(text | null)` hears of failed fetches. */
  constructor(api, { footage, cameras, length, start = 0, stop = length, budget = BITMAPS_BYTES, onTrouble = () => undefined }) {
    Object.assign(this, { api, footage, cameras, length, start, stop, budget, onTrouble });
  }

  /** Bitmaps of frame k, one a camera, if they are decoded already. */
  get(k) {
    return this.#bitmaps.get(k) ?? null;
  }

  /** Bitmaps of frame k as soon as every camera has it; an AbortError where a frame far from it was wanted meanwhile. */
  async load(k) {
    if (this.#bitmaps.has(k)) return this.#bitmaps.get(k);
    const [start] = chunkOf(k, this.length);
    if (!this.#packs.has(start)) this.#want([start], this.#near(k, 1));
    if (!this.#decoding.has(k)) {
      const decoded = this.#decode(k).finally(() => this.#decoding.get(k) === decoded && this.#decoding.delete(k));
      this.#decoding.set(k, decoded);
    }
    return this.#decoding.get(k);
  }

  /** Decodes and fetches around frame k, which was reached by a step of `stride` frames: another such step comes first. */
  around(k, stride = 1) {
    const direction = Math.sign(stride) || 1;
    const near = [stride, -stride, 2 * stride];
    for (let step = 1; step <= AHEAD; step += 1) {
      near.push(step * direction);
      if (step <= BEHIND) near.push(-step * direction);
    }
    this.#centre = k;
    const room = Math.max(2, Math.floor(this.budget / this.#bytes) - 1);
    this.#decodeAhead(near.map((step) => k + step).filter((frame) => frame >= this.start && frame < this.stop).slice(0, room));
    const chunks = this.#near(k, direction);
    this.#want(chunks, chunks);
  }

  /** One frame after the other, and no further once the page has moved on: what is shown next must not queue behind. */
  async #decodeAhead(frames) {
    this.#ahead += 1;
    const turn = this.#ahead;
    for (const frame of frames) {
      if (turn !== this.#ahead) return;
      if (this.#packs.has(chunkOf(frame, this.length)[0])) await this.load(frame).catch(() => undefined);
    }
  }

  close() {
    this.#closed = true;
    this.#want([], []);
    for (const bitmaps of this.#bitmaps.values()) bitmaps.forEach((bitmap) => bitmap.close());
    this.#bitmaps.clear();
    this.#packs.clear();
  }

  /** The chunks that may be needed around frame k, the most needed first. */
  #near(k, direction) {
    const frames = [k, k + FIRST * direction, k + CHUNK * direction, k + 2 * CHUNK * direction, k - CHUNK * direction];
    const inside = frames.map((frame) => Math.max(this.start, Math.min(this.stop - 1, frame)));
    return [...new Set(inside.map((frame) => chunkOf(frame, this.length)[0]))];
  }

  /** From now on `queue` is fetched, in this order; what is under way and not among `keep` is given up. */
  #want(queue, keep) {
    this.#queue = queue;
    [this.#target] = queue;
    for (const start of this.#fetching.keys()) if (!keep.includes(start)) this.#giveUp(start);
    for (const start of [...this.#fetching.keys()].reverse()) {
      if (this.#fetching.size < AT_ONCE || this.#packs.has(this.#target) || this.#fetching.has(this.#target)) break;
      this.#giveUp(start);
    }
    this.#fetchNext();
  }

  #giveUp(start) {
    this.#fetching.get(start).abort();
    this.#fetching.delete(start);
    for (const frame of this.#decoding.keys()) if (chunkOf(frame, this.length)[0] === start) this.#decoding.delete(frame);
  }

  #fetchNext() {
    const missing = this.#queue.filter((start) => !this.#packs.has(start) && !this.#fetching.has(start));
    for (const start of missing.slice(0, AT_ONCE - this.#fetching.size)) this.#begin(start);
  }

  #begin(start) {
    const controller = new AbortController();
    const pack = this.#fetch(start, controller.signal);
    this.#fetching.set(start, { pack, abort: () => controller.abort() });
    const over = () => this.#fetching.get(start)?.pack === pack && this.#fetching.delete(start);
    pack.then(
      () => over() && this.#fetchNext(),
      () => over(), // the frame that is really needed tells of the trouble and tries again
    );
  }

  async #decode(k) {
    const [start] = chunkOf(k, this.length);
    const pack = this.#packs.get(start) ?? (await this.#arrival(start));
    pack.used = performance.now();
    const jpegs = this.cameras.map((_, camera) => pack.jpegs[camera][k - start]);
    const decoded = jpegs.map((jpeg) => createImageBitmap(new Blob([jpeg], { type: "image/jpeg" })));
    const bitmaps = await Promise.all(decoded).catch(() => {
      throw new ApiError(415, `frame ${k} can't be decoded`);
    });
    if (this.#closed) throw passed();
    this.#bitmaps.set(k, bitmaps);
    this.#bytes = bitmaps.reduce((sum, { width, height }) => sum + 4 * width * height, 0);
    this.#forgetFarthest(k);
    return bitmaps;
  }

  /** Keeps the bitmaps within their budget; those farthest from the frame shown go first, never the newest. */
  #forgetFarthest(newest) {
    const most = Math.max(2, Math.floor(this.budget / this.#bytes));
    if (this.#bitmaps.size <= most) return;
    const far = [...this.#bitmaps.keys()].filter((k) => k !== newest).sort((a, b) => Math.abs(b - this.#centre) - Math.abs(a - this.#centre));
    for (const frame of far.slice(0, this.#bitmaps.size - most)) {
      this.#bitmaps.get(frame).forEach((bitmap) => bitmap.close());
      this.#bitmaps.delete(frame);
    }
  }

  /** The pack of a chunk that is needed now: failures are told and tried again, for as long as it is needed. */
  async #arrival(start) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const pack = await (this.#fetching.get(start)?.pack ?? this.#packs.get(start));
        if (!pack) throw passed();
        if (attempt) this.onTrouble(null);
        return pack;
      } catch (error) {
        if (!error.passing) throw error;
        this.onTrouble(`frames don't arrive (${error.message}); trying again`);
        await pause(RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)]);
        if (this.#target !== start) throw passed();
        this.#want(this.#queue, [...this.#fetching.keys()]);
      }
    }
  }

  async #fetch(start, signal) {
    await pause(this.#asked + PASSED_MS - performance.now());
    signal.throwIfAborted();
    this.#asked = performance.now();
    const [, stop] = chunkOf(start, this.length);
    const jpegs = await Promise.all(
      this.cameras.map((camera) => this.api.frames(this.footage, camera, start, stop, signal)),
    );
    const bytes = jpegs.flat().reduce((sum, jpeg) => sum + jpeg.byteLength, 0);
    const pack = { stop, jpegs, bytes, used: performance.now() };
    this.#packs.set(start, pack);
    this.#evict(start);
    return pack;
  }

  /** Gives back the packs that were not wanted for longest; the browser's cache still has them. */
  #evict(keep) {
    let total = [...this.#packs.values()].reduce((sum, pack) => sum + pack.bytes, 0);
    const oldest = [...this.#packs].sort(([, a], [, b]) => a.used - b.used);
    for (const [start, pack] of oldest) {
      if (total <= PACKS_BYTES) return;
      if (start === keep) continue;
      this.#packs.delete(start);
      total -= pack.bytes;
    }
  }
}
