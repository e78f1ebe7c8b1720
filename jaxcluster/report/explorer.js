/* Explorer of a report: a map, silhouettes, a legend and a table of rows that share one selection.

   The page is whole without it: each part that it replaces is there as a picture, which print shows too. Numbers
   arrive as base64 of typed arrays in the element #explorer-data. All text goes through textContent. */
(function () {
"use strict";

const holder = document.getElementById("explorer-data");
if (!holder || !window.HTMLCanvasElement) {
  document.documentElement.classList.remove("js");
  return;
}
const data = JSON.parse(holder.textContent);
const byId = (id) => document.getElementById("explorer-" + id);

/* Numbers ------------------------------------------------------------------------------------------------------- */

function array(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new Kind(bytes.buffer);
}

const rows = array(data.rows, Uint32Array);
const count = rows.length;
const labels = array(data.labels, Uint16Array);
const truth = data.truth ? array(data.truth, Uint16Array) : null;
const silhouettes = data.silhouettes ? array(data.silhouettes, Float32Array) : null;
const images = data.images ? array(data.images.data, Uint8Array) : null;
const ABSENT = 65535;

function decodeMap(map) {
  return Object.assign(map, { x: array(map.x, Uint16Array), y: array(map.y, Uint16Array) });
}
data.maps.forEach(decodeMap);
for (const column of data.columns) {
  column.data = array(column.data, column.kind === "word" ? Uint16Array : Float32Array);
}

function plain(value, digits) {
  if (!Number.isFinite(value)) return "—";
  if (digits !== null && digits !== undefined) {
    return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }
  const size = Math.abs(value);
  if (size >= 1e12 || (size > 0 && size < 1e-3)) return value.toPrecision(4);
  return size >= 1000 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(4)));
}

function number(column, row) {
  return column.origin + column.data[row];
}

function dateText(days) {
  if (!Number.isFinite(days)) return "—";
  const moment = new Date(Math.round(days * 1440) * 60000);
  if (Number.isNaN(moment.getTime())) return "day " + days;
  const text = moment.toISOString();
  return days === Math.floor(days) ? text.slice(0, 10) : text.slice(0, 16).replace("T", " ");
}

function cell(column, row) {
  if (column.kind === "word") return column.data[row] ? column.words[column.data[row] - 1] : "—";
  return column.kind === "date" ? dateText(number(column, row)) : plain(number(column, row), column.decimals);
}

function rowName(row) {
  return data.ids ? data.ids[row] : String(rows[row]);
}

/* Small helpers of the page ------------------------------------------------------------------------------------- */

/* Text with control characters, and those that turn the direction of what follows, as escapes. */
function visible(text) {
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;
  return String(text).replace(hidden, (char) => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0"));
}

function element(tag, attributes, text) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = visible(text);
  return made;
}

function theme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue("--" + name).trim();
  return { ink: read("ink"), muted: read("muted"), line: read("line"), card: read("card"), noise: read("noise") };
}

/* A canvas as sharp as the screen; returns its context, and its size in CSS pixels. */
function prepared(canvas) {
  const box = canvas.getBoundingClientRect(), scale = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(box.width)), height = Math.max(1, Math.round(box.height));
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "12px " + getComputedStyle(document.body).fontFamily;
  return { context, width, height };
}

/* State: what is shown, selected and pointed at ----------------------------------------------------------------- */

const state = {
  isolated: new Set(),          /* clusters; none isolated shows all */
  selected: new Uint8Array(count),
  selectedCount: 0,
  hover: -1,
  color: "cluster",
};
const listeners = [];
let waiting = false;

function changed() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const listener of listeners) listener();
  });
}

function shown(row) {
  return state.isolated.size === 0 || state.isolated.has(labels[row]);
}

function select(chosen, add) {
  if (!add) state.selected.fill(0);
  for (const row of chosen) state.selected[row] = 1;
  state.selectedCount = state.selected.reduce((sum, each) => sum + each, 0);
  changed();
}

const where = new Map();
rows.forEach((row, i) => where.set(row, i));

/* Colors -------------------------------------------------------------------------------------------------------- */

/* From dark blue to yellow, of even lightness steps, after the map viridis of Smith and van der Walt. */
const SCALE = ["#443983", "#31688e", "#21918c", "#35b779", "#90d743", "#e3d01b"];

function mixed(share) {
  const at = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1), low = Math.min(Math.floor(at), SCALE.length - 2);
  const part = (i, from) => parseInt(SCALE[i].slice(from, from + 2), 16);
  const of = (from) => Math.round(part(low, from) + (at - low) * (part(low + 1, from) - part(low, from)));
  return "rgb(" + of(1) + "," + of(3) + "," + of(5) + ")";
}

