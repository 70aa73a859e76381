// Nodes and volumes: where they stand, how they are.

import { badge, bar, h, keepFocus, name, replace } from "./dom.js";
import { count, duration, plural, rate, size } from "./format.js";

const KIND = { live: "good", stale: "warn", dead: "bad" };

/** Racks with their nodes, to be drawn anywhere. *pick* is called with a node; *marked*: node ids drawn as holders. */
export function rackMap(nodes, { pick = null, marked = null } = {}) {
  const racks = new Map();
  for (const node of nodes) {
    if (!racks.has(node.address.rack)) racks.set(node.address.rack, []);
    racks.get(node.address.rack).push(node);
  }
  return h("div", { class: "racks" }, [...racks.entries()].sort((a, b) => (a[0] < b[0] ? -1 : 1)).map(([rack, found]) =>
    h("section", { class: "rack" }, h("h3", {}, name(rack), h("span", { class: "dim small" }, ` ${plural(found.length, "node")}`)),
      found.map((node) => {
        const share = node.capacity_bytes ? node.used_bytes / node.capacity_bytes : 0;
        const holds = marked !== null && marked.has(node.address.node_id);
        return h(pick ? "button" : "div", { type: pick ? "button" : null, "data-key": pick ? `rack ${node.uuid}` : null, class: `node ${node.state}${holds ? " holds" : ""}`, onclick: pick ? () => pick(node) : null },
          h("span", { class: "row apart" }, h("strong", { class: "mono" }, name(node.address.data)), badge(node.admin_state !== "in-service" ? node.admin_state : node.state, KIND[node.state])),
          holds ? h("span", { class: "small" }, "has a copy") : null,
          bar(share, share > 0.9 ? "bad" : ""),
          marked === null ? h("span", { class: "dim small" }, `${size(node.used_bytes)} of ${size(node.capacity_bytes)}, ${plural(node.active_transfers, "transfer")}, heard ${duration(node.last_contact_s)} ago`, node.errors ? `, ${plural(node.errors, "error")}` : "") : null);
      }))));
}

export function nodes(main, state) {
  const map = h("div", {}), table = h("div", { class: "scroll" }), detail = h("div", {});
  let chosen = null, latest = null;
  replace(main, h("h1", {}, "Nodes"), h("section", { class: "card" }, h("h2", {}, "Racks"), map), detail, h("section", { class: "card" }, h("h2", {}, "All nodes"), table));

  function show(node) { chosen = node.uuid; draw(latest); detail.scrollIntoView({ block: "nearest" }); }

  function drawDetail(node) {
    replace(detail, h("section", { class: "card", "aria-label": "Chosen node" },
      h("div", { class: "row apart" }, h("h2", {}, "DataNode ", name(node.address.data)), h("button", { type: "button", class: "quiet", "aria-label": "Close", "data-key": "close", onclick: () => { chosen = null; replace(detail); } }, "×")),
      h("dl", { class: "facts" },
        h("dt", {}, "State"), h("dd", {}, badge(node.state, KIND[node.state]), " ", node.admin_state),
        h("dt", {}, "Last contact"), h("dd", {}, `${duration(node.last_contact_s)} ago`, node.state === "dead" ? "; what follows is as it was then" : ""),
        h("dt", {}, "Pages"), h("dd", {}, h("a", { href: `http://${node.address.http}/`, "data-key": "page", rel: "noreferrer" }, `http://${node.address.http}/`)),
        h("dt", {}, "Version"), h("dd", {}, node.version || "not heard of yet"),
        h("dt", {}, "Identity"), h("dd", { class: "mono" }, `${node.address.node_id}, ${node.uuid}`),
        h("dt", {}, "Work"), h("dd", {}, `${plural(node.active_transfers, "transfer")}, ${rate(node.requests_s)} requests/s, ${size(node.received_bytes_s)}/s in, ${size(node.sent_bytes_s)}/s out, ${plural(node.errors, "error")} since its start`)),
      h("h3", {}, "Volumes"),
      h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Directory", "State", "Used", "Free", ""].map((text) => h("th", { scope: "col" }, text)))),
        h("tbody", {}, node.volumes.map((volume) => h("tr", {}, h("td", { class: "mono" }, name(volume.path)), h("td", {}, volume.failure ? badge(volume.failure, "bad") : badge("in service", node.state === "dead" ? "" : "good")), h("td", {}, size(volume.used_bytes)), h("td", {}, size(volume.remaining_bytes)), h("td", {}, bar(volume.capacity_bytes ? volume.used_bytes / volume.capacity_bytes : 0)))))))));
  }

  function draw(found) {
    latest = found;
    replace(map, rackMap(found.nodes, { pick: show }));
    const head = ["Node", "State", "Heard", "Used", "Free", "Blocks", "Transfers", "In", "Out", "Errors", "Volumes"];
    replace(table, found.nodes.length ? h("table", {}, h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, found.nodes.map((node) => h("tr", {},
        h("td", {}, h("button", { type: "button", class: "quiet mono", "data-key": node.uuid, onclick: () => show(node) }, node.address.data)), h("td", {}, badge(node.state, KIND[node.state])), h("td", { class: "nowrap" }, `${duration(node.last_contact_s)} ago`),
        h("td", {}, size(node.used_bytes)), h("td", {}, size(node.remaining_bytes)), h("td", {}, count(node.blocks)), h("td", {}, count(node.active_transfers)), h("td", { class: "nowrap" }, `${size(node.received_bytes_s)}/s`), h("td", { class: "nowrap" }, `${size(node.sent_bytes_s)}/s`), h("td", {}, count(node.errors)),
        h("td", {}, count(node.volumes.length), node.volumes.some((volume) => volume.failure) ? badge(`${node.volumes.filter((volume) => volume.failure).length} failed`, "bad") : ""))))) : h("p", { class: "dim" }, "No DataNode has registered yet."));
    const node = found.nodes.find((one) => one.uuid === chosen);
    if (node) drawDetail(node);
  }

  return state.watch((found) => keepFocus(main, () => draw(found)));
}
