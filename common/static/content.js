// The content side: a CID's DAG drawn, where its blocks are, pins, links to gateways.

import { call, gatewayUrl, readBlock } from "./api.js";
import { ask, badge, h, icon, name, replace, toast } from "./dom.js";
import { base64, decodePb, fileFacts, formatCid, parseCid } from "./cid.js";
import { count, plural, size } from "./format.js";
import { rackMap } from "./nodes.js";

const MAX_NODE_BYTES = 2 * 1024 * 1024, SHOWN_LINKS = 200;
const CODECS = { 0x55: "raw", 0x70: "dag-pb", 0x71: "dag-cbor", 0x0129: "dag-json" };

export function content(main, state, hash) {
  const aborted = new AbortController();
  const field = h("input", { type: "text", id: "cid", class: "grow mono", placeholder: "bafy… or /a/path", spellcheck: "false", autocomplete: "off" });
  const found = h("div", {}), pins = h("section", { class: "card" });
  let stop = () => {};
  replace(main, h("h1", {}, "Content"), h("section", { class: "card" }, h("form", { class: "row", onsubmit: (event) => { event.preventDefault(); location.hash = `#/content/${encodeURIComponent(field.value.trim())}`; } },
    h("label", { for: "cid" }, "CID or path"), field, h("button", { type: "submit", class: "primary" }, "Look"))), found, pins);
  let wanted = "";
  try { wanted = decodeURIComponent(hash.replace(/^\//, "")); } catch { /* not one of ours */ }
  field.value = wanted;
  if (wanted) look(wanted);
  loadPins();

  async function look(text) {
    replace(found, h("p", { class: "dim" }, "Looking…"));
    try {
      let cid = null, path = "";
      if (text.startsWith("/")) {
        path = text;
        const { results } = await call("path_cids", { paths: [text] }, { signal: aborted.signal });
        const result = results[0];
        if (result.failure) throw new Error(result.failure.message);
        if (!result.cid) throw new Error("Its CID has not been computed yet: `dfs cid` with this path does it.");
        cid = parseCid(base64(result.cid));
      } else cid = parseCid(text);
      draw(cid, path);
    } catch (error) { if (error.name !== "AbortError") replace(found, h("section", { class: "card" }, h("p", {}, error.message))); }
  }

  function draw(cid, path) {
    const shown = formatCid(cid), link = h("span", { class: "row" });
    gatewayUrl(`/ipfs/${shown}`).then((url) => replace(link, h("a", { class: "button", href: url, rel: "noreferrer" }, "Open at a gateway"), copy(url, "Copy a gateway link")), () => {});
    const places = h("div", {}), dag = h("div", { class: "dag" });
    replace(found, h("section", { class: "card" },
      h("h2", {}, "CID ", path ? ["of ", name(path)] : ""), h("p", { class: "mono" }, h("bdi", {}, shown)),
      h("div", { class: "row" }, copy(shown, "Copy the CID"), copy(`ipfs://${shown}`, "Copy an ipfs:// link"), link,
        h("button", { type: "button", onclick: () => pin(cid, shown) }, "Pin…"), badge(CODECS[cid.codec] || `codec 0x${cid.codec.toString(16)}`), badge(cid.hash === 0x1e ? "BLAKE3" : cid.hash === 0x12 ? "SHA2-256" : `hash 0x${cid.hash.toString(16)}`)),
      h("h3", {}, "DAG"), dag), h("section", { class: "card" }, h("h2", {}, "Providers"), places));
    replace(dag, h("ul", {}, branch(cid, "", null, true)));
    providers(cid, path, places);
  }

  function copy(text, label) {
    return h("button", { type: "button", onclick: async () => { try { await navigator.clipboard.writeText(text); toast("Copied."); } catch { toast("The browser does not let a page copy here.", true); } } }, icon("copy"), label);
  }

  /** One node of the DAG; its links are fetched when it is opened. */
  function branch(cid, label, tsize, open) {
    const shown = formatCid(cid), below = h("div", {}), facts = h("span", { class: "dim small" });
    const item = h("li", {});
    const short = h("a", { href: `#/content/${shown}`, class: "mono", title: shown }, `${shown.slice(0, 8)}…${shown.slice(-6)}`);
    const more = cid.codec === 0x70 ? h("button", { type: "button", "aria-expanded": "false", "aria-label": `Links of ${label || shown}`, onclick: () => toggle() }, "+") : h("span", { class: "dim" }, "•");
    let loaded = false;
    async function toggle() {
      const now = more.getAttribute("aria-expanded") !== "true";
      more.setAttribute("aria-expanded", String(now));
      more.textContent = now ? "−" : "+";
      below.hidden = !now;
      if (!now || loaded) return;
      loaded = true;
      replace(below, h("p", { class: "dim small" }, "Fetching…"));
      try {
        const data = await readBlock(shown, aborted.signal);
        if (data.length > MAX_NODE_BYTES) throw new Error("This node is too large to be drawn.");
        const node = decodePb(data), about = fileFacts(node.data);
        replace(facts, ` ${about.kind}${about.size === null ? "" : `, ${size(about.size)}`}, ${plural(node.links.length, "link")}`);
        replace(below, h("ul", {}, node.links.slice(0, SHOWN_LINKS).map((one) => branch(parseCid(one.hash), one.name, one.tsize, false))),
          node.links.length > SHOWN_LINKS ? h("p", { class: "dim small" }, `${count(node.links.length - SHOWN_LINKS)} more links are not drawn.`) : "");
      } catch (error) { loaded = false; if (error.name !== "AbortError") replace(below, h("p", { class: "small" }, error.message)); }
    }
    item.append(h("div", { class: "row" }, more, label ? h("strong", {}, name(label)) : "", short, badge(CODECS[cid.codec] || "other"), tsize === null ? "" : h("span", { class: "dim small" }, size(tsize)), facts), below);
    if (open && cid.codec === 0x70) toggle();
    return item;
  }

  async function providers(cid, path, box) {
    try {
      let nodes = null;
      const { found: [held] } = await call("find_cids", { multihashes: [base64(cid.multihash)], files: true }, { signal: aborted.signal });
      if (held) nodes = held.located.nodes;
      else if (path) {
        const file = await call("locate", { path }, { signal: aborted.signal });
        nodes = file.blocks.flatMap((block) => block.nodes);
      }
      if (nodes === null) { replace(box, h("p", { class: "dim" }, "Not held as a block of its own. If it is a leaf of a file, the DataNodes that hold that file serve it.")); return; }
      const holders = new Set(nodes.map((node) => node.node_id));
      const text = held && !held.complete && !held.leaves && !path ? "What is below it is not all here." : `${plural(holders.size, "DataNode")} can serve it.`;
      stop(); stop = state.watch((latest) => replace(box, h("p", {}, text), rackMap(latest.nodes, { marked: holders })));
    } catch (error) { if (error.name !== "AbortError") replace(box, h("p", {}, error.message)); }
  }

  async function pin(cid, shown) {
    const label = h("input", { type: "text", id: "pin-name", maxlength: "200" });
    if (!await ask("Pin it?", [h("p", { class: "small" }, `${shown} and all below it stay, whatever happens to files.`), h("label", { for: "pin-name" }, "Name"), label], { confirm: "Pin" })) return;
    try { await call("pin_add", { multihash: base64(cid.multihash), codec: cid.codec, version: cid.version, name: label.value }); toast("Pinned."); await loadPins(); } catch (error) { toast(error.message, true); }
  }

  async function loadPins() {
    try {
      const page = await call("list_pins", { limit: 200 }, { signal: aborted.signal });
      replace(pins, h("h2", {}, "Pins"), page.pins.length ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["CID", "Kind", "Name", "Owner", ""].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, page.pins.map((one) => {
          const cid = parseCid(base64(one.cid)), shown = formatCid(cid);
          return h("tr", {}, h("td", { class: "mono cid" }, h("a", { href: `#/content/${shown}` }, h("bdi", {}, shown))), h("td", {}, one.kind), h("td", {}, name(one.name || "")), h("td", {}, name(one.owner || "")),
            h("td", {}, h("button", { type: "button", onclick: async () => { if (!await ask("Remove the pin?", [h("p", { class: "mono" }, shown)], { confirm: "Remove", danger: true })) return; try { await call("pin_remove", { multihash: base64(cid.multihash), kind: one.kind, name: one.name }); await loadPins(); } catch (error) { toast(error.message, true); } } }, "Remove")));
        })))) : h("p", { class: "dim" }, "Nothing is pinned. What files refer to stays anyway."));
    } catch (error) { if (error.name !== "AbortError") replace(pins, h("h2", {}, "Pins"), h("p", {}, error.message)); }
  }

  return () => { aborted.abort(); stop(); };
}