const ranges = new Map();

function range(column) {
  if (!ranges.has(column)) {
    const values = Array.from(column.data).filter(Number.isFinite).sort((a, b) => a - b);
    /* The outer 2 percent share the colors of the ends: one far row would leave one color to all others. */
    const at = (share) => values.length ? values[Math.round(share * (values.length - 1))] : 0;
    ranges.set(column, [at(0.02), at(0.98)]);
  }
  return ranges.get(column);
}

function clusterColor(cluster, colors) {
  return data.clusters[cluster].noise ? colors.noise : data.clusters[cluster].color;
}

function colorOf(row, colors) {
  if (state.color === "cluster") return clusterColor(labels[row], colors);
  if (state.color === "class") return data.classes[truth[row]].color;
  const column = data.columns[Number(state.color)];
  if (column.kind === "word") return column.data[row] ? data.palette[(column.data[row] - 1) % data.palette.length] : colors.noise;
  const [low, high] = range(column);
  if (!Number.isFinite(column.data[row])) return colors.noise;
  return mixed(high > low ? (column.data[row] - low) / (high - low) : 0.5);
}

/* Map ----------------------------------------------------------------------------------------------------------- */

const map = { canvas: byId("map"), at: 0, zoom: 1, x: 0, y: 0, lasso: false, path: null, drag: null };
const MARGIN = { left: 46, right: 14, top: 14, bottom: 26 };

function frame() {
  const box = map.canvas.getBoundingClientRect(), bare = !data.maps[map.at].xlabel;
  const left = bare ? MARGIN.right : MARGIN.left, bottom = bare ? MARGIN.top : MARGIN.bottom;
  return { left, top: MARGIN.top, width: box.width - left - MARGIN.right, height: box.height - MARGIN.top - bottom };
}

/* Positions on the canvas of shares of the map's range, 0 to 1. */
function place(x, y, inside) {
  return [inside.left + (x * map.zoom + map.x) * inside.width, inside.top + ((1 - y) * map.zoom + map.y) * inside.height];
}

function pixel(row, inside) {
  const plane = data.maps[map.at];
  return plane.x[row] === ABSENT ? null : place(plane.x[row] / 65534, plane.y[row] / 65534, inside);
}

function niceTicks(low, high) {
  const step = Math.pow(10, Math.floor(Math.log10((high - low) / 4)));
  const size = [1, 2, 5, 10].map((each) => each * step).find((each) => (high - low) / each <= 6);
  const ticks = [];
  for (let i = Math.ceil(low / size); i * size <= high && ticks.length < 12; i++) ticks.push(i * size);
  return ticks;
}

function drawAxes(context, inside, colors) {
  const plane = data.maps[map.at];
  context.strokeStyle = colors.line;
  context.strokeRect(inside.left + 0.5, inside.top + 0.5, inside.width, inside.height);
  if (!plane.xlabel) return;
  context.fillStyle = colors.muted;
  const [left, right, low, high] = plane.range;
  const seen = (share) => left + ((share - map.x) / map.zoom) * (right - left);
  context.textAlign = "center";
  for (const tick of niceTicks(seen(0), seen(1))) {
    const at = place((tick - left) / (right - left), 0, inside)[0];
    context.fillText(plain(tick), at, inside.top + inside.height + 17);
  }
  if (!plane.ylabel) return;
  const height = (share) => low + (1 - (share - map.y) / map.zoom) * (high - low);
  context.textAlign = "right";
  for (const tick of niceTicks(height(1), height(0))) {
    const at = place(0, (tick - low) / (high - low), inside)[1];
    context.fillText(plain(tick), inside.left - 6, at + 4);
  }
}

function drawPoints(context, inside, colors) {
  const size = Math.min(4.2, Math.max(1.7, 110 / Math.sqrt(count))) * Math.min(1.8, Math.sqrt(map.zoom));
  const picked = state.selectedCount > 0;
  const draw = (row, color, alpha, radius) => {
    const at = pixel(row, inside);
    if (!at) return;
    context.globalAlpha = alpha;
    context.fillStyle = color;
    context.beginPath();
    context.arc(at[0], at[1], radius, 0, 7);
    context.fill();
  };
  const front = [];
  for (let row = 0; row < count; row++) {
    if (!shown(row)) draw(row, colors.noise, 0.16, size * 0.8);
    else if (picked && !state.selected[row]) draw(row, colorOf(row, colors), 0.16, size);
    else front.push(row);
  }
  /* Noise first; the rest in the order of a fixed shuffle, so that no cluster covers another as a whole. */
  const noisy = (row) => (data.clusters[labels[row]].noise ? 0 : 1);
  front.sort((a, b) => noisy(a) - noisy(b) || (a * 2654435761) % 4294967296 - (b * 2654435761) % 4294967296);
  for (const row of front) draw(row, colorOf(row, colors), picked ? 0.95 : count < 3000 ? 0.85 : 0.65, size);
  context.globalAlpha = 1;
}

