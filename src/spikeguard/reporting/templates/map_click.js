/* A click on a cell opens its report. */
const drawn = draw;
draw = async (id) => {
  const box = document.getElementById(id), fresh = !isDrawn(box);
  await drawn(id);
  if (fresh) box.on("plotly_click", ({ points: [point] }) => { if (point.customdata) location.href = point.customdata; });
};
