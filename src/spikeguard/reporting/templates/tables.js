/* Every table of numbers can be saved as CSV and as LaTeX (booktabs). */
const escapes = {
  "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\u03b5": "$\\varepsilon$",
  "\u221e": "$_\\infty$", "\u2212": "$-$", "\u2713": "$\\checkmark$", "\u2717": "$\\times$", "\u00b7": "$\\cdot$", "\u2013": "--",
};
const inLatex = (text) => text.replace(/[\\~^\u03b5\u221e\u2212\u2713\u2717\u00b7\u2013]|[&%$#_{}]/g, (sign) => escapes[sign] ?? `\\${sign}`);
const inCsv = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function cellsOf(row) {
  const cells = [];
  for (const cell of row.cells) {
    cells.push(cell.textContent.replace(/\s+/g, " ").trim());
    for (let n = 1; n < cell.colSpan; n++) cells.push("");
  }
  return cells;
}

const formats = {
  csv: (rows) => rows.map((row) => row.map(inCsv).join(",") + "\n").join(""),
  tex: ([head, ...rows]) => {
    const line = (row) => "  " + row.map(inLatex).join(" & ") + " \\\\\n";
    return `\\begin{tabular}{l${"r".repeat(head.length - 1)}}\n  \\toprule\n${line(head)}  \\midrule\n${rows.map(line).join("")}  \\bottomrule\n\\end{tabular}\n`;
  },
};

const tableText = (table, format) => formats[format]([...table.rows].map(cellsOf));

for (const [number, region] of document.querySelectorAll(".scroll").entries()) {
  const table = region.querySelector("table");
  const bar = document.createElement("p");
  bar.className = "save";
  for (const format of Object.keys(formats)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = format === "csv" ? "CSV" : "LaTeX";
    const of = region.getAttribute("aria-label") ?? document.getElementById(region.getAttribute("aria-labelledby")).textContent;
    button.setAttribute("aria-label", `Save as ${button.textContent}: ${of.trim()}`);
    button.addEventListener("click", () => {
      const url = URL.createObjectURL(new Blob([tableText(table, format)], { type: "text/plain" }));
      offer(`table-${number + 1}.${format}`, url);
      URL.revokeObjectURL(url);
    });
    bar.append(button);
  }
  region.append(bar);
}