function drawCenters(context, inside, colors) {
  if (state.color !== "cluster" || state.selectedCount) return;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const [x, y, cluster] of data.maps[map.at].centers) {
    if (state.isolated.size && !state.isolated.has(cluster)) continue;
    const at = place(x, y, inside), entry = data.clusters[cluster];
    context.beginPath();
    context.arc(at[0], at[1], 10, 0, 7);
    context.fillStyle = entry.color;
    context.fill();
    context.lineWidth = 2;
    context.strokeStyle = colors.card;
    context.stroke();
    context.fillStyle = entry.ink;
    context.fillText(entry.name, at[0], at[1] + 0.5);
  }
  /* Clusters without a center have their number in their middle. */
  context.font = "bold 14px " + getComputedStyle(document.body).fontFamily;
  for (const [x, y, cluster] of data.maps[map.at].numbers) {
    if (state.isolated.size && !state.isolated.has(cluster)) continue;
    const at = place(x, y, inside);
    context.lineWidth = 4;
    context.strokeStyle = colors.card;
    context.strokeText(data.clusters[cluster].name, at[0], at[1]);
    context.fillStyle = colors.ink;
    context.fillText(data.clusters[cluster].name, at[0], at[1]);
  }
  context.textBaseline = "alphabetic";
}

function drawMap() {
  const colors = theme(), { context } = prepared(map.canvas), inside = frame();
  context.lineWidth = 1;
  drawAxes(context, inside, colors);
  context.save();
  context.beginPath();
  context.rect(inside.left, inside.top, inside.width, inside.height);
  context.clip();
  drawPoints(context, inside, colors);
  drawCenters(context, inside, colors);
  if (state.hover >= 0) {
    const at = pixel(state.hover, inside);
    if (at) {
      context.beginPath();
      context.arc(at[0], at[1], 8, 0, 7);
      context.lineWidth = 2;
      context.strokeStyle = colors.ink;
      context.stroke();
    }
  }
  if (map.path) {
    context.beginPath();
    map.path.forEach((at, i) => (i ? context.lineTo(at[0], at[1]) : context.moveTo(at[0], at[1])));
    context.closePath();
    context.globalAlpha = 0.12;
    context.fillStyle = colors.ink;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = colors.ink;
    context.setLineDash([4, 3]);
    context.stroke();
    context.setLineDash([]);
  }
  context.restore();
}
listeners.push(drawMap);

function pointer(event) {
  const box = event.currentTarget.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function nearest(at) {
  const inside = frame();
  let best = -1, least = 14 * 14;
  for (let row = 0; row < count; row++) {
    if (!shown(row)) continue;
    const own = pixel(row, inside);
    if (!own) continue;
    const square = (own[0] - at[0]) ** 2 + (own[1] - at[1]) ** 2;
    if (square < least) [best, least] = [row, square];
  }
  return best;
}

function isInside(at, path) {
  let odd = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
    const [x, y] = path[i], [u, v] = path[j];
    if (y > at[1] !== v > at[1] && at[0] < ((u - x) * (at[1] - y)) / (v - y) + x) odd = !odd;
  }
  return odd;
}

function zoomBy(factor, at) {
  const inside = frame();
  const share = at ? [(at[0] - inside.left) / inside.width, (at[1] - inside.top) / inside.height] : [0.5, 0.5];
  const zoom = Math.min(200, Math.max(1, map.zoom * factor)), ratio = zoom / map.zoom;
  map.x = share[0] - (share[0] - map.x) * ratio;
  map.y = share[1] - (share[1] - map.y) * ratio;
  map.zoom = zoom;
  moveBy(0, 0);
}

function moveBy(x, y) {
  /* The map always fills its frame. */
  map.x = Math.min(0, Math.max(1 - map.zoom, map.x + x));
  map.y = Math.min(0, Math.max(1 - map.zoom, map.y + y));
  byId("home").disabled = map.zoom === 1;
  changed();
}

function home() {
  Object.assign(map, { zoom: 1, x: 0, y: 0 });
  moveBy(0, 0);
}

/* A page that is being scrolled goes on scrolling when the map comes under the pointer. */
let scrolled = -1e9;
window.addEventListener("scroll", () => (scrolled = performance.now()), { passive: true });

