// Shows frames of a clip on one canvas a camera, all in the same task: what is shown is always one frame of all cameras.

import { Clip } from "./frames.js";

export const SPEEDS = [0.5, 1, 2];
const HELD = /wrist|hand|gripper/i;
const WAIT_SHOWN_MS = 120;

export class Player {
  frame = null; // the frame that the canvases show; null before the first
  wanted = 0;
  playing = false;
  speed = 1;
  #clip = null;
  #waiting = null;
  #started = null;
  #stride = 1;
  #enlarged = 0;

  /** `root` gets one figure a camera; onFrame(k) after a frame was drawn, onWait(k | null), onPlay(playing). */
  constructor(root, { onFrame, onWait = () => undefined, onPlay = () => undefined, loop = false, budget }) {
    Object.assign(this, { root, onFrame, onWait, onPlay, loop, budget });
    this.contexts = [];
  }

  /** Shows frames [start, stop) of `footage`, named as in addresses; `facts` is what the server says about it. */
  open(api, { footage, facts, start = 0, stop = facts.length, onTrouble }) {
    this.close();
    const cameras = Object.keys(facts.cameras);
    const names = cameras.map((camera) => camera.replace(/^observation\.images?\./, ""));
    Object.assign(this, { fps: facts.fps, frame: null, wanted: start });
    this.#clip = new Clip(api, { footage, cameras, length: facts.length, start, stop, budget: this.budget, onTrouble });
    this.#showCanvases(names, Object.values(facts.cameras));
    this.#enlarge(Math.max(0, names.findIndex((name) => !HELD.test(name)))); // the overview, not what a hand sees
    return this.seek(start);
  }

  #showCanvases(names, sizes) {
    const figures = names.map((name, camera) => {
      const canvas = document.createElement("canvas");
      [canvas.height, canvas.width] = sizes[camera];
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `camera ${name}`);
      canvas.dataset.camera = name;
      const caption = document.createElement("figcaption");
      caption.textContent = name;
      const figure = document.createElement("figure");
      figure.append(canvas, caption);
      return figure;
    });
    this.root.replaceChildren(...figures);
    this.root.dataset.count = String(Math.min(names.length, 4));
    this.contexts = figures.map((figure) => figure.firstChild.getContext("2d", { alpha: false }));
    delete this.root.dataset.frame;
  }

  /** Makes the next camera the large one. */
  enlargeNext() {
    this.#enlarge(this.#enlarged + 1);
  }

  #enlarge(camera) {
    const figures = [...this.root.children];
    this.#enlarged = camera % Math.max(1, figures.length);
    figures.forEach((figure, index) => figure.classList.toggle("main", index === this.#enlarged));
  }

  close() {
    this.pause();
    this.#settle();
    this.#clip?.close();
    this.#clip = null;
    this.frame = null;
  }

  /** Asks for frame k. It is drawn now when it is there; else the page says that it waits, and keeps what it shows. */
  async seek(k) {
    const clip = this.#clip;
    if (!clip) return;
    const target = Math.max(clip.start, Math.min(clip.stop - 1, k));
    if (target !== this.wanted) this.#stride = target - this.wanted;
    this.wanted = target;
    const ready = clip.get(target);
    if (ready) {
      this.#draw(target, ready);
      return;
    }
    this.#wait(target);
    try {
      const bitmaps = await clip.load(target);
      if (this.#clip === clip && this.wanted === target) this.#draw(target, bitmaps);
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
  }

  step(count) {
    this.pause();
    return this.seek(this.wanted + count);
  }

  toggle() {
    this.playing ? this.pause() : this.play();
  }

  play() {
    if (!this.#clip || this.playing) return;
    if (this.wanted >= this.#clip.stop - 1) this.seek(this.#clip.start);
    this.playing = true;
    this.#started = null;
    this.onPlay(true);
    requestAnimationFrame((now) => this.#tick(now));
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    this.onPlay(false);
  }

  setSpeed(speed) {
    this.speed = speed;
    this.#started = null;
  }

  /** Time goes on only while frames are there: a late frame is waited for, and the clock starts anew. */
  #tick(now) {
    if (!this.playing) return;
    if (this.#waiting !== null || this.frame === null) this.#started = null;
    else {
      this.#started ??= { at: now, frame: this.frame };
      const passed = ((now - this.#started.at) / 1000) * this.fps * this.speed;
      const next = this.#started.frame + Math.floor(passed);
      if (next >= this.#clip.stop) {
        if (!this.loop) {
          this.seek(this.#clip.stop - 1);
          this.pause();
          return;
        }
        this.#started = null;
        this.seek(this.#clip.start);
      } else if (next !== this.frame) this.seek(next);
    }
    requestAnimationFrame((later) => this.#tick(later));
  }

  #draw(k, bitmaps) {
    this.#settle();
    this.contexts.forEach((context, camera) => {
      const { canvas } = context;
      context.drawImage(bitmaps[camera], 0, 0, canvas.width, canvas.height);
    });
    this.frame = k;
    this.root.dataset.frame = String(k);
    this.onFrame(k);
    this.#clip.around(k, this.#stride);
  }

  #wait(k) {
    this.#settle();
    this.#waiting = setTimeout(() => {
      this.root.setAttribute("aria-busy", "true");
      this.onWait(k);
    }, this.frame === null ? 0 : WAIT_SHOWN_MS);
  }

  #settle() {
    if (this.#waiting === null) return;
    clearTimeout(this.#waiting);
    this.#waiting = null;
    this.root.removeAttribute("aria-busy");
    this.onWait(null);
  }
}
