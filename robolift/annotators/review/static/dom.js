// Small builders: text is always a text node, so nothing that a dataset says becomes markup.

export const find = (selector, root = document) => root.querySelector(selector);
export const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

/** Makes an element: el("button", { class: "quiet", "data-command": "undo" }, "Undo"). */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Puts `children` in the place of what `element` holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const percent = (share) => (share === null || share === undefined ? "–" : `${Math.round(share * 100)} %`);
export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

/** Opens the dialog at `selector` with `body` in it; resolves with its return value when it closes. */
export function openDialog(selector, ...body) {
  const dialog = find(selector);
  if (body.length) fill(find(".dialog-body", dialog), ...body);
  if (!dialog.open) dialog.showModal();
  dialog.returnValue = "";
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

export const aDialogIsOpen = () => find("dialog[open]") !== null;
