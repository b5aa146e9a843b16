/* Charts are drawn when they are first seen, in the colours of the page; they are saved in those of
   paper, with title and legend, as wide as one column of a paper. */
const COLUMN = 336; // pixels: 3.5 inches
const night = matchMedia("(prefers-color-scheme: dark)");
const config = { responsive: true, displayModeBar: false };
let onPaper = false;

const copyOf = (figure, colours) =>
  JSON.parse(JSON.stringify(figure), (_, value) => (typeof value === "string" && colours[value]) || value);

function draw(id) {
  const box = document.getElementById(id);
  const { data, layout } = copyOf(figures[id], night.matches && !onPaper ? darkColours : {});
  delete layout.width;
  if (onPaper) layout.width = box.clientWidth;
  return Plotly.react(box, data, layout, config);
}

const isSeen = (box) => !box.closest("details:not([open])");
const isDrawn = (box) => box.classList.contains("js-plotly-plot");

function drawSeen() {
  for (const box of document.querySelectorAll(".chart"))
    if (isSeen(box)) isDrawn(box) ? Plotly.Plots.resize(box) : draw(box.id);
}

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

document.addEventListener("click", async (event) => {
  const { chart, format } = event.target.dataset ?? {};
  if (chart) offer(`${chart}.${format}`, await imageOf(chart, format));
});