map.canvas.addEventListener("wheel", (event) => {
  if (performance.now() - scrolled < 250 || (map.zoom === 1 && event.deltaY > 0)) return;
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / (event.deltaMode ? 8 : 300)), pointer(event));
}, { passive: false });

map.canvas.addEventListener("pointerdown", (event) => {
  const at = pointer(event);
  map.drag = { start: at, last: at, moved: false };
  if (map.lasso || event.shiftKey) map.path = [at];
  if (event.isTrusted) map.canvas.setPointerCapture(event.pointerId);
});

map.canvas.addEventListener("pointermove", (event) => {
  const at = pointer(event);
  if (!map.drag) {
    pointAt(nearest(at), at);
    return;
  }
  if (Math.hypot(at[0] - map.drag.start[0], at[1] - map.drag.start[1]) > 4) map.drag.moved = true;
  if (map.path) map.path.push(at);
  else if (map.drag.moved) {
    const inside = frame();
    moveBy((at[0] - map.drag.last[0]) / inside.width, (at[1] - map.drag.last[1]) / inside.height);
  }
  map.drag.last = at;
  pointAt(-1);
  changed();
});

map.canvas.addEventListener("pointerup", (event) => {
  if (!map.drag) return;
  const { moved, start } = map.drag, path = map.path, inside = frame();
  Object.assign(map, { drag: null, path: null });
  if (path && moved) {
    const chosen = [];
    for (let row = 0; row < count; row++) {
      const at = shown(row) ? pixel(row, inside) : null;
      if (at && isInside(at, path)) chosen.push(row);
    }
    select(chosen, event.ctrlKey || event.metaKey);
  } else if (!moved) {
    const row = nearest(start);
    select(row < 0 ? [] : [row], event.ctrlKey || event.metaKey || event.shiftKey);
  }
  changed();
});

map.canvas.addEventListener("pointercancel", () => {
  Object.assign(map, { drag: null, path: null });
  changed();
});
map.canvas.addEventListener("pointerleave", () => pointAt(-1));
map.canvas.addEventListener("dblclick", home);

map.canvas.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
  if (moves[event.key] && map.zoom > 1) moveBy(...moves[event.key]);
  else if (event.key === "+" || event.key === "=") zoomBy(1.5);
  else if (event.key === "-") zoomBy(1 / 1.5);
  else if (event.key === "0") home();
  else if (event.key === "Escape") select([]);
  else return;
  event.preventDefault();
});

byId("in").addEventListener("click", () => zoomBy(1.5));
byId("out").addEventListener("click", () => zoomBy(1 / 1.5));
byId("home").addEventListener("click", home);
byId("lasso").addEventListener("click", () => {
  map.lasso = !map.lasso;
  byId("lasso").setAttribute("aria-pressed", map.lasso);
  map.canvas.classList.toggle("lasso", map.lasso);
});

function showMap(at) {
  map.at = at;
  const plane = data.maps[at];
  byId("axes").textContent = plane.xlabel
    ? visible("Across: " + plane.xlabel + (plane.ylabel ? "; upwards: " + plane.ylabel + "." : "."))
    : "The axes have no meaning of their own.";
  home();
}

/* The row under the pointer ------------------------------------------------------------------------------------- */

const tip = byId("tip");
const TIP_COLUMNS = 8;

