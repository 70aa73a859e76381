// Numbers and times for people.

const number = new Intl.NumberFormat("en");
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

export const count = (value) => number.format(Math.round(value));

/** *short*: round values without zeros behind the point, as on an axis. */
export function size(bytes, short = false) {
  let value = Math.abs(bytes), unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  const text = value.toFixed(digits);
  return `${bytes < 0 ? "-" : ""}${short ? Number(text) : text} ${UNITS[unit]}`;
}

export function rate(value, short = false) {
  const text = value >= 100 ? count(value) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
  return short && value < 100 ? String(Number(text)) : text;
}

export function duration(seconds, short = false) {
  if (seconds < 0) return "unknown";
  if (seconds < 0.001) return `${(seconds * 1e6).toFixed(0)} µs`;
  if (seconds < 1) { const text = (seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0); return `${short ? Number(text) : text} ms`; }
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
}

export const ago = (ms) => `${duration(Math.max(0, (Date.now() - ms) / 1000))} ago`;
/** When something began, and how long ago that is. */
export function since(ms) {
  const passed = Math.max(0, Date.now() - ms);
  return `${passed < 20 * 3600000 ? clock(ms) : date(ms)} (${passed < 1000 ? "just now" : `for ${duration(passed / 1000)}`})`;
}
export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
export function date(ms) {
  const found = new Date(ms), pad = (value) => String(value).padStart(2, "0");
  return `${found.getFullYear()}-${pad(found.getMonth() + 1)}-${pad(found.getDate())} ${pad(found.getHours())}:${pad(found.getMinutes())}`;
}

export function mode(status) {
  const bits = "rwxrwxrwx";
  let text = status.type === "directory" ? "d" : "-";
  for (let index = 0; index < 9; index += 1) text += status.mode & (1 << (8 - index)) ? bits[index] : "-";
  return status.mode & 0o1000 ? text.slice(0, -1) + (status.mode & 1 ? "t" : "T") : text;
}

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
