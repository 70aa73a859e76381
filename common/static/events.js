// The live event stream: what changes in the namespace, as it happens.

import { currentUser } from "./api.js";
import { h, name, replace } from "./dom.js";
import { clock, count } from "./format.js";

const KEPT = 500;

export function events(main, state) {
  let shown = [], socket = null, timer = null, wait = 500, closed = false, after = null, paused = false;
  const prefix = h("input", { type: "text", id: "event-path", placeholder: "/", value: "", spellcheck: "false", onchange: () => restart() });
  const kind = h("select", { id: "event-kind", onchange: () => restart() }, h("option", { value: "" }, "all kinds"), ["mkdir", "put", "create", "close", "append", "truncate", "concat", "copy", "rename", "unlink", "metadata"].map((one) => h("option", { value: one }, one)));
  const pause = h("button", { type: "button", "aria-pressed": "false", onclick: () => { paused = !paused; pause.setAttribute("aria-pressed", String(paused)); if (!paused) draw(); } }, "Pause");
  const body = h("tbody", {}), status = h("p", { class: "dim small", role: "status" });
  replace(main, h("h1", {}, "Events"), h("section", { class: "card" },
    h("div", { class: "row" }, h("label", { for: "event-path" }, "Below"), prefix, h("label", { for: "event-kind" }, "Kind"), kind, pause),
    status,
    h("div", { class: "stream scroll", tabindex: "0", "aria-label": "Events" }, h("table", {}, h("thead", {}, h("tr", {}, ["Offset", "Time", "Who", "Kind", "Path"].map((text) => h("th", { scope: "col" }, text)))), body))));

  function draw() {
    replace(body, shown.slice(-KEPT).reverse().map((event) => h("tr", {},
      h("td", { class: "mono" }, count(event.offset)), h("td", { class: "nowrap" }, clock(event.time_ms)), h("td", {}, name(event.user)), h("td", {}, event.kind),
      h("td", {}, name(event.path), event.destination ? [" → ", name(event.destination)] : "", event.detail ? h("span", { class: "dim small" }, " ", name(event.detail)) : ""))));
  }

  let waiting = 0;
  function soon() {
    if (paused || waiting) return;
    waiting = setTimeout(() => { waiting = 0; if (!closed && !paused) draw(); }, 200);
  }

  function open() {
    const query = new URLSearchParams({ after: after === null ? "latest-200" : String(after) });
    if (prefix.value.trim()) query.set("path", prefix.value.trim());
    if (kind.value) query.set("kind", kind.value);
    if (currentUser()) query.set("user", currentUser());
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/events/stream?${query}`);
    const mine = socket;
    socket.onopen = () => { wait = 500; status.textContent = "Following."; };
    socket.onmessage = (message) => {
      const page = JSON.parse(message.data);
      if (page.code) { status.textContent = page.message; if (page.code === "events-gone") after = null; return; }
      after = page.next_after;
      if (!page.events.length) return;
      shown = shown.concat(page.events).slice(-KEPT * 2);
      soon();
    };
    socket.onclose = () => {
      if (closed || mine !== socket) return;
      status.textContent = "Not connected; trying again.";
      timer = setTimeout(open, wait); wait = Math.min(wait * 2, 8000);
    };
  }

  function restart() { shown = []; after = null; draw(); clearTimeout(timer); const old = socket; socket = null; if (old) old.close(); open(); }

  open();
  return () => { closed = true; clearTimeout(timer); if (socket) socket.close(); };
}
