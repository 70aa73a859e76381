// Building the page. Text only ever becomes text: nothing here (or elsewhere) parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element: h("p", {class: "x", onclick: f}, "text", child, [more]). */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

const ICONS = {
  folder: "M3 6h6l2 2h10v11H3z", file: "M6 3h8l4 4v14H6zM14 3v4h4", up: "M12 19V6M6 12l6-6 6 6", more: "M12 4.5v1M12 11.5v1M12 18.5v1",
  upload: "M12 16V4M6 10l6-6 6 6M4 20h16", plus: "M12 5v14M5 12h14", close: "M6 6l12 12M18 6L6 18", sun: "M12 4V2M12 22v-2M4 12H2M22 12h-2M6 6 5 5M19 19l-1-1M6 18l-1 1M19 5l-1 1M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8M4 21c1-5 4-7 8-7s7 2 8 7", trash: "M4 7h16M9 7V4h6v3M6 7l1 14h10l1-14", copy: "M8 8h12v12H8zM16 8V4H4v12h4",
};

export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

// Characters that don't show, or that turn the text around them: shown as their code, so that no name looks like another.
// eslint-disable-next-line no-control-regex
const ODD = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/gu;

/** A name as text that can't disturb what is around it. */
export function name(text) {
  const shown = h("bdi", {});
  let last = 0;
  for (const match of text.matchAll(ODD)) {
    if (match.index > last) shown.append(text.slice(last, match.index));
    const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    shown.append(h("span", { class: "odd", title: "a character that does not show" }, `U+${code}`));
    last = match.index + match[0].length;
  }
  shown.append(text.slice(last));
  return shown;
}

export function replace(target, ...children) {
  target.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
}

/** *draw* makes what is in *root* anew; whoever had come to something in it by keyboard stays at the new one of the same `data-key`. */
export function keepFocus(root, draw) {
  const key = root.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  draw();
  if (key !== undefined && !root.contains(document.activeElement)) root.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** Say something in the corner; errors stay longer. */
export function toast(text, bad = false) {
  const box = document.getElementById("toasts");
  const shown = h("div", { class: bad ? "toast bad" : "toast" }, text);
  box.append(shown);
  while (box.childElementCount > 4) box.firstElementChild.remove();
  setTimeout(() => shown.remove(), bad ? 12000 : 4000);
}

/** Ask in a dialog. *fields*: elements; resolves to true when confirmed. */
export function ask(title, fields, { confirm = "OK", danger = false } = {}) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-label": title });
    const done = (value) => { dialog.close(); dialog.remove(); resolve(value); };
    const form = h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); done(true); } },
      h("h2", {}, title), ...fields,
      h("div", { class: "row" },
        h("button", { type: "button", onclick: () => done(false) }, "Cancel"),
        h("button", { type: "submit", class: danger ? "danger" : "primary" }, confirm)));
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); done(false); });
    dialog.append(form);
    document.body.append(dialog);
    dialog.showModal();
    const first = dialog.querySelector("input, select");
    if (first) { first.focus(); if (first.select) first.select(); }
  });
}

export function bar(share, kind = "") {
  const inner = h("span", {});
  inner.style.width = `${Math.max(0, Math.min(100, share * 100)).toFixed(1)}%`;
  return h("div", { class: `bar ${kind}`, role: "img", "aria-label": `${(share * 100).toFixed(0)} percent` }, inner);
}

export function badge(text, kind = "") { return h("span", { class: `badge ${kind}` }, text); }
