// One file: its facts, a look into it, and its blocks drawn on the nodes that hold them.

import { call } from "./api.js";
import { badge, h, name, replace } from "./dom.js";
import { count, date, mode, plural, size } from "./format.js";
import { rackMap } from "./nodes.js";
import { preview } from "./preview.js";

const CHUNK = 1024 * 1024, MAX_BLOCKS = 400, LOOK_AGAIN_MS = 10000;
const leafOf = (path) => path.slice(path.lastIndexOf("/") + 1);

/** Show *entry* in *box*; returns what ends it. */
export function fileDetail(box, state, entry, { close, act }) {
  const aborted = new AbortController(), look = h("div", {}), places = h("div", {}), facts = h("dl", { class: "facts" });
  let free = () => {}, stop = () => {}, timer = null, chosen = 0;
  const button = (label, action, kind = "") => h("button", { type: "button", class: kind, onclick: () => act(action) }, label);
  const closer = h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: close }, "×");
  replace(box, h("section", { class: "card", "aria-label": "File", onkeydown: (event) => { if (event.key === "Escape") close(); } },
    h("div", { class: "row apart" }, h("h2", { class: "grow" }, name(leafOf(entry.path))), closer),
    h("div", { class: "row" }, button("Download", "download", "primary"), button("Rename…", "rename"), button("Permissions…", "permissions"), h("a", { class: "button", href: `#/content/${encodeURIComponent(entry.path)}` }, "CID…"), button("Trash", "trash")),
    h("h3", {}, "Preview"), look, h("h3", {}, "Facts"), facts, h("h3", {}, "Where it is"), places));
  closer.focus();
  const fact = (label, ...value) => [h("dt", {}, label), h("dd", {}, ...value)];
  replace(facts, fact("Path", name(entry.path)), fact("Size", `${size(entry.length)} (${count(entry.length)} bytes)`), fact("Modified", date(entry.mtime_ms)), fact("Owner", name(`${entry.owner}:${entry.group}`)), fact("Mode", h("span", { class: "mono" }, mode(entry))), fact("Copies asked for", String(entry.replication)));

  (async () => {
    let preferred = [];
    try {
      const found = await call("locate", { path: entry.path }, { signal: aborted.signal });
      preferred = found.blocks.length ? found.blocks[0].nodes.map((node) => node.http) : [];
      drawPlaces(found);
    } catch (error) { if (error.name !== "AbortError") replace(places, h("p", {}, error.message)); }
    try { free = await preview(look, entry, aborted.signal, { preferred }); } catch (error) { if (error.name !== "AbortError") replace(look, h("p", {}, `No preview: ${error.message}`)); }
  })();

  function drawPlaces(found) {
    if (!found.blocks.length) { replace(places, h("p", { class: "dim" }, "An empty file has no blocks.")); return; }
    const chooser = h("div", { class: "blocks", role: "group", "aria-label": "Blocks" }), about = h("div", {}), map = h("div", {});
    chosen = Math.min(chosen, found.blocks.length - 1);
    const choose = (index) => { chosen = index; draw(); };
    function draw() {
      const block = found.blocks[chosen], holders = new Set(block.nodes.map((node) => node.node_id));
      replace(chooser, found.blocks.slice(0, MAX_BLOCKS).map((one, index) => h("button", { type: "button", "aria-pressed": String(index === chosen), onclick: () => choose(index) }, `${index + 1}`, one.nodes.length < entry.replication ? badge(`${one.nodes.length}`, one.nodes.length ? "warn" : "bad") : "")));
      const chunks = Math.ceil(block.block.length / CHUNK);
      replace(about, h("p", { class: "small" }, `Block ${chosen + 1} of ${found.blocks.length}: id ${block.block.block_id}, ${size(block.block.length)} at ${size(block.offset)}, ${plural(block.nodes.length, "copy", "copies")}, ${plural(chunks, "chunk")}`),
        h("div", { class: "chunks", "aria-hidden": "true" }, Array.from({ length: Math.min(chunks, 256) }, (_, index) => h("i", { class: index === chunks - 1 && block.block.length % CHUNK ? "short" : "" }))));
      if (state.latest) drawMap(state.latest, holders);
      stop(); stop = state.watch((latest) => drawMap(latest, holders));
    }
    function drawMap(latest, holders) { replace(map, rackMap(latest.nodes, { marked: holders })); }
    replace(places, chooser, about, map);
    draw();
  }
  /** Copies come and go while somebody looks. */
  async function again() {
    try {
      if (!document.hidden && !places.contains(document.activeElement)) drawPlaces(await call("locate", { path: entry.path }, { signal: aborted.signal }));
    } catch { /* what is shown stays; the next look may say more */ }
    if (!aborted.signal.aborted) timer = setTimeout(again, LOOK_AGAIN_MS);
  }
  timer = setTimeout(again, LOOK_AGAIN_MS);
  return () => { aborted.abort(); clearTimeout(timer); free(); stop(); };
}