function picture(row) {
  const { width, height, channels } = data.images, size = width * height * channels;
  const canvas = element("canvas", { width, height, class: "thumbnail", "aria-hidden": "true" });
  const pixels = canvas.getContext("2d").createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = images[row * size + i * channels + (channels > 1 ? c : 0)];
    pixels.data[4 * i + 3] = channels === 4 ? images[row * size + i * channels + 3] : 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function describe(row) {
  const lines = [[data.idName, rowName(row)], ["cluster", data.clusters[labels[row]].name]];
  if (truth) lines.push(["class", data.classes[truth[row]].name]);
  if (silhouettes && Number.isFinite(silhouettes[row])) lines.push(["silhouette", silhouettes[row].toFixed(3)]);
  for (const column of data.columns.slice(0, TIP_COLUMNS)) lines.push([column.name, cell(column, row)]);
  return lines;
}

function pointAt(row, at) {
  if (row === state.hover && row < 0) return;
  state.hover = row;
  tip.hidden = row < 0;
  if (row >= 0) {
    tip.textContent = "";
    if (data.images && row < data.images.count) tip.append(picture(row));
    const list = element("dl");
    for (const [name, value] of describe(row)) list.append(element("dt", {}, name), element("dd", {}, value));
    tip.append(list);
    if (data.columns.length > TIP_COLUMNS) tip.append(element("p", {}, "more columns in the table"));
    const box = map.canvas.getBoundingClientRect(), [x, y] = at || pixel(row, frame()) || [0, 0];
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = Math.max(0, x + 16 + width < box.width ? x + 16 : x - 16 - width) + "px";
    tip.style.top = Math.max(0, Math.min(y - height / 2, box.height - height)) + "px";
  }
  changed();
}

/* Silhouettes --------------------------------------------------------------------------------------------------- */

const bars = { canvas: byId("silhouette"), order: [], starts: [], from: null };

function silhouetteOrder() {
  const order = [];
  for (let row = 0; row < count; row++) if (Number.isFinite(silhouettes[row]) && shown(row)) order.push(row);
  return order.sort((a, b) => labels[a] - labels[b] || silhouettes[b] - silhouettes[a]);
}

function drawSilhouettes() {
  const colors = theme(), { context, width, height } = prepared(bars.canvas);
  const order = (bars.order = silhouetteOrder());
  if (!order.length) return;
  const left = 34, right = width - 8, bottom = height - 22, low = Math.min(0, ...Array.from(order, (row) => silhouettes[row]));
  const across = (value) => left + ((value - low) / (1 - low)) * (right - left);
  const thick = Math.max(1, bottom / order.length);
  let mean = 0, first = 0;
  order.forEach((row, i) => {
    mean += silhouettes[row] / order.length;
    const faded = state.selectedCount && !state.selected[row];
    context.globalAlpha = faded ? 0.2 : 1;
    context.fillStyle = clusterColor(labels[row], colors);
    const from = across(0), to = across(silhouettes[row]);
    context.fillRect(Math.min(from, to), (i / order.length) * bottom, Math.max(1, Math.abs(to - from)), thick);
    if (i + 1 === order.length || labels[order[i + 1]] !== labels[row]) {
      const middle = ((first + i + 1) / 2 / order.length) * bottom;
      context.globalAlpha = 1;
      context.fillStyle = colors.muted;
      context.textAlign = "right";
      if (((i + 1 - first) / order.length) * bottom > 11) context.fillText(data.clusters[labels[row]].name, left - 6, middle + 4);
      first = i + 1;
    }
  });
  context.globalAlpha = 1;
  context.fillStyle = colors.muted;
  context.textAlign = "center";
  for (const tick of [0, 0.5, 1]) context.fillText(String(tick), Math.min(across(tick), right - 4), height - 6);
  context.strokeStyle = colors.ink;
  context.setLineDash([4, 3]);
  context.beginPath();
  context.moveTo(across(mean), 0);
  context.lineTo(across(mean), bottom);
  context.stroke();
  context.setLineDash([]);
  if (state.hover >= 0 && order.includes(state.hover)) {
    const at = ((order.indexOf(state.hover) + 0.5) / order.length) * bottom;
    context.strokeRect(left - 2, at - 2, right - left + 4, 4);
  }
  byId("silhouette-mean").textContent = "mean " + mean.toFixed(3);
}

function silhouetteRow(event) {
  const box = bars.canvas.getBoundingClientRect();
  const at = Math.floor(((event.clientY - box.top) / (box.height - 22)) * bars.order.length);
  return Math.min(Math.max(at, 0), bars.order.length - 1);
}

if (silhouettes) {
  listeners.push(drawSilhouettes);
  bars.canvas.addEventListener("pointerdown", (event) => {
    bars.from = silhouetteRow(event);
    if (event.isTrusted) bars.canvas.setPointerCapture(event.pointerId);
  });
  bars.canvas.addEventListener("pointermove", (event) => {
    const at = silhouetteRow(event);
    pointAt(bars.order[at]);
    if (bars.from !== null && at !== bars.from) {
      select(bars.order.slice(Math.min(at, bars.from), Math.max(at, bars.from) + 1));
    }
  });
  bars.canvas.addEventListener("pointerup", (event) => {
    const at = silhouetteRow(event);
    if (at === bars.from) select([bars.order[at]], event.ctrlKey || event.metaKey || event.shiftKey);
    bars.from = null;
  });
  bars.canvas.addEventListener("pointerleave", () => pointAt(-1));
}

/* Legend -------------------------------------------------------------------------------------------------------- */

const legend = byId("legend");

function isolate(cluster, add) {
  const alone = state.isolated.size === 1 && state.isolated.has(cluster);
  if (!add) {
    state.isolated.clear();
    if (!alone) state.isolated.add(cluster);
  } else if (!state.isolated.delete(cluster)) state.isolated.add(cluster);
  state.hover = -1;
  table.page = 0;
  changed();
}

data.clusters.forEach((cluster, i) => {
  const button = element("button", { type: "button", "aria-pressed": "false", "data-cluster": i });
  const swatch = element("span", { class: "swatch" + (cluster.noise ? " noise" : ""), "aria-hidden": "true" });
  if (!cluster.noise) swatch.style.background = cluster.color;
  button.append(swatch, element("span", { class: "name" }, cluster.name + (cluster.match ? " · " + cluster.match : "")));
  button.append(element("span", { class: "size" }, cluster.size.toLocaleString("en-US")));
  button.addEventListener("click", (event) => isolate(i, event.shiftKey || event.ctrlKey || event.metaKey));
  legend.append(button);
});
byId("all").addEventListener("click", () => {
  state.isolated.clear();
  table.page = 0;
  changed();
});

listeners.push(() => {
  for (const button of legend.children) {
    button.setAttribute("aria-pressed", state.isolated.has(Number(button.dataset.cluster)));
  }
  byId("all").disabled = state.isolated.size === 0;
});

/* Table of rows ------------------------------------------------------------------------------------------------- */

const table = { element: byId("table"), sort: -1, down: false, page: 0, size: 12, query: "", words: null };
const heads = [
  { name: data.idName, number: !data.ids, value: (row) => (data.ids ? data.ids[row] : rows[row]), text: rowName },
  { name: "cluster", number: true, value: (row) => labels[row], text: (row) => data.clusters[labels[row]].name },
];
if (truth) heads.push({ name: "class", value: (row) => truth[row], text: (row) => data.classes[truth[row]].name });
if (silhouettes) {
  const text = (row) => (Number.isFinite(silhouettes[row]) ? silhouettes[row].toFixed(3) : "—");
  heads.push({ name: "silhouette", number: true, value: (row) => silhouettes[row], text });
}
for (const column of data.columns) {
  const worded = column.kind === "word";
  const value = worded ? (row) => (column.data[row] ? column.words[column.data[row] - 1] : null) : (row) => column.data[row];
  heads.push({ name: column.name, number: !worded, value, text: (row) => cell(column, row) });
}

function found() {
  const query = table.query.toLowerCase(), list = [];
  if (query && !table.words) {
    table.words = Array.from(rows, (_, row) => heads.map((head) => head.text(row)).join("\n").toLowerCase());
  }
  for (let row = 0; row < count; row++) {
    if (!shown(row) || (state.selectedCount && !state.selected[row])) continue;
    if (!query || table.words[row].includes(query)) list.push(row);
  }
  if (table.sort < 0) return list;
  const value = heads[table.sort].value, sign = table.down ? -1 : 1;
  const missing = (each) => each === null || Number.isNaN(each);
  return list.sort((a, b) => {
    const one = value(a), other = value(b);
    if (missing(one) || missing(other)) return missing(one) - missing(other);
    return one < other ? -sign : one > other ? sign : a - b;
  });
}

heads.forEach((head, i) => {
  const cellHead = element("th", { scope: "col", "aria-sort": "none", class: head.number ? "number" : "" });
  const button = element("button", { type: "button" }, head.name);
  button.addEventListener("click", () => {
    table.down = table.sort === i && !table.down;
    table.sort = i;
    table.page = 0;
    changed();
  });
  cellHead.append(button);
  table.element.tHead.rows[0].append(cellHead);
});

function drawTable() {
  const list = found(), pages = Math.max(1, Math.ceil(list.length / table.size));
  table.page = Math.min(table.page, pages - 1);
  [...table.element.tHead.rows[0].cells].forEach((each, i) => {
    each.setAttribute("aria-sort", i !== table.sort ? "none" : table.down ? "descending" : "ascending");
  });
  const body = table.element.tBodies[0], start = table.page * table.size;
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.row : undefined;
  body.textContent = "";
  for (const row of list.slice(start, start + table.size)) {
    const line = element("tr", state.hover === row ? { class: "pointed" } : {});
    heads.forEach((head, i) => {
      const made = element(i ? "td" : "th", { class: head.number ? "number" : "" });
      if (i === 0) {
        const button = element("button", { type: "button", "data-row": row, "aria-pressed": state.selected[row] === 1 }, head.text(row));
        button.addEventListener("click", () => {
          state.selected[row] = 1 - state.selected[row];
          select([], true);
        });
        made.append(button);
      } else if (i === 1) {
        const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
        swatch.style.background = data.clusters[labels[row]].noise ? "var(--noise)" : data.clusters[labels[row]].color;
        made.append(swatch, head.text(row));
      } else made.textContent = visible(head.text(row));
      line.append(made);
    });
    line.addEventListener("pointerenter", () => {
      state.hover = row;
      drawMap();
    });
    line.addEventListener("pointerleave", () => {
      state.hover = -1;
      drawMap();
    });
    body.append(line);
  }
  if (focused !== undefined) {
    const again = body.querySelector('[data-row="' + focused + '"]');
    if (again) again.focus();
  }
  byId("page").textContent = list.length
    ? (start + 1).toLocaleString("en-US") + "–" + Math.min(start + table.size, list.length).toLocaleString("en-US") + " of " + list.length.toLocaleString("en-US")
    : "no row";
  byId("before").disabled = table.page === 0;
  byId("after").disabled = table.page >= pages - 1;
}
/* While the pointer moves over the map only the mark moves, and the table stays. */
let drawn = "";
listeners.push(() => {
  const version = [table.page, table.sort, table.down, table.query, [...state.isolated], state.selected.join("")].join("|");
  if (version !== drawn) {
    drawn = version;
    drawTable();
    report();
  }
});

byId("before").addEventListener("click", () => { table.page -= 1; changed(); });
byId("after").addEventListener("click", () => { table.page += 1; changed(); });
byId("search").addEventListener("input", (event) => {
  Object.assign(table, { query: event.target.value.trim(), page: 0 });
  changed();
});

/* The selection in words, and as a file ------------------------------------------------------------------------- */

function selectedRows() {
  const chosen = [];
  for (let row = 0; row < count; row++) if (state.selected[row]) chosen.push(row);
  return chosen;
}

function report() {
  const counts = new Map();
  for (const row of selectedRows()) counts.set(labels[row], (counts.get(labels[row]) || 0) + 1);
  const parts = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 6).map(([cluster, size]) => {
    const entry = data.clusters[cluster];
    return (entry.noise ? "noise" : "cluster " + entry.name) + ": " + size.toLocaleString("en-US");
  });
  const noun = state.selectedCount === 1 ? " row selected" : " rows selected";
  byId("status").textContent = state.selectedCount
    ? state.selectedCount.toLocaleString("en-US") + noun + " (" + parts.join(", ") + (counts.size > 6 ? ", …" : "") + ")."
    : byId("status").dataset.empty;
  byId("clear").disabled = byId("save").disabled = state.selectedCount === 0;
}

