// What tests/test_report.py has a browser do with a page: moves the slider, points at a trial, at a curve and at an
// interval, drags along an axis, hides an arm, sorts a table; and writes down what came of it.
const said = [];
addEventListener("error", (event) => said.push(`error: ${event.message}`));
setTimeout(() => {
  const all = (what) => [...document.querySelectorAll(what)];
  const point = (node, kind = "mousemove") => { const box = node.getBoundingClientRect(); node.dispatchEvent(new MouseEvent(kind, { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true })); return document.getElementById("tip").textContent; };
  said.push(`cards ${all(".card[data-kind]").map((card) => card.dataset.kind).join(",")}`);
  const curve = () => document.querySelector("[data-kind=curves] path").getAttribute("d"), before = curve();
  const slider = document.querySelector("input[type=range]");
  if (slider) { slider.value = 1; slider.dispatchEvent(new Event("input")); said.push(`smoothed ${curve() !== before}`); }
  for (const kind of ["front", "forest", "parallel", "curves"]) {
    const node = document.querySelector({ front: "[data-kind=front] circle", forest: "[data-kind=forest] g", parallel: "[data-kind=parallel] polyline", curves: "[data-kind=curves] rect" }[kind]);
    if (node) said.push(`${kind} tip: ${point(node)}`);
  }
  const grip = document.querySelector("[data-kind=parallel] rect[data-axis]");
  if (grip) {
    const box = grip.getBoundingClientRect();
    grip.dispatchEvent(new PointerEvent("pointerdown", { clientX: box.x, clientY: box.y }));
    dispatchEvent(new PointerEvent("pointerup", { clientX: box.x, clientY: box.y + box.height / 3 }));
    said.push(`brush ${all("[data-kind=parallel] .brush").length}, left ${all("[data-kind=parallel] polyline").filter((line) => line.getAttribute("stroke") !== "var(--line)").length}`);
  }
  const lines = () => all("[data-kind=curves] svg")[0].querySelectorAll("path").length, shown = lines(), arm = document.querySelector(".legend button");
  if (arm) { arm.click(); said.push(`hidden ${shown - lines()}`); }
  const head = document.querySelector("th");
  head.click(); head.click();
  said.push(`rows ${all("table")[0].querySelectorAll("tbody tr").length}, wide ${document.documentElement.scrollWidth > innerWidth}`);
  document.body.append(Object.assign(document.createElement("pre"), { id: "said", textContent: said.join("\n") }));
}, 500);
