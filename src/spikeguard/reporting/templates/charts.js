/* Charts have the colours of the page. They are saved in those of paper, with title and legend, as
   wide as one column of a paper. */
const COLUMN = 336; // pixels: 3.5 inches
const night = matchMedia("(prefers-color-scheme: dark)");
const config = { responsive: true, displayModeBar: false };
let onPaper = false;

/* plotly is in the page as gzip in base64. */
const loaded = (async () => {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
})();

const copyOf = (figure, colours) =>
  JSON.parse(JSON.stringify(figure), (_, value) => (typeof value === "string" && colours[value]) || value);

function draw(id) {
  const box = document.getElementById(id);
  const { data, layout } = copyOf(figures[id], night.matches && !onPaper ? darkColours : {});
  delete layout.width;
  if (onPaper) layout.width = box.clientWidth;
  return Plotly.react(box, data, layout, config);
}

const isDrawn = (box) => box.classList.contains("js-plotly-plot");

/* A chart is drawn when it comes near the screen, and fitted again if its place has changed. */
const near = new IntersectionObserver(
  async (entries) => {
    await loaded;
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      if (!isDrawn(target)) draw(target.id);
      else if (target._fullLayout.width !== target.clientWidth) Plotly.Plots.resize(target);
      await new Promise((next) => setTimeout(next)); // the page stays responsive
    }
  },
  { rootMargin: "50% 0px" },
);
for (const box of document.querySelectorAll(".chart")) near.observe(box);

night.addEventListener("change", () => {
  for (const box of document.querySelectorAll(".chart.js-plotly-plot")) draw(box.id);
});

function lines(text, letters) {
  const rows = [""];
  for (const word of text.split(" ")) {
    const row = rows.at(-1);
    if (row && row.length + word.length >= letters) rows.push(word);
    else rows[rows.length - 1] = row ? `${row} ${word}` : word;
  }
  return rows;
}

/* The rows that a legend takes: its entries have the width of the longest. */
function legendRows(names) {
  const longest = Math.max(...names.map((name) => name.length));
  return Math.ceil(names.length / Math.max(1, Math.floor((COLUMN - 10) / (45 + 6 * longest))));
}

/* A chart for a paper: opaque, with title and legend; its height grows by both. */
function forPaper(id) {
  const { title, data, layout } = copyOf(figures[id], {});
  const named = data.filter((trace) => trace.name);
  for (const trace of data) trace.showlegend = Boolean(trace.name);
  const heading = lines(title, 50);
  const above = 16 * heading.length + 6;
  const rows = named.length ? legendRows(named.map((trace) => trace.name)) : 0;
  const height = layout.height + above + 17 * rows;
  Object.assign(layout, {
    width: COLUMN,
    height,
    paper_bgcolor: "#ffffff",
    plot_bgcolor: "#ffffff",
    showlegend: named.length > 0,
    title: { text: heading.join("<br>"), font: { size: 12 }, x: 0.02, y: 1 - 4 / height, yanchor: "top" },
    legend: {
      orientation: "h", traceorder: "normal", font: { size: 10 }, itemwidth: 30,
      xref: "container", x: 0, xanchor: "left", yref: "container", y: 1 - above / height, yanchor: "top",
    },
    margin: { ...layout.margin, t: above + 17 * rows + 8 },
  });
  layout.xaxis.tickangle = 0;
  for (const axis of [layout.xaxis, layout.yaxis]) {
    axis.tickfont = { ...axis.tickfont, size: 10 };
    axis.title = { ...axis.title, font: { ...axis.title?.font, size: 11 } };
  }
  return { data, layout };
}

const imageOf = (id, format) =>
  Plotly.toImage(forPaper(id), { format, width: COLUMN, height: forPaper(id).layout.height, scale: format === "png" ? 4 : 1 });

function offer(name, url) {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}

/* The arrow keys walk through the points of a chart: left and right along a trace, up and down
   from trace to trace. Each point is shown as under the pointer, and read out. */
const spoken = document.getElementById("spoken");
const named = (value) => (typeof value === "number" ? +value.toPrecision(4) : value);

function pointsOf(trace) {
  if (!Array.isArray(trace.z)) return Array.from(trace.x ?? [], (x, i) => [x, trace.y[i]]);
  return trace.z.flatMap((row, r) => Array.from(row, (z, c) => [trace.x[c], trace.y[r], z]));
}

function step(box, along, across) {
  const traces = box._fullData.filter((it) => it.visible === true && it.hoverinfo !== "skip" && pointsOf(it).length);
  if (!traces.length) return;
  const at = box.spot ?? { trace: 0, point: along > 0 ? -1 : 0 };
  const trace = (at.trace + across + traces.length) % traces.length;
  const points = pointsOf(traces[trace]);
  const point = Math.min(points.length - 1, Math.max(0, at.point + along));
  box.spot = { trace, point };
  const { index, name, z } = traces[trace];
  const columns = Array.isArray(z) ? z[0].length : 0;
  const pointNumber = columns ? [Math.floor(point / columns), point % columns] : point;
  if (box._fullLayout.xaxis && box._fullLayout._has("cartesian"))
    Plotly.Fx.hover(box, [{ curveNumber: index, pointNumber }]);
  const said = name && !/^trace \d+$/.test(name) ? `${name}: ` : "";
  spoken.textContent = said + points[point].map(named).join(", ");
}

/* Shift and the arrow keys turn a surface: by 10 degrees to the side, or up and down. */
function turn(box, aside, down) {
  const { eye, ...rest } = box._fullLayout.scene.camera;
  const angle = Math.atan2(eye.y, eye.x) + (aside * Math.PI) / 18;
  const flat = Math.hypot(eye.x, eye.y);
  const z = Math.min(3, Math.max(0, eye.z - 0.2 * down));
  const to = { ...rest, eye: { x: flat * Math.cos(angle), y: flat * Math.sin(angle), z } };
  Plotly.relayout(box, { "scene.camera": to });
}

document.addEventListener("keydown", (event) => {
  const move = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  if (!move || !event.target.classList?.contains("js-plotly-plot")) return;
  event.preventDefault();
  (event.shiftKey && event.target.layout.scene ? turn : step)(event.target, ...move);
});

document.addEventListener("focusout", ({ target }) => {
  if (target.classList?.contains("js-plotly-plot") && target._fullLayout._has("cartesian")) Plotly.Fx.unhover(target);
});

document.addEventListener("click", async (event) => {
  const { chart, format } = event.target.dataset ?? {};
  if (chart) offer(`${chart}.${format}`, await imageOf(chart, format));
});
