// A look at a file's beginning: text, images, the head of Parquet. Only as much as is shown is fetched.

import { readRange } from "./api.js";
import { h, name, replace } from "./dom.js";
import { plural, size } from "./format.js";

const TEXT_BYTES = 64 * 1024, IMAGE_BYTES = 16 * 1024 * 1024, PARQUET_ROWS = 50, PARQUET_COLUMNS = 40, CELL = 200;
const IMAGES = { png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", gif: "image/gif", webp: "image/webp", avif: "image/avif", bmp: "image/bmp" };

/** Fill *box* with a look at the file; what was begun is given up when *signal* says so. */
export async function preview(box, status, signal, options = {}) {
  const kind = status.path.split(".").pop().toLowerCase();
  const read = (start, end) => readRange(status.path, start, end, { signal, ...options });
  if (status.length === 0) { replace(box, h("p", { class: "dim" }, "The file is empty.")); return () => {}; }
  replace(box, h("p", { class: "dim" }, "Fetching…"));
  if (IMAGES[kind]) return image(box, status, kind, read);
  const head = new Uint8Array(await read(0, Math.min(status.length, TEXT_BYTES)));
  if (head.length >= 12 && String.fromCharCode(...head.subarray(0, 4)) === "PAR1") return parquet(box, status, read);
  return text(box, status, head);
}

async function image(box, status, kind, read) {
  if (status.length > IMAGE_BYTES) { replace(box, h("p", { class: "dim" }, `Images up to ${size(IMAGE_BYTES)} are shown; this one has ${size(status.length)}.`)); return () => {}; }
  const url = URL.createObjectURL(new Blob([await read(0, status.length)], { type: IMAGES[kind] }));
  const shown = h("img", { src: url, alt: `Preview of ${status.path}` });
  shown.onerror = () => replace(box, h("p", { class: "dim" }, "The browser can't show this image."));
  replace(box, h("div", { class: "preview" }, shown));
  return () => URL.revokeObjectURL(url);
}

function text(box, status, head) {
  let shown;
  try {
    // The last character may be cut by the limit, so it may be incomplete.
    shown = new TextDecoder("utf-8", { fatal: true }).decode(head, { stream: head.length < status.length });
  } catch { shown = null; }
  const odd = shown === null ? 1 : (shown.match(/[\u0000-\u0008\u000e-\u001f]/g) || []).length / shown.length;
  if (odd > 0.02) {
    replace(box, h("p", { class: "dim" }, "Not text. Its first bytes:"), h("div", { class: "preview" }, h("pre", { class: "hex" }, hex(head.subarray(0, 512)))));
    return () => {};
  }
  replace(box, h("div", { class: "preview", tabindex: "0", "aria-label": "Text" }, h("pre", {}, shown)),
    head.length < status.length ? h("p", { class: "dim small" }, `The first ${size(head.length)} of ${size(status.length)}.`) : "");
  return () => {};
}

function hex(bytes) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)];
    const codes = row.map((value) => value.toString(16).padStart(2, "0")).join(" ").padEnd(47);
    lines.push(`${at.toString(16).padStart(6, "0")}  ${codes}  ${row.map((value) => (value > 31 && value < 127 ? String.fromCharCode(value) : ".")).join("")}`);
  }
  return lines.join("\n");
}

async function parquet(box, status, read) {
  const { parquetMetadataAsync, parquetReadObjects, parquetSchema } = await import("./vendor/hyparquet/index.js");
  const file = { byteLength: status.length, slice: (start, end) => read(start < 0 ? status.length + start : start, end === undefined ? status.length : end < 0 ? status.length + end : end) };
  const metadata = await parquetMetadataAsync(file);
  const columns = parquetSchema(metadata).children.map((child) => child.element.name);
  const some = columns.slice(0, PARQUET_COLUMNS), total = Number(metadata.num_rows);
  let rows, problem = "";
  try {
    rows = await parquetReadObjects({ file, metadata, columns: some, rowStart: 0, rowEnd: Math.min(PARQUET_ROWS, total) });
  } catch (error) {
    rows = []; problem = `The rows can't be shown here: ${error.message}`;
  }
  replace(box,
    h("p", { class: "small dim" }, `Parquet: ${plural(total, "row")}, ${plural(columns.length, "column")}, ${plural(metadata.row_groups.length, "row group")}, written by ${metadata.created_by || "an unknown program"}.`),
    problem ? h("p", {}, problem) : "",
    h("div", { class: "preview", tabindex: "0", "aria-label": "First rows" }, h("table", {},
      h("thead", {}, h("tr", {}, some.map((column) => h("th", { scope: "col" }, name(column))))),
      h("tbody", {}, rows.map((row) => h("tr", {}, some.map((column) => h("td", {}, cell(row[column])))))))),
    columns.length > some.length ? h("p", { class: "dim small" }, `${plural(columns.length - some.length, "more column")} not shown.`) : "");
  return () => {};
}

function cell(value) {
  if (value === null || value === undefined) return h("span", { class: "dim" }, "null");
  if (value instanceof Date) return value.toISOString();
  const shown = typeof value === "object" ? JSON.stringify(value, (_, inner) => (typeof inner === "bigint" ? String(inner) : inner)) : String(value);
  return name(shown.length > CELL ? `${shown.slice(0, CELL)}…` : shown);
}
