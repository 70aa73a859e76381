// Line charts in SVG: readable by eye, by keyboard (arrow keys move the cursor), and as a table.

import { h, svg } from "./dom.js";
import { clock } from "./format.js";

const HEIGHT = 176, LEFT = 64, BOTTOM = 20, TOP = 8;

/** The next number up of which people count: 1, 2, 2.5, 4 or 5 times a power of ten; of sizes, a power of two. */
function roundUp(value, base) {
  if (base === 2) return 2 ** Math.ceil(Math.log2(value));
  const unit = 10 ** Math.floor(Math.log10(value));
  return unit * [1, 2, 2.5, 4, 5, 10].find((times) => times * unit >= value * 0.999999);
}

/** *series*: [{label, key}] of *points*; *show* turns a value into text. */
export function chart(title, points, series, show, { span = 3600000, end = Date.now(), width = 560, base = 10 } = {}) {
  // While there is little to show, it is shown larger.
  const oldest = points.length ? points[0].time_ms : end;
  span = Math.min(span, Math.max(300000, (end - oldest) * 1.1));
  const start = end - span, WIDTH = Math.max(260, width);
  const seen = points.filter((point) => point.time_ms >= start);
  const step = roundUp(Math.max(...seen.flatMap((point) => series.map((one) => point[one.key])), 0) / 2 || 0.5, base), top = 2 * step;
  const x = (ms) => LEFT + ((ms - start) / span) * (WIDTH - LEFT - 4);
  const y = (value) => TOP + (1 - value / (top * 1.04)) * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", tabindex: "0", "data-key": title });
  for (const value of [0, step, top]) {
    picture.append(svg("line", { class: "axis", x1: LEFT, x2: WIDTH - 4, y1: y(value), y2: y(value) }));
    const text = svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" });
    text.textContent = value ? show(value, true) : "0";
    picture.append(text);
  }
  for (let tick = 0; tick <= 4; tick += 1) {
    const at = start + (span * tick) / 4;
    const text = svg("text", { x: x(at), y: HEIGHT - 5, "text-anchor": tick === 0 ? "start" : tick === 4 ? "end" : "middle" });
    text.textContent = clock(at).slice(0, 5);
    picture.append(text);
  }
  // A gap in time is a gap in the line.
  const gap = seen.length > 1 ? 3 * Math.max(...seen.slice(1).map((point, index) => point.time_ms - seen[index].time_ms).sort((a, b) => a - b).slice(0, Math.ceil(seen.length / 2))) : span;
  series.forEach((one, index) => {
    let path = "", last = -Infinity;
    for (const point of seen) {
      path += `${point.time_ms - last > gap ? "M" : "L"}${x(point.time_ms).toFixed(1)} ${y(point[one.key]).toFixed(1)}`;
      last = point.time_ms;
    }
    picture.append(svg("path", { class: `line s${index + 1}`, d: path, "vector-effect": "non-scaling-stroke" }));
  });
  const latest = seen[seen.length - 1];
  const say = (point) => series.map((one) => `${one.label} ${show(point[one.key])}`).join(", ");
  picture.setAttribute("aria-label", `${title}: ${latest ? `now ${say(latest)}` : "nothing yet"}`);
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, x1: -9, x2: -9 });
  picture.append(cursor);
  const values = h("span", { class: "small dim", "aria-live": "polite" }, latest ? say(latest) : "nothing yet");
  let at = seen.length - 1;
  const move = (index) => {
    if (!seen.length) return;
    at = Math.max(0, Math.min(seen.length - 1, index));
    const point = seen[at];
    cursor.setAttribute("x1", x(point.time_ms)); cursor.setAttribute("x2", x(point.time_ms));
    values.textContent = `${clock(point.time_ms)}: ${say(point)}`;
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const ms = start + ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - 4) * span;
    let best = 0;
    seen.forEach((point, index) => { if (Math.abs(point.time_ms - ms) < Math.abs(seen[best].time_ms - ms)) best = index; });
    move(best);
  });
  picture.addEventListener("pointerleave", () => { cursor.setAttribute("x1", -9); cursor.setAttribute("x2", -9); values.textContent = latest ? say(latest) : "nothing yet"; });
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
    if (step) { event.preventDefault(); move(at + step); }
  });
  return h("section", { class: "card" },
    h("div", { class: "row apart" }, h("h2", {}, title), values),
    picture,
    h("div", { class: "legend" }, series.map((one, index) => h("span", {}, h("i", { class: `s${index + 1}` }), one.label))));
}
