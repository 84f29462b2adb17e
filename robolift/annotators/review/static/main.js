// Starts the page and moves between items; each view does the labelling itself.

import { Api, splitItem } from "./api.js";
import { aDialogIsOpen, el, fill, find, openDialog, plural } from "./dom.js";
import { EpisodeView } from "./episode.js";
import { askReason, openDisagreements, openJob } from "./job.js";
import { fillSheet, listen, nameKeys } from "./keys.js";
import { Lease } from "./lease.js";
import { Outbox } from "./outbox.js";
import { PairView } from "./pairs.js";
import { Prefetch } from "./prefetch.js";

const RETRY_MS = 3000;

class App {
  api = new Api();
  view = null;
  item = null;
  mode = "episode";
  #moving = false;
  #afterwards = null;
  #retaken = new Set();

  async start() {
    this.session = await this.api.session();
    const { annotator, job, dataset, modes } = this.session;
    const scope = await scopeOf({ annotator, job, dataset });
    this.outbox = new Outbox({
      api: this.api,
      scope,
      onChange: (summary) => {
        this.#showSaved(summary);
        this.#doAfterwards();
      },
      onLost: (item, error) => this.#stale(item, error),
    });
    this.lease = new Lease({ api: this.api, outbox: this.outbox, onLost: (item, error) => this.#stale(item, error) });
    this.views = { episode: new EpisodeView(this), pair: new PairView(this) };
    this.prefetch = new Prefetch(this.api, this.session);
    this.mode = modes[0];
    find("#mode-button").hidden = modes.length < 2;
    this.#showSaved(this.outbox.summary);
    listen((command) => this.run(command), () => (aDialogIsOpen() ? null : { mode: this.mode, tools: this.#tools }));
    addEventListener("hashchange", () => this.#followHash());
    this.nameKeys();
    const named = location.hash.slice(1);
    if (/^(episode|pair):/.test(named)) await this.open(named);
    else await this.next();
    await this.#sendLeftovers();
  }

  get #tools() {
    return this.views[this.mode].tools;
  }

  nameKeys() {
    nameKeys(this.mode, this.#tools);
  }

  /** Tells what happened, for eyes and for screen readers. */
  say(text, tone = "") {
    const live = find("#live");
    live.textContent = "";
    live.dataset.tone = tone;
    live.textContent = text;
    live.classList.add("shown");
    clearTimeout(this.saying);
    this.saying = setTimeout(() => live.classList.remove("shown"), tone ? 6000 : 2500);
  }

  trouble(error) {
    if (error.name === "AbortError") return;
    if (error.status === undefined) throw error; // a mistake of ours: the console must show it
    this.say(error.status === 401 ? "You are signed out: reload the page to sign in. Your marks are kept." : error.message, "refused");
  }

  /** Asks the server for the next item and shows it. */
  async next() {
    const before = this.item;
    await this.#move(async () => {
      const { item, lease, reason } = await this.api.next(this.mode, before ?? undefined);
      if (item === null) this.#message("Nothing left to label", reason ?? "Every item is done.", [["Show the job", "job"]]);
      else await this.#show(item, lease);
    });
  }

  /** Shows a named item, and takes its lease unless it is already done. */
  async open(item) {
    await this.#move(() => this.#show(item, null));
  }

  async #move(work) {
    if (this.#moving) return;
    this.#moving = true;
    try {
      await this.#leave();
      await work();
    } catch (error) {
      if (error.status === undefined) throw error;
      this.#message("This did not work", error.message, [["Try again", "retry"], ["Next item", "complete"], ["Show the job", "job"]]);
    } finally {
      this.#moving = false;
    }
  }

  async #leave() {
    this.view?.close();
    this.view = null;
    await this.lease.release();
  }

  async #show(item, lease) {
    const [kind, id] = splitItem(item);
    this.item = item;
    const [mine, facts] = await Promise.all([this.api.mine(item), kind === "pair" ? this.api.pair(id) : this.api.episode(id)]);
    if (lease) this.lease.hold(item, lease);
    else if (!mine.state.complete && !mine.state.skipped && !(await this.#take(item))) return;
    this.mode = kind;
    find("#message").hidden = true;
    history.replaceState(null, "", `#${item}`);
    this.view = this.views[kind];
    await this.view.open(item, mine, facts);
    this.#showHead(kind);
    this.prefetch.after(item);
  }

  /** Takes the lease, or says who has the item. */
  async #take(item) {
    try {
      await this.lease.take(item);
      return true;
    } catch (error) {
      if (error.status !== 409) throw error;
      const holder = error.body.holder ? `${error.body.holder} has it now.` : error.message;
      this.#message(`${item.replace(":", " ")} is in work`, holder, [["Next item", "complete"], ["Show the job", "job"]]);
      return false;
    }
  }

  #showHead(kind) {
    const [, id] = splitItem(this.item);
    const episode = kind === "episode" ? this.view.episode : null;
    find("#title").textContent = episode ? `Episode ${id}` : "Which is better?";
    find("#subtitle").textContent = episode ? `${episode.task} · ${this.session.annotator}` : `Pair ${id} · ${this.session.annotator}`;
    document.title = `${find("#title").textContent} · Robolift review`;
    fill(find("#mode-button"), kind === "episode" ? "Pairs " : "Episodes ", el("kbd", {}, "m"));
    this.nameKeys();
    this.#showProgress();
  }

  async #showProgress() {
    const progress = await this.api.progress().catch(() => null);
    const part = progress?.[this.mode === "pair" ? "pairs" : "episodes"];
    if (!part) return;
    find("#job-bar").hidden = false;
    find("#job-progress").max = Math.max(1, part.total);
    find("#job-progress").value = part.done;
    find("#job-count").textContent = `${part.done} of ${part.total} done · ${part.mine} yours`;
  }

  run(command) {
    const action = this.#actions[command];
    if (action) Promise.resolve(action()).catch((error) => this.trouble(error));
    else if (this.view?.record) this.view.run(command);
  }

  #actions = {
    complete: () => this.#complete(),
    skip: () => this.#skip(),
    reopen: () => this.#reopen(),
    job: async () => this.#choose(await openJob(this.api, this.mode)),
    disagreements: async () => this.#choose(await openDisagreements(this.api)),
    mode: () => this.#switchMode(),
    retry: () => (this.item ? this.open(this.item) : this.next()),
    help: () => {
      fillSheet(find("#help .dialog-body"), this.mode, this.#tools);
      openDialog("#help");
    },
  };

  #choose(item) {
    return item ? this.open(item) : undefined;
  }