byId("clear").addEventListener("click", () => select([]));
byId("save").addEventListener("click", () => {
  const quoted = (text) => (/[",\n\r]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text);
  const lines = [[data.idName, "label"].map(quoted).join(",")];
  for (const row of selectedRows()) lines.push(quoted(rowName(row)) + "," + data.clusters[labels[row]].label);
  const link = element("a", { download: "selected.csv" });
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

/* Choices of map and color -------------------------------------------------------------------------------------- */

data.maps.forEach((plane, i) => byId("choose-map").append(element("option", { value: i }, plane.title)));
byId("choose-map").addEventListener("change", (event) => showMap(Number(event.target.value)));
byId("choose-map").parentElement.hidden = data.maps.length < 2;
byId("choose-color").append(element("option", { value: "cluster" }, "cluster"));
if (truth) byId("choose-color").append(element("option", { value: "class" }, "class"));
data.columns.forEach((column, i) => byId("choose-color").append(element("option", { value: i }, column.name)));
byId("choose-color").parentElement.hidden = byId("choose-color").options.length < 2;
byId("choose-color").addEventListener("change", (event) => {
  state.color = event.target.value;
  byId("scale").hidden = true;
  const column = data.columns[Number(state.color)];
  if (column && column.kind !== "word") {
    const ends = range(column).map((each) => column.origin + each);
    const text = column.kind === "date" ? ends.map(dateText) : ends.map((each) => plain(each, column.decimals));
    byId("scale").hidden = false;
    byId("scale-low").textContent = text[0];
    byId("scale-high").textContent = text[1];
    byId("scale-bar").style.background = "linear-gradient(90deg," + SCALE.join(",") + ")";
  }
  changed();
});

/* Pictures of trees and orders: a shape selects its rows -------------------------------------------------------- */

const orders = {};
for (const [name, text] of Object.entries(data.orders)) orders[name] = array(text, Uint16Array);

for (const shape of document.querySelectorAll(".hit")) {
  const chosen = () => {
    if (shape.dataset.cluster !== undefined) {
      const cluster = data.clusters.findIndex((each) => String(each.label) === shape.dataset.cluster);
      return Array.from(rows.keys()).filter((row) => labels[row] === cluster);
    }
    const range = orders[shape.dataset.order].slice(Number(shape.dataset.from), Number(shape.dataset.to));
    return Array.from(range).filter((row) => row !== ABSENT);
  };
  const act = (event) => {
    select(chosen(), event.ctrlKey || event.metaKey || event.shiftKey);
    for (const other of document.querySelectorAll(".hit.on")) other.classList.remove("on");
    shape.classList.add("on");
  };
  /* One stop of the tab key for each picture; arrows go from shape to shape. */
  shape.ownerSVGElement.setAttribute("role", "group");
  const siblings = [...shape.ownerSVGElement.querySelectorAll(".hit")], at = siblings.indexOf(shape);
  shape.setAttribute("tabindex", at === 0 ? "0" : "-1");
  shape.setAttribute("role", "button");
  shape.addEventListener("click", act);
  shape.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) {
      const next = siblings[at + step];
      if (next) [shape.tabIndex, next.tabIndex] = [-1, 0];
      if (next) next.focus();
    } else if (event.key === "Enter" || event.key === " ") act(event);
    else return;
    event.preventDefault();
  });
}

/* Names of rows elsewhere on the page: a click selects the row. */
for (const button of document.querySelectorAll("button.to-row")) {
  const row = where.get(Number(button.dataset.row));
  if (row === undefined) button.disabled = true;
  else button.addEventListener("click", () => {
    select([row]);
    byId("map").scrollIntoView({ block: "center" });
  });
}

/* Training: the codes at each moment ---------------------------------------------------------------------------- */

const film = data.moments ? byId("film") : null;

function drawFilm() {
  const colors = theme(), { context, width, height } = prepared(film);
  const moment = data.moments.maps[Number(byId("moment").value)], own = data.moments;
  const place = (x, y) => [10 + (x / 65534) * (width - 20), 10 + (1 - y / 65534) * (height - 20)];
  const radius = Math.min(4, Math.max(1.6, 90 / Math.sqrt(own.labels.length)));
  for (const front of [false, true]) {
    for (let i = 0; i < own.labels.length; i++) {
      const row = where.get(own.rows[i]);
      const lit = (state.isolated.size === 0 || state.isolated.has(own.labels[i])) &&
        (!state.selectedCount || (row !== undefined && state.selected[row]));
      if (lit !== front) continue;
      const [x, y] = place(moment.x[i], moment.y[i]);
      context.globalAlpha = lit ? 0.85 : 0.15;
      context.fillStyle = clusterColor(own.labels[i], colors);
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fill();
    }
  }
  context.globalAlpha = 1;
  byId("moment-name").textContent = moment.name;
  byId("moment").setAttribute("aria-valuetext", moment.name);
}

if (film) {
  data.moments.maps.forEach(decodeMap);
  data.moments.labels = array(data.moments.labels, Uint16Array);
  data.moments.rows = array(data.moments.rows, Uint32Array);
  const last = data.moments.maps.length - 1, play = byId("play");
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  Object.assign(byId("moment"), { max: last, value: last });
  byId("moment").addEventListener("input", () => { stop(); changed(); });
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    play.textContent = "Stop";
    if (Number(byId("moment").value) === last) byId("moment").value = 0;
    changed();
    timer = setInterval(() => {
      byId("moment").value = Number(byId("moment").value) + 1;
      changed();
      if (Number(byId("moment").value) === last) stop();
    }, 900);
  });
  listeners.push(drawFilm);
}

