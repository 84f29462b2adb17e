// What the page asks or tells when a lease is lost, or when another window of the same person was at work.

import { el, find, openDialog, plural } from "./dom.js";

/** Tells of marks that came from another window; resolves when the annotator goes on. */
export function tellNews({ name, news, closed }) {
  return openDialog("#news",
    el("p", {}, `${news ? plural(news, "mark") : "Something"} on ${name} came from another window of yours. It is shown now, together with what you marked here.`),
    el("p", {}, closed ? "Look through it; r reopens it." : `${name} is not complete: look through it, then complete it here.`),
    el("form", { method: "dialog", class: "stack" }, el("button", { value: "look", class: "primary ready" }, "Look through it")));
}

/** Asks what becomes of `waiting` marks that the server does not take: "again", "download", "discard", "next", or "". */
export function askAboutLoss({ name, error, waiting, annotator }) {
  const stale = error.message === "stale lease";
  const { holder } = error.body;
  const who = holder === annotator ? "you have it open in another window" : `${holder ?? "someone else"} has it now`;
  find("#lost-title").textContent = stale ? `${name} is not yours any more` : `The server does not take marks on ${name}`;
  return openDialog("#lost",
    el("p", {}, stale ? `Your lease on ${name} is over: ${who}.` : `It says: ${error.message}.`),
    el("p", {}, waiting
      ? `${plural(waiting, "mark")} ${waiting === 1 ? "is" : "are"} kept in this browser and not stored; what was saved before is safe.`
      : "All your marks were stored before; nothing is lost."),
    el("form", { method: "dialog", class: "stack" },
      el("button", { value: "again", class: "primary ready" }, "Take it back and store them"),
      waiting ? el("button", { value: "download", class: "quiet" }, "Download the marks as a file") : null,
      waiting ? el("button", { value: "discard", class: "quiet" }, "Give these marks up") : null,
      el("button", { value: "next", class: "quiet" }, "Go on to the next item; keep the marks here")));
}

/** Offers `content` as a file of JSON. */
export function download(name, content) {
  const address = URL.createObjectURL(new Blob([JSON.stringify(content, null, 2)], { type: "application/json" }));
  const link = el("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