  async #switchMode() {
    const { modes } = this.session;
    if (modes.length < 2) return;
    this.mode = modes[(modes.indexOf(this.mode) + 1) % modes.length];
    this.item = null;
    await this.next();
  }

  async #complete() {
    const { view, item } = this;
    if (!view?.record || view.record.closed) return this.next();
    if (!view.complete()) return undefined;
    return this.#onceStored(item, async () => {
      await this.lease.release();
      if (this.item !== item) return; // an impatient Enter went on already
      if (this.mode === "pair") await this.next();
      else await Promise.all([view.reload(), this.#showProgress()]);
    });
  }

  async #skip() {
    const { view, item } = this;
    if (!view?.record || view.record.closed) return;
    const reason = await askReason();
    if (!reason || this.view !== view || this.item !== item) return;
    view.record.say("skip", { value: reason });
    this.say("Skipped.");
    await this.#onceStored(item, () => this.next());
  }

  /** Does `work` as soon as nothing of `item` waits any more, be it after the server was away; not if the page moved on. */
  async #onceStored(item, work) {
    this.#afterwards = { item, work };
    await this.outbox.settle(item);
    this.#doAfterwards();
  }

  #doAfterwards() {
    if (this.#afterwards === null || this.outbox.of(this.#afterwards.item).length) return;
    const { item, work } = this.#afterwards;
    this.#afterwards = null;
    if (this.item === item && this.view) work().catch((error) => this.trouble(error));
  }

  async #reopen() {
    const { view, item } = this;
    if (!view?.record?.closed) return;
    await this.lease.take(item).catch((error) => {
      throw error.status === 409 ? Object.assign(error, { message: `It can't be reopened now: ${error.body.holder ?? "someone"} has it.` }) : error;
    });
    view.record.say("reopen");
    this.say("Reopened.");
    await this.outbox.settle(item);
    await view.reload();
  }

  #followHash() {
    const named = location.hash.slice(1);
    if (named !== this.item && /^(episode|pair):/.test(named)) this.open(named);
  }

  #message(title, text, buttons) {
    this.view?.close();
    this.view = null;
    find("#title").textContent = "Robolift review";
    find("#subtitle").textContent = this.session?.annotator ?? "";
    const message = fill(find("#message"), el("h2", {}, title), el("p", {}, text),
      el("div", { class: "pairs-of" }, buttons.map(([words, command]) => el("button", { "data-command": command, class: "quiet" }, words))));
    message.hidden = false;
    this.say(`${title}. ${text}`);
  }

  #showSaved({ unsaved, offline, signedOut, refused, kept }) {
    const state = refused.length ? "refused" : offline ? "offline" : unsaved ? "saving" : "saved";
    const away = signedOut ? "signed out, open your link" : "offline";
    const words = { saved: "saved", saving: "saving", offline: `${away} — ${unsaved} unsaved`, refused: `${unsaved} not stored` };
    find("#saved").dataset.state = state;
    if (!kept) this.say("This browser keeps no data: don't close the page before it says saved.", "refused");
    find("#saved-text").textContent = words[state];
  }

  /** Marks of an earlier visit to other items: sent under a fresh lease where it can be had. */
  async #sendLeftovers() {
    for (const item of this.outbox.items()) if (item !== this.item) await this.#sendUnderFreshLease(item).catch((error) => this.#lost(item, error));
  }

  async #sendUnderFreshLease(item) {
    const { epoch } = await this.api.lease(item, "take");
    this.outbox.allow(item, epoch);
    if (!(await this.outbox.settle(item))) return;
    this.outbox.forbid(item);
    await this.api.lease(item, "release", epoch);
  }

  /** A lease that merely ran out, or was of a server before its restart, is taken again without troubling anyone. */
  async #stale(item, error) {
    const { holder } = error.body;
    // One's own other page is told of, but not the first time: it may be this page before a reload, still at work.
    const own = holder === this.session.annotator && (this.lease.session !== this.api.sessionId || !this.#retaken.has(item));
    if (error.status !== 409 || (holder && !own)) return this.#lost(item, error);
    this.#retaken.add(item);
    try {
      if (this.item === item) await this.lease.take(item);
      else await this.#sendUnderFreshLease(item);
    } catch (next) {
      if (next.passing) setTimeout(() => this.#stale(item, error), RETRY_MS);
      else await this.#lost(item, next);
    }
    return undefined;
  }

  /** The server does not take events of an item any more: says so, keeps them, and offers what can be done. */
  async #lost(item, error) {
    if (error.passing || find("#lost").open) return; // the first loss is answered first; marks stay where they are
    if (this.lease.item === item) this.lease.drop();
    const waiting = this.outbox.of(item);
    const stale = error.status === 409;
    const name = item.replace(":", " ");
    const { holder } = error.body;
    const who = holder === this.session.annotator ? "you have it open in another window" : `${holder ?? "someone else"} has it now`;
    find("#lost-title").textContent = stale ? `${name} is not yours any more` : `The server does not take marks on ${name}`;
    const choice = await openDialog("#lost",
      el("p", {}, stale ? `Your lease on ${name} is over: ${who}.` : `It says: ${error.message}.`),
      el("p", {}, waiting.length
        ? `${plural(waiting.length, "mark")} ${waiting.length === 1 ? "is" : "are"} kept in this browser and not stored; what was saved before is safe.`
        : "All your marks were stored before; nothing is lost."),
      el("form", { method: "dialog", class: "stack" },
        el("button", { value: "again", class: "primary ready" }, "Take it back and store them"),
        waiting.length ? el("button", { value: "download", class: "quiet" }, "Download the marks as a file") : null,
        waiting.length ? el("button", { value: "discard", class: "quiet" }, "Give these marks up") : null,
        el("button", { value: "next", class: "quiet" }, "Go on to the next item; keep the marks here")));
    await this.#afterLoss(choice, item, error);
  }

  async #afterLoss(choice, item, error) {
    if (choice === "again") {
      if (this.item === item && this.view) {
        this.lease.take(item).catch((next) => (next.status === 409 ? this.#lost(item, next) : this.trouble(next)));
      } else await this.open(item);
    } else if (choice === "download") {
      download(`${item.replace(":", "-")}-unsaved.json`, this.outbox.of(item));
      await this.#lost(item, error);
    } else if (choice === "discard") {
      this.outbox.discard(item);
      await this.next();
    } else if (this.item === item) await this.next();
  }
}

/** Marks of one job must never be sent to another that is served at the same address. */
async function scopeOf(identity) {
  const bytes = new TextEncoder().encode(JSON.stringify(identity));
  const digest = await crypto.subtle?.digest("SHA-256", bytes);
  if (!digest) return encodeURIComponent(JSON.stringify(identity)); // plain HTTP away from localhost has no subtle
  return Array.from(new Uint8Array(digest).slice(0, 8), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function download(name, content) {
  const address = URL.createObjectURL(new Blob([JSON.stringify(content, null, 2)], { type: "application/json" }));
  const link = el("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

const app = new App();
app.start().catch((error) => {
  const message = find("#message");
  fill(message, el("h2", {}, error.status === 401 ? "Please sign in" : "The page can't start"), el("p", {}, error.message));
  message.hidden = false;
  if (error.status === undefined) throw error;
});