/* Pictures that the explorer replaces are folded, and open on paper -------------------------------------------- */

const folded = [...document.querySelectorAll("details.still")];
for (const each of folded) each.open = false;
window.addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
window.addEventListener("afterprint", () => folded.forEach((each) => (each.open = false)));

/* Around the page, the widget of a notebook: both have one selection -------------------------------------------- */

if (window.parent !== window) {
  let known = "";
  const numbers = () => selectedRows().map((row) => rows[row]);
  listeners.push(() => {
    const chosen = numbers();
    if (chosen.join() === known) return;
    known = chosen.join();
    window.parent.postMessage({ jaxcluster: chosen }, "*");
  });
  window.addEventListener("message", (event) => {
    const chosen = event.source === window.parent && event.data && event.data.jaxcluster;
    if (!Array.isArray(chosen)) return;
    select(chosen.map((number) => where.get(number)).filter((row) => row !== undefined));
    known = numbers().join();
  });
}

/* Beginning ----------------------------------------------------------------------------------------------------- */

try {
  showMap(0);
  for (const listener of listeners) listener();
} catch (error) {
  /* The page goes on without a script. */
  document.documentElement.classList.remove("js");
  for (const each of folded) each.open = true;
  throw error;
}
new ResizeObserver(changed).observe(map.canvas);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
})();
