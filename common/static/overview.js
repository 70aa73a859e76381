// Health at a glance: what is wrong, since when, what is done about it; space, copies, traffic.

import { call } from "./api.js";
import { chart } from "./chart.js";
import { badge, bar, h, keepFocus, name, replace } from "./dom.js";
import { ago, count, duration, plural, rate, since, size } from "./format.js";

// By urgency: how many good copies a block that waits has left.
const LEVELS = ["no copy left", "one copy left", "two copies left", "three or more, to be spread"];

export function overview(main, state) {
  const health = h("section", { class: "card health" }), problems = h("section", { class: "card", hidden: true });
  const tiles = h("div", { class: "grid" }), charts = h("div", { class: "grid two" }), below = h("div", { class: "grid two" });
  let span = "hour", history = null, timer = null, closed = false;
  const pick = (value) => h("button", { type: "button", "aria-pressed": String(span === value), onclick: () => { span = value; drawSpan(); load(); } }, value === "hour" ? "Last hour" : "Last day");
  const spans = h("div", { class: "row", role: "group", "aria-label": "Time shown" });
  const drawSpan = () => replace(spans, pick("hour"), pick("day"));
  drawSpan();
  replace(main, health, problems, tiles, below, h("div", { class: "row apart" }, h("h2", {}, "Traffic and latency"), spans), charts);

  async function load() {
    clearTimeout(timer);
    try {
      history = await call("history", { span });
      if (!closed) keepFocus(charts, drawCharts);
    } catch { /* the connection's badge says it */ }
    if (!closed) timer = setTimeout(load, 10000);
  }

  function drawCharts() {
    const columns = charts.clientWidth > 850 ? 2 : 1, width = charts.clientWidth / columns - 52;
    const options = { span: history.span === "hour" ? 3600000 : 86400000, width };
    const points = history.points;
    replace(charts,
      chart("Calls per second", points, [{ label: "calls", key: "calls_s" }, { label: "errors", key: "errors_s" }], rate, options),
      chart("Latency of calls", points, [{ label: "p50", key: "p50_s" }, { label: "p99", key: "p99_s" }], duration, options),
      chart("Bytes of block streams per second", points, [{ label: "written", key: "received_bytes_s" }, { label: "read", key: "sent_bytes_s" }], size, { ...options, base: 2 }),
      chart("Space used", points, [{ label: "used", key: "used_bytes" }], size, { ...options, base: 2 }));
  }

  function tile(label, value, ...more) { return h("section", { class: "card" }, h("div", { class: "label" }, label), h("div", { class: "value" }, value), ...more); }

  function draw(found) {
    const critical = found.problems.some((problem) => problem.severity === "critical");
    health.className = `card health ${critical ? "bad" : found.problems.length ? "warn" : ""}`;
    replace(health, h("div", { class: "grow" },
      h("h1", {}, critical ? "Something is wrong" : found.problems.length ? "Needs attention" : "All is well"),
      h("div", { class: "dim small" }, `Cluster ${found.cluster_id}, TwinFS ${found.version}, up ${duration((found.time_ms - found.started_ms) / 1000)}`)),
      found.problems.length ? badge(plural(found.problems.length, "problem"), critical ? "bad" : "warn") : badge("healthy", "good"));
    problems.hidden = !found.problems.length;
    replace(problems, h("h2", {}, "Problems"), found.problems.slice(0, 50).map((problem) => h("div", { class: "problem" },
      badge(problem.severity, problem.severity === "critical" ? "bad" : "warn"),
      h("div", {}, h("strong", {}, name(problem.text)), h("span", { class: "dim" }, `, since ${since(problem.since_ms)}`)),
      h("div", { class: "dim" }, problem.doing, problem.eta_s >= 0 ? `, about ${duration(problem.eta_s)} left` : ""))));
    const share = found.capacity_bytes ? found.used_bytes / found.capacity_bytes : 0;
    const live = found.nodes.filter((node) => node.state === "live").length;
    const counting = found.counted_ms === 0;
    const others = found.capacity_bytes - found.used_bytes - found.remaining_bytes; // on the same disks
    const days = found.growth_bytes_day > 0 ? found.remaining_bytes / found.growth_bytes_day : -1;
    replace(tiles,
      tile("Space used", size(found.used_bytes), bar(share, share > 0.9 ? "bad" : share > 0.8 ? "warn" : ""),
        h("div", { class: "dim small" }, `${size(found.remaining_bytes)} free of ${size(found.capacity_bytes)}`, others > 0.01 * found.capacity_bytes ? `; ${size(others)} hold other things` : ""),
        h("div", { class: "dim small" }, found.growth_bytes_day === null ? "growth not known yet" : Math.abs(found.growth_bytes_day) >= 1024 ? `grows by ${size(found.growth_bytes_day)} a day${days > 0 && days < 3650 ? `, full in ${Math.round(days)} days` : ""}` : "does not grow")),
      tile("DataNodes alive", `${live} of ${found.nodes.length}`, h("div", { class: "dim small" }, plural(new Set(found.nodes.map((node) => node.address.rack)).size, "rack"), ", ", plural(found.nodes.reduce((sum, node) => sum + node.volumes.length, 0), "volume"))),
      tile("Files", counting ? "…" : count(found.files), h("div", { class: "dim small" }, counting ? "being counted" : `${plural(found.directories, "directory", "directories")}, ${plural(found.blocks, "block")}`)),
      tile("Calls per second", rate(found.now.calls_s), h("div", { class: "dim small" }, found.now.calls_s > 0 ? `p50 ${duration(found.now.p50_s)}, p99 ${duration(found.now.p99_s)}` : "none in the last seconds"), h("div", { class: "dim small" }, `${rate(found.now.errors_s)} errors per second`)),
      tile("Written", `${size(found.now.received_bytes_s)}/s`, h("div", { class: "label" }, "Read"), h("div", { class: "value" }, `${size(found.now.sent_bytes_s)}/s`)));
    const repair = found.repair, waiting = repair.by_copies.reduce((sum, value) => sum + value, 0);
    replace(below,
      h("section", { class: "card" }, h("h2", {}, "Repair"),
        h("div", { class: "row" }, repair.waiting + repair.copying ? badge(`${count(repair.waiting)} waiting`, "warn") : found.missing || found.under_replicated ? badge("nothing that could be copied now", found.missing ? "bad" : "warn") : badge("nothing to do", "good"), repair.copying ? badge(`${count(repair.copying)} being copied`) : null,
          repair.done_s > 0 && repair.waiting + repair.copying ? h("span", { class: "dim" }, `${rate(repair.done_s)} blocks per second${repair.eta_s > 0 ? `, about ${duration(repair.eta_s)} left` : ""}`) : null),
        waiting ? h("table", {}, h("tbody", {}, repair.by_copies.map((value, level) => value ? h("tr", {}, h("th", { scope: "row" }, LEVELS[Math.min(level, 3)]), h("td", { class: "right" }, plural(value, "block")), h("td", {}, bar(value / waiting, level === 0 ? "bad" : level === 1 ? "warn" : ""))) : null))) : null,
        h("p", { class: "dim small" }, counting ? "Copies are being counted." : `At the last count, ${ago(found.counted_ms)}: ${plural(found.under_replicated, "block")} with too few copies, ${count(found.missing)} with none, ${plural(found.damaged, "damaged copy", "damaged copies")}, ${plural(found.pending_deletion, "copy", "copies")} to be deleted.`)),
      h("section", { class: "card" }, h("h2", {}, "Hottest directories"),
        found.hot.length ? h("table", {}, h("tbody", {}, found.hot.map((entry) => h("tr", {}, h("td", {}, h("a", { href: `#/files${encodePath(entry.path)}`, "data-key": entry.path }, name(entry.path))), h("td", { class: "right nowrap" }, `${rate(entry.calls_s)} calls/s`))))) : h("p", { class: "dim" }, "Nothing is asked for just now.")));
  }

  const stop = state.watch((found) => keepFocus(main, () => draw(found)));
  load();
  return () => { closed = true; clearTimeout(timer); stop(); };
}

export const encodePath = (path) => path.split("/").map(encodeURIComponent).join("/");
