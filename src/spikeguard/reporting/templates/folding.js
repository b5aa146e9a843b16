/* Sections are folded; links open what they point to, and print shows everything. */
const folds = () => [...document.querySelectorAll("details")];

function reveal() {
  const target = document.getElementById(location.hash.slice(1));
  let fold = target?.closest("details");
  if (!fold) return;
  for (; fold; fold = fold.parentElement.closest("details")) fold.open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => {
  if (event.target.closest("a")?.getAttribute("href") === location.hash) reveal();
});

const unfold = document.getElementById("unfold");
unfold.addEventListener("click", () => {
  const open = folds().some((fold) => fold.matches(".section:not([open])"));
  for (const fold of folds()) if (open || fold.matches(".section")) fold.open = open;
  unfold.textContent = open ? "Fold all sections" : "Open all sections";
});

let closed = [];
addEventListener("beforeprint", () => {
  closed = folds().filter((fold) => !fold.open);
  for (const fold of closed) fold.open = true;
  document.documentElement.classList.add("on-paper");
  onPaper = true;
  for (const id of Object.keys(figures)) draw(id);
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("on-paper");
  onPaper = false;
  for (const box of document.querySelectorAll(".chart.js-plotly-plot")) draw(box.id);
  for (const fold of closed) fold.open = false;
});

reveal();
